"""One call of the runner, as a command or a job makes it: signals, progress and the engine chain around the runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vendomini.config import Phase, RunSpec
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Engine
from vendomini.engines.resolve import start_engine
from vendomini.records import Results
from vendomini.runner.progress import Counters, Progress
from vendomini.runner.run import Tally, run_all, save_plan
from vendomini.runner.stop import Stop

if TYPE_CHECKING:
    from rich.console import Console


def run_pending(phase: Phase, todo: Sequence[RunSpec], tally: Tally, results: Results, console: Console) -> Counters:
    """Runs what :func:`vendomini.runner.pending` found, adds to its tally, and says on the console how far it is.

    Raises:
        EngineUnavailable: no engine can run a model.
        ResultsError: results can't be written; what is written is kept.
    """
    save_plan(phase, results)
    counters, stop = Counters(), Stop()
    progress = Progress(console, counters)

    async def start(model: Model, engine: EngineConfig) -> Engine:
        return await start_engine(model, engine, say=progress.say)

    with stop.on_signals(progress.say), progress:
        asyncio.run(run_all(todo, tally, results, phase.config.engine, start, stop, progress, counters, phase.engines))
    return counters
