"""The agent's side of a step: an observation becomes a prompt, a completion becomes an action."""

from vendomini.agent.history import History
from vendomini.agent.parse import complain, parse_completion, parse_reply
from vendomini.agent.prompt import output_schema, reply_schema, system_prompt
from vendomini.agent.reading import how_read
from vendomini.agent.reply import Reply, read_reply
from vendomini.model_info.formats import named_format

__all__ = [
    "History",
    "Reply",
    "complain",
    "how_read",
    "named_format",
    "output_schema",
    "parse_completion",
    "parse_reply",
    "read_reply",
    "reply_schema",
    "system_prompt",
]
