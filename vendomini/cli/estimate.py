"""``vendomini estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson, Override, Partition, Phases, ResultsFolder

if TYPE_CHECKING:
    from vendomini.cli.output import Rows
    from vendomini.cluster.estimate import Foreseen, Row

ASSUMED = (
    "Simulated, with half of the runs at dose 0 ending in an event. At hazard ratio 1 there is nothing to be found. "
    "The hours below are those of all seeds."
)


def estimate(
    phases: Phases,
    override: Override = None,
    results: ResultsFolder = None,
    partition: Partition = None,
    describe: Annotated[
        Path | None, typer.Option("--describe", help="Of a cluster elsewhere: what doctor --json printed there.")
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="What experiment.replications {min, max} would save.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Estimate hours and GPU-hours of phases, by engine.

    Estimates come from the throughput of the finished runs in the results folder, else of the phase's pilot, or, while
    there is neither, from the table of hours in docs/engines.md; the output says which. With --adaptive, phases are
    simulated in which each dose multiplies the hazard, to see how many seeds they would take.

    Examples:

      vendomini estimate phase1 phase5

      vendomini estimate phase1 --partition gpu --json

      vendomini estimate phase1_small -o 'experiment.replications={min: 5, max: 40}' --adaptive
    """
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.estimate import estimate as rows_of
    from vendomini.cluster.estimate import foresee
    from vendomini.cluster.launch import offers_for_estimates
    from vendomini.cluster.throughput import known_throughput
    from vendomini.config.experiments import load_phases, results_of

    loaded = load_phases(phases, override or (), results)
    offers, note = offers_for_estimates(partition, describe)
    rows = [
        row for phase in loaded for row in rows_of(phase, offers, known_throughput(phase, results_of(phase, results)))
    ]
    foreseen = [foresee(phase, rows) for phase in loaded] if adaptive else []
    if as_json:
        more = {"adaptive": [one.as_json() for one in foreseen]} if adaptive else {}
        print_json({"note": note, "rows": [row.as_json() for row in rows], **more})
        return
    out = console()
    for one in foreseen:
        out.print(_savings(one))
    if foreseen:
        out.print(ASSUMED, markup=False)
    if not rows:
        out.print("None of these runs loads a model: they need no GPU.", markup=False)
        return
    out.print(_table(rows))
    if note:
        out.print(note, markup=False)
    out.print(f"{sum(row.gpu_hours for row in rows):,.0f} GPU-hours in all with the engines to expect.", markup=False)


def _savings(one: Foreseen) -> Rows:
    from vendomini.cli.output import Rows

    shown = Rows(
        ["hazard ratio", f"seeds, of {one.most}", "share of the hours", "GPU-hours", "doses found"],
        title=f"{one.phase}, if every dose multiplies the hazard",
    )
    for ratio, means in one.expected.items():
        hours = "–" if one.gpu_hours is None else f"{one.gpu_hours * means.share:,.0f}"
        shown.add(f"{ratio:g}", f"{means.blocks:.0f}", f"{means.share:.0%}", hours, f"{means.found:.0%}")
    return shown


def _table(rows: list[Row]) -> Rows:
    from vendomini.cli.output import Rows

    shown = Rows(
        ["phase", "model", "tasks", "GPUs", "standard", "Flash Attention", "vLLM", "GPU-hours"],
        words=2,
        caption="* published estimate; + measured in the pilot",
    )
    for row in rows:
        hours = [f"{row.hours[engine]:,.1f} h{_mark(row, engine)}" for engine in ("standard", "flash", "vllm")]
        total = f"{row.gpu_hours:,.0f}{_mark(row, row.engine)}"
        shown.add(row.phase, row.model, f"{row.tasks:,}", str(row.gpus), *hours, total)
    return shown


def _mark(row: Row, engine: str) -> str:
    from vendomini.cluster.throughput import PILOTED, PUBLISHED

    return {PUBLISHED: "*", PILOTED: "+"}.get(row.sources[engine], "")
