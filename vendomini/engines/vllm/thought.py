"""How vLLM is told where a model's thought ends: for its limit, and for the grammar of the answer.

vLLM's own reasoning parsers know some families by name; a grammar that begins with the thought knows all of ours.
"""

from __future__ import annotations

import json
from typing import Any

from vendomini.model_info.formats import ReplyFormat


def reasoning_config(form: ReplyFormat) -> dict[str, str]:
    """What begins a thought, and what ends one that takes too long, for vLLM's limit on thoughts."""
    return {"reasoning_start_str": form.start, "reasoning_end_str": form.end + form.header}


def constraint(schema: dict[str, Any], form: ReplyFormat | None) -> dict[str, Any]:
    """Keyword arguments of vLLM's ``StructuredOutputsParams``: the schema for the answer alone, after a thought that
    the prompt has opened, or that the model may begin, and after the answer's header, if the family has one."""
    if form is None:
        return {"json": schema}
    header: list[dict[str, Any]] = [{"type": "const_string", "value": form.header}] if form.header else []
    answer = [*header, {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}]
    thought = {"type": "tag", "begin": "" if form.opened else form.start, "content": {"type": "any_text"}}
    after_thought = _sequence([{**thought, "end": form.end}, *answer])
    reply = after_thought if form.opened else {"type": "or", "elements": [after_thought, _sequence(answer)]}
    return {"structural_tag": json.dumps({"type": "structural_tag", "format": reply})}


def _sequence(elements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "sequence", "elements": elements}
