"""Tools that every world can offer, according to ``agent.interface``: a scratchpad, and help to get back on track."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vendomini.config.schema import Interface
from vendomini.worlds.protocol import Audit, Audited, Result, ToolSpec
from vendomini.worlds.tools import Handler, describe, integer, refuse, text, unknown

MAX_AUDIT = 20
MAX_NOTES = 50
MAX_KEY_CHARACTERS = 100
MAX_VALUE_CHARACTERS = 2_000
RESET_BELIEFS = "tool_reset_beliefs"

AUDITS = frozenset({"audit", "all"})
"""Values of ``recovery_tools`` that let the agent review its past predictions."""


class NoteCount(Result):
    keys: int


class NoteKeys(Result):
    keys: list[str]


class Note(Result):
    value: str


class Predictions(Result):
    predictions: list[Audited]


class Hint(Result):
    hint: str


def aid_specs(interface: Interface) -> list[ToolSpec]:
    """The tools that this interface offers."""
    return _memory_specs(interface.memory_tools) + _recovery_specs(interface.recovery_tools)


def _memory_specs(offer: str) -> list[ToolSpec]:
    key = text("Name of the note.", MAX_KEY_CHARACTERS)
    value = text("Text of the note.", MAX_VALUE_CHARACTERS)
    basic = [
        describe("tool_write_scratchpad", "Keep a note under a key.", {"key": key, "value": value}, effect=True),
        describe("tool_read_scratchpad", "Read the note under a key.", {"key": key}),
    ]
    full = [
        describe("tool_delete_scratchpad", "Delete the note under a key.", {"key": key}, effect=True),
        describe("tool_list_scratchpad", "List the keys of your notes."),
    ]
    return {"none": [], "basic": basic, "full": basic + full}[offer]


def _recovery_specs(offer: str) -> list[ToolSpec]:
    reset = [describe(RESET_BELIEFS, "Clear this conversation; your scratchpad is kept.", effect=True)]
    n = integer("How many.", 1, MAX_AUDIT)
    audit = [describe("tool_audit_predictions", "Compare your last n predictions with what happened.", {"n": n})]
    hint = [describe("tool_ask_help", "Get one hint.")]
    return {"none": [], "reset": reset, "audit": audit, "help": hint, "all": reset + audit + hint}[offer]


class Aids:
    """These tools in one episode.

    Args:
        audit: the last n predictions.
        hint: gives the next thing to do, in a sentence.

    Attributes:
        changes: rises with every change of the notes.
        handlers: tool → what runs it.
    """

    def __init__(self, audit: Audit, hint: Callable[[], str]) -> None:
        self._notes: dict[str, str] = {}
        self._audit, self._hint = audit, hint
        self.changes = 0
        self.handlers: Mapping[str, Handler] = {
            "tool_write_scratchpad": self._write,
            "tool_read_scratchpad": self._read,
            "tool_delete_scratchpad": self._delete,
            "tool_list_scratchpad": self._list,
            RESET_BELIEFS: lambda: Result(True),
            "tool_audit_predictions": lambda n: Predictions(True, self._audit(n)),
            "tool_ask_help": lambda: Hint(True, self._hint()),
        }

    def _write(self, key: str, value: str) -> Result:
        notes = self._notes
        if key not in notes and len(notes) >= MAX_NOTES:
            return refuse("scratchpad_full", f"The scratchpad holds {MAX_NOTES} notes: overwrite one.")
        if notes.get(key) != value:
            self.changes += 1
            notes[key] = value
        return NoteCount(True, len(notes))

    def _read(self, key: str) -> Result:
        return Note(True, self._notes[key]) if key in self._notes else unknown("note", key, self._notes)

    def _delete(self, key: str) -> Result:
        if key not in self._notes:
            return unknown("note", key, self._notes)
        del self._notes[key]
        self.changes += 1
        return NoteCount(True, len(self._notes))

    def _list(self) -> Result:
        return NoteKeys(True, sorted(self._notes))
