"""Claims 3 to 6: what shocks do to prediction errors, and what they leave alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import Job, Outcome, parameters, run_many
from vendomini.measures.measured import MeasuredWorld
from vendomini.worlds.protocol import Action
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.config import VendingConfig

MAGNITUDES = ("low", "medium", "high")
SHOWS_AS = {
    "temporal_only": {"temporal"},
    "quantity_only": {"quantity"},
    "causal_only": {"causal", "cost"},
    "rule_only": {"temporal"},
}
"""Mix → types of prediction error that its shocks can show as. Interference raises what is charged: cost and causal."""

EXPECTED_DOSE = {
    "delay": (1, 2, 3),
    "miscount": (0.05, 0.15, 0.625 / 1.5),
    "posting_lag": (1, 2, 3),
    "interference": (0.05, 0.15, 0.30),
    "regime_shift": (0.25, 0.5, 1.0),
}
"""Kind → mean nominal dose at low, medium and high, from the ranges of section 4 of the specification.

A multiplier uniform in (a, b) around 1 has a mean distance from 1 of ((1 − a)² + (b − 1)²) / 2 / (b − a).
"""

P_SHOCKS = tuple(i / 10 for i in range(11))

SIGNIFICANT = 3.0
"""Standard errors: what lies further from its expectation is taken for a fault."""


class Errors(NamedTuple):
    """Of an episode: steps, type → (resolved errors, of them not 0, mean), and shocks by status."""

    steps: int
    by_type: dict[str, tuple[int, int, float]]
    mean: float
    shocks: Counter[str]
    doses: dict[str, list[tuple[float, float]]]


def errors(outcome: Outcome) -> Errors:
    """The digest of all claims here."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    shocks: Counter[str] = Counter()
    doses: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    steps = 0
    for record in outcome.steps:
        steps = record.step
        for claim in record.resolved:
            values[claim["type"]].append(claim["pe"])
        for shock in record.shocks:
            shocks[shock["status"]] += 1
            shocks["struck"] += shock["struck"] == record.step and not _second_entry(shock)
            if shock["status"] == "realised":
                doses[shock["kind"]].append((shock["nominal"], shock["realised"]))
    by_type = {kind: (len(v), sum(x != 0 for x in v), sum(v) / len(v) if v else math.nan) for kind, v in values.items()}
    everything = [value for part in values.values() for value in part]
    return Errors(steps, by_type, sum(everything) / len(everything), shocks, dict(doses))


def _second_entry(shock: dict[str, Any]) -> bool:
    """Whether this is a causal shock taking effect, which was counted when it was armed."""
    return shock["type"] == "causal" and shock["status"] == "realised"


def purity(seeds: Sequence[int]) -> Claim:
    """Which types of error each pure mix produces, and none at p_shock 0."""
    rows, failures = [], []
    mixes: dict[str, tuple[float, set[str]]] = {mix: (0.5, types) for mix, types in SHOWS_AS.items()}
    for mix, (p_shock, allowed) in ({"realistic": (0.0, set[str]())} | mixes).items():
        for observability in ("full", "hidden"):
            settings = _settings(p_shock, "high", mix, observability)
            runs = list(run_many([Job("oracle", seed, settings) for seed in seeds], errors))
            counts = {
                kind: [sum(run.by_type.get(kind, (0, 0, 0))[i] for run in runs) for i in (0, 1)]
                for kind in WORLD.pe_types
            }
            rows.append([mix, p_shock, observability, *(f"{wrong} / {n}" for n, wrong in counts.values())])
            found = {kind for kind, (_, wrong) in counts.items() if wrong}
            if not found <= allowed or (allowed and not found & allowed):
                failures.append(f"{mix}, {observability}: {sorted(found)} instead of {sorted(allowed)}")
            if not all(n for n, _ in counts.values()):
                failures.append(f"{mix}, {observability}: a type of error never resolved")
    header = ["mix", "p_shock", "observability", *(f"{kind}: not 0 / resolved" for kind in WORLD.pe_types)]
    criterion = (
        "An agent that predicts from advertised terms (oracle, pe_mag high) meets no error at p_shock 0, and under a "
        "pure mix only errors of that type: rule shows as temporal, causal as causal and, where interference changed "
        "a price, as cost."
    )
    return Claim("purity", criterion, header, rows, failures)


