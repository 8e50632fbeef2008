"""Runs that can't differ: where the dose is 0, factors that only shape the shocks do nothing.

Earlier versions ran such a cell for each of their levels, and the same seed gave the same run again, byte for byte. One
of them counts; it belongs to no level of these factors, and is the reference for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def without_copies(
    runs: pandas.DataFrame, dose: str, inert: Sequence[str], parameters: Sequence[str]
) -> tuple[pandas.DataFrame, int]:
    """The runs with each copy left out and its factors without a level where the dose is 0, and how many were copies.

    Args:
        runs: analysed runs.
        dose: column of the dose.
        inert: columns of the factors that do nothing at dose 0.
        parameters: columns of every parameter.

    Of several copies, a finished run is kept rather than one in progress.
    """
    inert = [path for path in inert if path in runs]
    if dose not in runs or not inert:
        return runs, 0
    at_zero = runs[dose].astype(float) == 0
    shared = ["folder", "seed", *(path for path in parameters if path in runs and path not in inert)]
    ranked = runs[at_zero].sort_values("status", kind="stable")  # finished before running
    copies = ranked.index[ranked.duplicated(shared)]
    kept = runs.drop(copies)
    for path in inert:
        if kept[path].nunique() > 1:
            kept[path] = kept[path].astype(object).where(~at_zero.reindex(kept.index), None)
    return kept.reset_index(drop=True), len(copies)
