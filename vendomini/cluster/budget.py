"""``--gpu-hours``: which of the runs fit into a budget, the most informative ones first.

Runs are taken in blocks of one seed, so that every comparison of cells stays a paired one. The first block that does
not fit as a whole is taken dose by dose, from both ends to the middle: the far doses say most about a slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from vendomini.config.grid import RunSpec
from vendomini.config.paths import as_text, lookup
from vendomini.errors import UsageError

Cost = Callable[[Sequence[RunSpec]], float]
"""GPU-hours of these runs, as they would be planned."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What fits.

    Attributes:
        runs: to be planned.
        missing: what will not be there, in words; empty where all fits.
    """

    runs: list[RunSpec]
    missing: str = ""


def within(hours: float, runs: Sequence[RunSpec], dose: str, cost: Cost) -> Budget:
    """The longest prefix of the blocks that fits.

    Args:
        dose: dot path of the phase's dose.

    Raises:
        UsageError: not even the first block does.
    """
    doses = sorted({_number(spec, dose) for spec in runs})
    middle = (doses[0] + doses[-1]) / 2 if doses else 0.0

    def place(spec: RunSpec) -> tuple[int, float]:
        return spec.seed, -abs(_number(spec, dose) - middle)

    blocks = [list(block) for _, block in groupby(sorted(runs, key=place), key=place)]
    fitting = _most(len(blocks), lambda count: cost(_joined(blocks[:count])) <= hours)
    if blocks and not fitting:
        first, name = blocks[0][0], dose.rpartition(".")[2]
        raise UsageError(
            f"--gpu-hours {hours:g} is too little: the {len(blocks[0]):,} runs of seed {first.seed} at the far ends of "
            f"{name} alone take {cost(blocks[0]):,.2f} GPU-hours"
        )
    chosen = {spec.run_id for spec in _joined(blocks[:fitting])}
    return Budget([spec for spec in runs if spec.run_id in chosen], _left_out(blocks[fitting:], chosen, runs, dose))


def _joined(blocks: Sequence[list[RunSpec]]) -> list[RunSpec]:
    return [spec for block in blocks for spec in block]


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number that fits, up to ``count``, by halving: a larger one never fits where a smaller does not."""
    if fits(count):
        return count
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _left_out(left: Sequence[list[RunSpec]], chosen: set[str], runs: Sequence[RunSpec], dose: str) -> str:
    """Which seeds are missing as a whole, and which doses of the one that is there in part."""
    if not left:
        return ""
    begun = {spec.seed for spec in runs if spec.run_id in chosen}
    parts = []
    part = [spec for spec in _joined(left) if spec.seed in begun]
    if part:
        values = ", ".join(as_text(lookup(spec.parameters, dose)) for spec in _one_a_dose(part, dose))
        parts.append(f"{dose.rpartition('.')[2]} {values} of seed {part[0].seed}")
    if whole := sorted({spec.seed for spec in _joined(left)} - begun):
        seeds = f"seed {whole[0]}" if len(whole) == 1 else f"seeds {whole[0]} to {whole[-1]}"
        parts.append(f"all of {seeds}")
    return f"{sum(map(len, left)):,} of {len(runs):,} runs will be missing: {' and '.join(parts)}"


def _one_a_dose(runs: Sequence[RunSpec], dose: str) -> list[RunSpec]:
    return [found for _, found in sorted({_number(spec, dose): spec for spec in runs}.items())]


def _number(spec: RunSpec, dose: str) -> float:
    return float(str(lookup(spec.parameters, dose)))
