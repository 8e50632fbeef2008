"""``vendomini estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson, Override, Partition, Phases, ResultsFolder

if TYPE_CHECKING:
    from vendomini.cli.output import Rows
    from vendomini.cluster.estimate import Row


def estimate(
    phases: Phases,
    override: Override = None,
    results: ResultsFolder = None,
    partition: Partition = None,
    describe: Annotated[
        Path | None, typer.Option("--describe", help="Of a cluster elsewhere: what doctor --json printed there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate hours and GPU-hours of phases, by engine.

    Estimates come from the throughput of the finished runs in the results folder, else of the phase's pilot, or, while
    there is neither, from the table of hours in docs/engines.md; the output says which.

    Examples:

      vendomini estimate phase1 phase5

      vendomini estimate phase1 --partition gpu --json
    """
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.estimate import estimate as rows_of
    from vendomini.cluster.launch import offers_for_estimates
    from vendomini.cluster.throughput import known_throughput
    from vendomini.config.experiments import load_phases, results_of

    loaded = load_phases(phases, override or (), results)
    offers, note = offers_for_estimates(partition, describe)
    rows = [
        row for phase in loaded for row in rows_of(phase, offers, known_throughput(phase, results_of(phase, results)))
    ]
    if as_json:
        print_json({"note": note, "rows": [row.as_json() for row in rows]})
        return
    out = console()
    if not rows:
        out.print("None of these runs loads a model: they need no GPU.", markup=False)
        return
    out.print(_table(rows))
    if note:
        out.print(note, markup=False)
    out.print(f"{sum(row.gpu_hours for row in rows):,.0f} GPU-hours in all with the engines to expect.", markup=False)


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