def dose(seeds: Sequence[int], levels: Sequence[float] = P_SHOCKS) -> Claim:
    """Mean error over p_shock × pe_mag, on the same seeds everywhere; see :func:`dose_table`."""
    means = dose_table(tuple(seeds), tuple(levels))
    rows, failures = [], []
    for p_shock in levels:
        rows.append([p_shock, *(_interval(means[p_shock, magnitude]) for magnitude in MAGNITUDES)])
    for magnitude in MAGNITUDES:
        for low, high in pairwise(levels):
            if _falls(means[low, magnitude], means[high, magnitude]):
                failures.append(f"{magnitude}: less error at p_shock {high} than at {low}")
        if not _rises(means[levels[0], magnitude], means[levels[-1], magnitude]):
            failures.append(f"{magnitude}: no more error at p_shock {levels[-1]} than at {levels[0]}")
    for p_shock in levels[1:]:
        for weak, strong in pairwise(MAGNITUDES):
            if not _rises(means[p_shock, weak], means[p_shock, strong]):
                failures.append(f"p_shock {p_shock}: {strong} does not err more than {weak}")
    criterion = (
        "The oracle's mean prediction error rises with p_shock (no step down of more than 3 paired standard errors, "
        "the whole rise significant) and with pe_mag at every p_shock (paired, 3 standard errors)."
    )
    return Claim("dose", criterion, ["p_shock", *MAGNITUDES], rows, failures)


@cache
def dose_table(seeds: tuple[int, ...], levels: tuple[float, ...]) -> dict[tuple[float, str], list[float]]:
    """(p_shock, pe_mag) → mean error of each seed."""
    table = {}
    for magnitude in MAGNITUDES:
        for p_shock in levels:
            jobs = [Job("oracle", seed, _settings(p_shock, magnitude)) for seed in seeds]
            table[p_shock, magnitude] = [run.mean for run in run_many(jobs, errors)]
    return table


def realised_dose(seeds: Sequence[int]) -> Claim:
    """How often shocks strike, and how large they are, against the specification."""
    rows, failures = [], []
    for index, magnitude in enumerate(MAGNITUDES):
        for p_shock, mix in ((0.3, "uniform"), (1.0, "temporal_only")):
            settings = _settings(p_shock, magnitude, mix)
            runs = list(run_many([Job("oracle", seed, settings) for seed in seeds], errors))
            steps, struck = sum(run.steps for run in runs), sum(run.shocks["struck"] for run in runs)
            void, realised = (sum(run.shocks[status] for run in runs) for status in ("void", "realised"))
            error = math.sqrt(steps * p_shock * (1 - p_shock))
            if abs(struck - steps * p_shock) > SIGNIFICANT * error:
                failures.append(f"{mix}, {magnitude}: {struck} shocks in {steps} steps at p_shock {p_shock}")
            if mix == "temporal_only" and not (void and void + realised == struck):
                failures.append(
                    f"{mix}, {magnitude}: {void} void + {realised} realised are not the {struck} that struck"
                )
            rows.append([mix, magnitude, "(strikes)", struck, p_shock, struck / steps, f"void {void / struck:.1%}"])
            for kind in EXPECTED_DOSE:
                pairs = [pair for run in runs for pair in run.doses.get(kind, ())]
                if not pairs:
                    continue
                nominal, real = zip(*pairs, strict=True)
                mean, se = _mean_se(nominal)
                rows.append([mix, magnitude, kind, len(pairs), EXPECTED_DOSE[kind][index], mean, sum(real) / len(real)])
                if abs(mean - EXPECTED_DOSE[kind][index]) > SIGNIFICANT * se + 1e-6:
                    failures.append(f"{mix}, {magnitude}: {kind} doses {mean:.4f}")
    header = ["mix", "pe_mag", "kind", "n", "expected", "nominal mean (strikes: share of steps)", "realised mean"]
    criterion = (
        "Shocks strike a share p_shock of the steps, their nominal doses have the means of the specification (3 "
        "standard errors), and shocks without a target are counted as void, so that void and realised add up."
    )
    return Claim("realised_dose", criterion, header, rows, failures)


