"""The agent's side of a step: an observation becomes a prompt, a completion becomes an action."""

from vendomini.agent.history import History
from vendomini.agent.parse import parse_completion
from vendomini.agent.prompt import output_schema, reply_schema, system_prompt, user_turn

__all__ = ["History", "output_schema", "parse_completion", "reply_schema", "system_prompt", "user_turn"]
