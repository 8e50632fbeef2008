"""What a piece of evidence looks like: a table, a criterion, and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim with its evidence.

    Attributes:
        name: of its block in the document, and for ``--only``.
        criterion: what must hold, in one sentence.
        header, rows: the evidence.
        failures: what does not hold, one sentence each; empty if all is well.
    """

    name: str
    criterion: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    failures: Sequence[str]

    @property
    def met(self) -> bool:
        return not self.failures

    def markdown(self) -> str:
        """The criterion, the verdict and the table."""
        verdict = "holds" if self.met else "does NOT hold: " + "; ".join(self.failures)
        lines = [f"*{self.criterion}* This {verdict}.", ""]
        lines += ["| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]
        return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