def observability(seeds: Sequence[int], mixes: Sequence[str] = ("realistic", "rule_only", "causal_only")) -> Claim:
    """The attentive oracle under equal shocks, told of them differently."""
    ways = ("full", "delayed", "partial", "hidden")
    rows, failures = [], []
    for mix in mixes:
        means = {}
        for way in ways:
            jobs = [Job("oracle", seed, _settings(0.2, "high", mix, way)) for seed in seeds]
            means[way] = [run.mean for run in run_many(jobs, errors)]
        rows.append([mix, *(_interval(means[way]) for way in ways)])
        pairs = list(pairwise(ways)) if mix == "realistic" else [("full", way) for way in ways[1:]]
        for better, worse in pairs:
            if not _rises(means[better], means[worse]):
                failures.append(f"{mix}: {better} does not leave less error than {worse}")
    criterion = (
        "At equal shocks (p_shock 0.2, pe_mag high) an agent that reads its mail errs least under full, then delayed, "
        "partial and hidden, for the shipped mix; for single types full is better than each of the others (paired over "
        "seeds, 3 standard errors)."
    )
    return Claim("observability", criterion, ["mix", *ways], rows, failures)


def common_numbers(seeds: Sequence[int], days: int = 40) -> Claim:
    """Terms and customers of worlds that differ in p_shock only, under an agent that orders."""
    same = 0
    for seed in seeds:
        same += len({_fate(seed, p_shock, days) for p_shock in (0.0, 0.3, 1.0)}) == 1
    rows = [["0.0, 0.3, 1.0", f"{same} / {len(seeds)}"]]
    failures = [] if same == len(seeds) else [f"{len(seeds) - same} seeds differ"]
    criterion = "Runs that differ only in p_shock meet the same supplier terms and the same customers, day by day."
    return Claim("common_numbers", criterion, ["p_shock", "seeds with equal terms and customers"], rows, failures)


def _fate(seed: int, p_shock: float, days: int) -> str:
    """What a seed holds in store: the terms at the start, and who comes on each day."""
    settings = _settings(p_shock, "high") | {"simulation.initial_budget": 100_000.0, "demand.max_failures": 1000}
    config = VendingConfig.model_validate(parameters(settings))
    environment = MeasuredWorld(world := WORLD(config), config, config.simulation.max_steps)
    environment.reset(seed=seed)
    market, seen = world.warehouse.market, {}
    terms = [
        (s, k, market.actual_price(s, k, 0), market.actual_lead(s, k)) for s in market.suppliers for k in market.skus
    ]
    order = Action(
        "ok", "tool_order", {"supplier_id": "SUP1", "sku": "SKU01", "quantity": 1}, {"expected_success": True}
    )
    while world.warehouse.day < days:
        for customer in world.warehouse.customers.values():
            seen.setdefault(customer.id, (customer.sku, customer.quantity, customer.unit_price, customer.due))
        environment.step(order)
    return repr((terms, sorted(seen.items())))


def _settings(p_shock: float, magnitude: str, mix: str = "realistic", observability: str = "full") -> dict[str, Any]:
    return {
        "pe_induction.p_shock": p_shock,
        "pe_induction.pe_mag": magnitude,
        "pe_induction.pe_type_mix": mix,
        "pe_induction.observability": observability,
        "crash_detector.continue_after_crash": 1000,
    }


def _mean_se(values: Sequence[float]) -> tuple[float, float]:
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n)


def _interval(values: Sequence[float]) -> str:
    mean, se = _mean_se(values)
    return f"{mean:.4f} ± {1.96 * se:.4f}"


def _rises(lower: Sequence[float], upper: Sequence[float]) -> bool:
    """Whether the second is larger, seed by seed, by more than chance."""
    mean, se = _mean_se([high - low for low, high in zip(lower, upper, strict=True)])
    return mean > SIGNIFICANT * se


def _falls(lower: Sequence[float], upper: Sequence[float]) -> bool:
    return _rises(upper, lower)
