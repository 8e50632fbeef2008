"""Which experiment each run belongs to, where several are read together: those are compared and never pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.config.difference import differences, trial_name

if TYPE_CHECKING:
    import pandas

    from vendomini.config import Phase

COLUMN = "experiment"


@dataclass(frozen=True, slots=True)
class Expanded:
    """A plan: the folder that keeps it, and the ids of its runs."""

    folder: str
    phase: Phase
    runs: set[str]


def experiments(runs: pandas.DataFrame, plans: Sequence[Expanded]) -> list[str]:
    """A name for the experiment of each run; one name for all where they are one experiment.

    Folders are one experiment if their configs differ at most in what a grid varies, and no run is in two of them. A
    run that no plan has counts as one of its folder's first plan.

    Args:
        runs: with ``folder``, ``results`` and ``run_id``.
        plans: of all folders.
    """
    kinds: list[Phase] = []
    kind_of: dict[tuple[str, str], int] = {}
    for plan in plans:
        kind = next((k for k, known in enumerate(kinds) if not differences(known, plan.phase)), len(kinds))
        kinds += [plan.phase] if kind == len(kinds) else []
        for run_id in plan.runs:
            kind_of.setdefault((plan.folder, run_id), kind)
    first = {plan.folder: next(k for k, known in enumerate(kinds) if not differences(known, plan.phase))
             for plan in reversed(plans)}  # fmt: skip
    mine = [kind_of.get((folder, run_id), first.get(folder, 0)) for folder, run_id in _ids(runs)]
    if len(set(mine)) <= 1 and not runs["run_id"].duplicated().any():
        return [""] * len(mine)
    places = _short(sorted(set(map(str, runs["results"]))))
    return [
        places[str(root)] + _suffix(folder, kind, kinds, first)
        for root, folder, kind in zip(runs["results"], runs["folder"], mine, strict=True)
    ]


def _ids(runs: pandas.DataFrame) -> list[tuple[str, str]]:
    return list(zip(runs["folder"], runs["run_id"], strict=True))


def _suffix(folder: str, kind: int, kinds: Sequence[Phase], first: dict[str, int]) -> str:
    """What a run's experiment differs in from that of its folder's first plan."""
    usual = first.get(folder, kind)
    return "" if kind == usual else trial_name(differences(kinds[usual], kinds[kind]))


def _short(roots: Sequence[str]) -> dict[str, str]:
    """The last part of each path; the whole of those that share it."""
    names = Counter(Path(root).name for root in roots)
    return {root: Path(root).name if names[Path(root).name] == 1 else root for root in roots}
