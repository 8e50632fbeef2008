"""How a model's replies will be read, in words, before anything is run."""

from __future__ import annotations

import json

from vendomini.agent.template import ChatTemplate, Tokenizer
from vendomini.config.schema import Model
from vendomini.model_info.formats import ReplyFormat, named_format

_FOUND_IN = {
    "chat template": "found in its chat template",
    "vocabulary": "found in its vocabulary",
    "config": "set by agent.model.reply_format",
}


def how_read(tokenizer: Tokenizer, model: Model) -> str:
    """The family, what begins and ends a thought, what is done with it, and how long it may be, as half a sentence.

    Raises:
        ConfigError: its chat template can't be used.
    """
    asked = named_format(model.reply_format)
    template = ChatTemplate(tokenizer, "Rules.", model.chat_template_kwargs, model.prompt_date, asked)
    form = template.format
    parts = [_family(form)]
    if form.start:
        parts += [_thought(form, template.open), "kept" if template.keeps_thoughts else "dropped"]
        parts[-1] = f"thoughts of earlier turns are {parts[-1]}"
    parts.append(_limits(model, form, template.open))
    if model.chat_template_kwargs:
        parts.append(f"the template is given {json.dumps(model.chat_template_kwargs)}")
    return "; ".join(parts)


def _family(form: ReplyFormat) -> str:
    if not form.found_in:
        return f"family {form.name} (neither its chat template nor its vocabulary marks thoughts)"
    return f"family {form.name} ({_FOUND_IN[form.found_in]})"


def _thought(form: ReplyFormat, opening: str) -> str:
    between = f"a thought is between {form.start} and {form.end}"
    if form.header:
        between += f", and the answer follows {form.header}"
    if form.opened:
        return f"{between}; the prompt begins it"
    return f"{between}; the prompt ends it, so that there is none" if _closed(form, opening) else between


def _closed(form: ReplyFormat, opening: str) -> bool:
    return bool(form.end) and opening.rfind(form.end) > opening.rfind(form.start)


def _limits(model: Model, form: ReplyFormat, opening: str) -> str:
    if not form.start or _closed(form, opening):
        return f"an answer has up to {model.max_tokens:,} tokens"
    if model.max_thinking_tokens:
        return f"a thought has up to {model.max_thinking_tokens:,} tokens and an answer {model.max_tokens:,}"
    return (
        f"thought and answer share {model.max_tokens:,} tokens, which a long thought uses up: set "
        "agent.model.max_thinking_tokens"
    )
