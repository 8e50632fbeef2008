"""Does a larger model survive longer? Median survival against the number of parameters, over models."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vendomini.analysis.statistics.estimate import CannotFit, Estimate
from vendomini.analysis.statistics.survival import Curve

MODELS = 3
"""Fewest models: a slope with an interval needs a residual degree of freedom."""


@dataclass(frozen=True, slots=True)
class Point:
    """One model: parameters (a count), and its median survival in steps."""

    model: str
    parameters: float
    median: Estimate
    n: int
    events: int


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """Median survival ∝ parameters ^ exponent.

    Attributes:
        points: the models that it rests on.
        exponent: slope of log10(median) on log10(parameters), with a 95 % interval.
        intercept: of the same line.
        r_squared, p: of the line; ``p`` of the two-sided test that the exponent is 0.
        left_out: sentences about models that are not on the line.
        method: as shown.
    """

    points: list[Point]
    exponent: Estimate
    intercept: float
    r_squared: float
    p: float
    left_out: list[str]
    method: str


def parameters_of(model: str) -> float | None:
    """The number of parameters that a model's name states (``…-32B``, ``1B-Instruct``, ``350M``), or None."""
    found = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z0-9])", model)
    if not found:
        return None
    number, unit = found[-1]
    return float(number) * (1e9 if unit in "Bb" else 1e6)


def scaling_law(curves: Sequence[Curve], parameters: dict[str, float]) -> ScalingLaw:
    """Least squares on logarithms, each model one point; the interval is Student's t over models.

    Args:
        curves: one a model, its label the model's name.
        parameters: model name → number of parameters.

    Raises:
        CannotFit: fewer than three models have both a known size and a median within the observed time.
    """
    from scipy import stats

    points, left_out = [], []
    for curve in curves:
        if curve.label not in parameters:
            left_out.append(f"{curve.label}: its number of parameters is not known.")
        elif not math.isfinite(curve.median.value):
            left_out.append(f"{curve.label}: more than half of its {curve.n} runs survive, so it has no median yet.")
        else:
            points.append(Point(curve.label, parameters[curve.label], curve.median, curve.n, curve.events))
    if len({point.parameters for point in points}) < MODELS:
        told = f" ({' '.join(left_out)})" if left_out else ""
        raise CannotFit(f"A scaling law needs {MODELS} models of different sizes with a median, and there are "
                        f"{len({point.parameters for point in points})}.{told}")  # fmt: skip
    x = [math.log10(point.parameters) for point in points]
    y = [math.log10(point.median.value) for point in points]
    line = stats.linregress(x, y)
    reach = float(stats.t.ppf(0.975, len(points) - 2)) * float(line.stderr)
    slope = float(line.slope)
    return ScalingLaw(
        points=points,
        exponent=Estimate(slope, slope - reach, slope + reach),
        intercept=float(line.intercept),
        r_squared=float(line.rvalue) ** 2,
        p=float(line.pvalue),
        left_out=left_out,
        method=f"least squares on logarithms over {len(points)} models, t on {len(points)} − 2 degrees of freedom",
    )
