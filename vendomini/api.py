"""VendoMini's Python API; the commands call these functions, too.

Heavy modules are imported where they are needed, as everywhere in this package.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vendomini.errors import ResultsError, UsageError, counted
from vendomini.records import Results, RunInfo, RunSummary, StepRecord, read_steps
from vendomini.worlds.text import clip

if TYPE_CHECKING:
    import pandas

    from vendomini.config import Phase, RunSpec
    from vendomini.measures.flags import Flags
    from vendomini.runner import Progress, Tally

Config = str | Path | Mapping[str, object]


def run(
    config: Config,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    limit: int | None = None,
    results: Path | str | None = None,
    restart_changed: bool = False,
    say: Callable[[str], None] | None = print,
) -> Tally:
    """Runs the episodes of a config here, many at once, resuming what was begun, as ``vendomini run`` does.

    Works in a notebook, where an event loop runs already; interrupting it stops after the steps in flight.

    Args:
        config: a phase (``"phase1_large"``), a YAML file, a results folder, or the content of a YAML file.
        overrides: ``key=value`` with a dot path, as ``-o``.
        only: ``key=value`` that a run must have, as ``--only``.
        limit: at most this many runs.
        results: the folder; ``results/<experiment.name>`` by default.
        restart_changed: restart what was begun under another prompt or version.
        say: called with each line of the log; None for silence.

    Returns:
        What became of the runs that were asked for.

    Raises:
        ConfigError: the config is wrong.
        UsageError: no run matches, or the results folder holds another experiment.
        EngineUnavailable: no engine can run the only model there is.
        ResultsError: the results folder can't be made.
    """
    from vendomini.config.experiments import refuse_mixing, results_of
    from vendomini.runner import Progress

    phase = load(config, overrides)
    folder = results_of(phase, Path(results) if results else None)
    refuse_mixing(phase, folder)
    specs, more = choose(phase, only, limit, folder), None if limit else only
    return execute(phase, specs, folder, Progress(say), restart_changed=restart_changed, more=more)


def load(config: Config, overrides: Sequence[str] = ()) -> Phase:
    """The phase that a name, a file, a results folder or a mapping stands for.

    Raises:
        ConfigError: it stands for nothing, or the config is wrong.
        UsageError: it stands for several.
    """
    if isinstance(config, Mapping):
        from copy import deepcopy

        from vendomini.config.load import load_tree

        return load_tree(deepcopy(dict(config)), Path("config"), overrides)
    from vendomini.config.experiments import load_phase

    return load_phase(str(config), overrides)


def choose(
    phase: Phase, only: Sequence[str] = (), limit: int | None = None, results: Results | None = None
) -> list[RunSpec]:
    """The runs of a phase that match.

    Args:
        results: where replications are adaptive, of those that are asked for until the next look at this folder.

    Raises:
        UsageError: none does.
    """
    from vendomini.adaptive.looks import asked
    from vendomini.config import expand, select
    from vendomini.config.paths import as_text

    specs = list(select(asked(phase, results) if results else expand(phase), only, limit))
    if not specs:
        grid = "; ".join(f"{path}: {', '.join(map(as_text, values))}" for path, values in phase.axes.items())
        raise UsageError(f"no run of {phase.path} matches --only {' --only '.join(only)}; its grid is {grid}")
    return specs


def execute(
    phase: Phase,
    specs: Sequence[RunSpec],
    results: Results,
    progress: Progress,
    *,
    restart_changed: bool = False,
    more: Sequence[str] | None = None,
) -> Tally:
    """Runs what is pending of these runs.

    Args:
        more: where replications are adaptive, go on after each look, with the runs that match; None: stop there.

    Raises:
        EngineUnavailable: no engine can run the only model there is.
        ResultsError: the results folder can't be made.
    """
    from vendomini.adaptive.looks import look
    from vendomini.runner import Runner, save_plan

    runner = Runner(
        results,
        phase.config.engine,
        progress,
        engines=phase.engines,
        on_begin=partial(save_plan, phase, results),
        restart_changed=restart_changed,
        limits=phase.config.breaker,
        more=tuple if more is None else partial(_look, phase, results, more, progress.say),
    )
    todo, tally, say = runner.pending(specs), runner.tally, progress.say
    ended = f"{tally.already:,} already ended, " if tally.already else ""
    say(f"{phase.name}: {counted(len(specs), 'run')}, {ended}{len(todo):,} to do → {results.root}")
    for problem in tally.refused.values():
        say(f"[WARNING] {problem}")
    if phase.trial and results.root.name.endswith(phase.trial):
        say("[*] the overrides change the experiment, so that its results have a folder of their own")
    if todo:
        runner.run(todo)
    if more is not None and (state := look(phase, results)):
        state.keep(results)
    return tally


def _look(phase: Phase, results: Results, only: Sequence[str], say: Callable[[str], None]) -> Iterator[RunSpec]:
    """Says what is decided; the runs that are asked for now."""
    from vendomini.adaptive.looks import look
    from vendomini.config import select

    state = look(phase, results)
    if state is None:
        return iter(())
    say(f"[*] {state.sentence}")
    return select(iter(state.asked), only)


class Tables(NamedTuple):
    """The results of experiments.

    Attributes:
        runs: one row a run: finished, running, failed or damaged.
        steps: one row a step of every finished run.
    """

    runs: pandas.DataFrame
    steps: pandas.DataFrame


def load_results(*folders: Path | str, out: Path | str | None = None, columns: Sequence[str] | None = None) -> Tables:
    """The tables that ``vendomini report`` is made of; what has been read once is not read again.

    Args:
        folders: results folders, or folders of results folders.
        out: where the tables are kept; ``report`` in the first folder by default, as ``vendomini report`` keeps them.
        columns: of the steps; all by default. 100,000 runs have more steps than a machine has memory for.

    Raises:
        ResultsError: a folder holds no runs, or ``out`` can't be written.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    from vendomini.analysis.tables.aggregate import aggregate

    places = [Path(folder) for folder in folders]
    tables = aggregate(places, Path(out) if out else places[0] / "report")
    import pandas

    steps = tables.steps()
    wanted = list(columns) if columns is not None else None
    found = pandas.DataFrame(columns=wanted) if steps is None else steps.to_table(columns=wanted).to_pandas()
    return Tables(tables.runs(), found)


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as recorded in its files.

    Attributes:
        folder: of its files.
        info: what it is, and which process last started it.
        summary: how it ended; None until then.
    """

    folder: Path
    info: RunInfo
    summary: RunSummary | None

    def steps(self) -> Iterator[StepRecord]:
        """Its steps in order, one at a time.

        Raises:
            CorruptRecordError: the log is damaged.
        """
        return read_steps(self.folder / "steps.jsonl")

    def detectors(self, thresholds: str | Mapping[str, float]) -> Flags:
        """What the crash detectors would have made of it at other thresholds.

        Args:
            thresholds: ``strict``, ``moderate``, ``lenient``, or detector → threshold.

        Raises:
            ValueError: there is no such level or detector.
        """
        from vendomini.measures.detectors import replay

        return replay(self.steps(), thresholds)


def open_run(results: Path | str, run_id: str) -> Run:
    """One run of a results folder.

    Raises:
        ResultsError: it isn't there.
        CorruptRecordError: its files are damaged.
    """
    folder = Results(Path(results))
    info = folder.info(run_id)
    if info is None:
        near = difflib.get_close_matches(run_id, folder.run_ids(), n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ResultsError(f"there is no run {clip(run_id)} in {folder.root}{hint}")
    return Run(folder.run(run_id).folder, info, folder.summary(run_id))
