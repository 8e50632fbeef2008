"""``vendomini status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AnyPhases, AsJson, ResultsFolder
from vendomini.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.cluster.status import Status

MANY = 0.05
"""Share of replies that were cut off, from which on it is said."""

SHOWN = 5
"""Failed runs and lost jobs listed; --json lists all."""


def status(
    phases: AnyPhases = None,
    results: ResultsFolder = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every --interval seconds until done.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=1, help="Seconds.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show what is done, running, waiting and failed, and which jobs are live.

    Reads the run files, asks the queue once, and accounting only for jobs that ended early; works without either.

    Examples:

      vendomini status

      vendomini status phase1 --watch
    """
    import time

    from vendomini.cli.output import console, print_json
    from vendomini.cluster.status import status as look
    from vendomini.config.experiments import folders_of

    while True:
        found = [look(folder) for folder in folders_of(phases or (), results)]
        if as_json:
            print_json([one.as_json() for one in found])
        else:
            _show(found, console(), watch)
        if not watch or all(one.runs and one.done == one.runs for one in found):
            return
        time.sleep(interval)


def _show(found: list[Status], out: Console, watch: bool) -> None:
    """All of them; while watching, as much of the beginning as the terminal holds."""
    from rich.text import Text

    with out.capture() as captured:
        for one in found:
            _print(one, out)
    lines = captured.get().splitlines()
    if watch and out.is_terminal:
        out.clear()
        room = out.height - 1
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines: vendomini status"]
    for line in lines:
        out.print(Text.from_ansi(line), soft_wrap=True)


def _print(one: Status, out: Console) -> None:
    if not one.runs:
        out.print(f"{one.name}: no run was begun ({one.results})", markup=False, style="bold")
        return
    out.print(
        f"{one.name}: {one.done:,} of {counted(one.runs, 'run')} done ({one.results})", markup=False, style="bold"
    )
    counts = {
        **one.endings,
        "running": one.running,
        "waiting in jobs": one.waiting,
        "failed": len(one.failed),
        "damaged": len(one.damaged),
        "interrupted": one.interrupted,
        "not begun": one.open,
        "unknown (the queue was not asked)": one.unknown,
    }
    out.print("  " + ", ".join(f"{number:,} {word}" for word, number in counts.items() if number), markup=False)
    if one.tokens_s is not None:
        from vendomini.runner.progress import duration, rate

        left = "" if one.eta_s is None else f", about {duration(one.eta_s)} to go"
        out.print(f"  {rate(one.tokens_s)} tokens/s{left}", markup=False)
    for line in _reply_lines(one):
        out.print(f"  {line}", markup=False)
    for line in one.adaptive:
        out.print(f"  {line}", markup=False)
    for line in _job_lines(one):
        out.print(f"  {line}", markup=False)
    for halt in one.halts:
        out.print(f"  [WARNING] {halt['model']} is stopped: {halt['reason']}", markup=False)
        out.print("      change a setting, or send its runs all the same: vendomini submit --anyway", markup=False)
    for run_id, why in [*one.failed.items(), *one.damaged.items()][:SHOWN]:
        out.print(f"  [WARNING] {run_id}: {why}", markup=False)
    for job in one.lost[:SHOWN]:
        log = f": {job['log']}" if job["log"] else ""
        out.print(
            f"  [WARNING] job {job['job']} left {counted(job['unfinished'], 'run')} ({job['ended']}){log}", markup=False
        )
        for line in job["last_lines"]:
            out.print(f"      {line}", markup=False)
    for problem in one.plan_problems:
        out.print(f"  [WARNING] {problem}", markup=False)
    if one.queue_problem:
        out.print(f"  (the queue was not asked: {one.queue_problem})", markup=False)
    elif one.done < one.runs and not one.halts and not one.running + one.waiting:
        out.print(f"  Nothing is live; this does what is missing: {one.again}", markup=False)


def _reply_lines(one: Status) -> list[str]:
    """How the replies were read, and a warning where many were cut off."""
    lines = []
    for what, counts in (("replies", one.replies), ("newest replies", one.newest_replies)):
        total = sum(counts.values())
        if not total:
            continue
        words = {"ok": "ok", "repaired": "repaired", "unparsable": "unparsable", "cut_off": "cut off"}
        lines.append(
            f"{what}: " + ", ".join(f"{counts[key]:,} {word}" for key, word in words.items() if counts.get(key))
        )
        if (cut := counts.get("cut_off", 0) / total) > MANY:
            lines.append(
                f"[WARNING] {cut:.0%} of these were cut off: raise agent.model.max_tokens or max_thinking_tokens"
            )
    return lines


def _job_lines(one: Status) -> list[str]:
    """Live jobs, those in the same state for the same reason together."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for job in one.jobs:
        kinds.setdefault((job["state"], job["reason"], job["model"]), []).append(job["slurm_job"])
    lines = []
    for (state, reason, model), names in kinds.items():
        why = f" ({reason})" if reason else ""
        lines.append(
            f"{len(names):,} {'job' if len(names) == 1 else 'jobs'} {state.lower()}{why}, {model}: {_some(names)}"
        )
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
