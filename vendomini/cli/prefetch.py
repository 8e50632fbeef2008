"""``vendomini prefetch``."""

from __future__ import annotations

from typing import Annotated

import typer

from vendomini.cli.options import AsJson, Override


def prefetch(
    names: Annotated[list[str], typer.Argument(help="Phase names, YAML files, or models of the Hugging Face Hub.")],
    override: Override = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing; download nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download the models of phases into the Hugging Face cache, and check that nothing is missing.

    For the login node: compute nodes have no internet and find the models in the same cache (HF_HOME), which must be
    in a folder that they see, too.

    Examples:

      vendomini prefetch phase1

      vendomini prefetch Qwen/Qwen3-32B --check
    """
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.prefetch import fetch_all, models_named

    out = console(stderr=as_json)
    outcomes = []
    for outcome in fetch_all(models_named(names, override or ()), check_only=check):
        outcomes.append(outcome)
        state = f"complete in {outcome.folder}" if not outcome.problem else outcome.problem
        out.print(f"{outcome.model}: {state}" if not outcome.problem else f"[WARNING] {state}", markup=False)
    if as_json:
        print_json([{"model": o.model, "folder": o.folder, "problem": o.problem} for o in outcomes])
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(1)
