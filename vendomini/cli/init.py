"""``vendomini init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vendomini.errors import counted


def init(
    name: Annotated[str | None, typer.Argument(help="Name of the experiment; asked for if missing.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Hugging Face id, folder, or scripted/<control>.")
    ] = None,
    dose: Annotated[str | None, typer.Option("--p-shock", help="Levels of the dose: 0,0.2,0.4")] = None,
    replications: Annotated[int, typer.Option("--replications", min=1, help="Runs of each cell.")] = 5,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Horizon of a run.")] = 500,
    file: Annotated[Path | None, typer.Option("--file", show_default="NAME.yaml")] = None,
) -> None:
    """Write a commented phase file of your own, valid in any folder. On a terminal it asks for what is missing.

    Examples:

      vendomini init

      vendomini init mine --model Qwen/Qwen3-8B --p-shock 0,0.2,0.4 --replications 3
    """
    from vendomini.cli.output import console
    from vendomini.config import count, load_config
    from vendomini.config.begin import Answers, write_phase
    from vendomini.errors import UsageError

    name = name or _ask("Name of the experiment", "mine")
    if name.endswith((".yaml", ".yml")):
        file, name = file or Path(name), Path(name).stem
    models = tuple(model or _ask("Models, separated by commas", "scripted/reactive, scripted/fragile").split(","))
    levels = (dose or _ask("Levels of p_shock, the dose", "0, 0.1, 0.2, 0.4")).split(",")
    try:
        doses = tuple(float(level) for level in levels)
    except ValueError as exc:
        raise UsageError(f"--p-shock {dose}: write numbers between 0 and 1, for example 0,0.2,0.4") from exc
    answers = Answers(name, tuple(one.strip() for one in models), doses, replications, max_steps)
    path = write_phase(answers, file or Path(f"{name}.yaml"))
    runs = count(load_config(path))
    out = console()
    out.print(f"Wrote {path}: {counted(runs, 'run')}. Look through it, then:", markup=False)
    out.print(f"  vendomini run {path} --dry-run", markup=False)


def _ask(question: str, default: str) -> str:
    import sys

    return str(typer.prompt(question, default=default)) if sys.stdin.isatty() else default
