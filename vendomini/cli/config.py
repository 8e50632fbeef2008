"""``vendomini config``."""

from __future__ import annotations

from typing import Annotated

import typer

from vendomini.cli.options import Override, complete
from vendomini.errors import counted

app = typer.Typer(no_args_is_help=True, help="Check a config, show it resolved, or print its JSON Schema.")

Config = Annotated[str, typer.Argument(help="A phase, a YAML file or a results folder.", autocompletion=complete)]


@app.command()
def schema(
    world: Annotated[str, typer.Option("--world", help="The experiment.world that the file is for.")] = "vending",
) -> None:
    """Print the JSON Schema of a phase file, for editors.

    Example: vendomini config schema > configs/phase.schema.json
    """
    from vendomini.cli.output import print_json
    from vendomini.config.json_schema import json_schema

    print_json(json_schema(world))


@app.command()
def check(config: Config, override: Override = None) -> None:
    """Check a config: everything that is wrong with it, or how many runs it makes.

    Example: vendomini config check configs/phases/phase1_large_models.yaml
    """
    from vendomini.cli.output import console
    from vendomini.config import count
    from vendomini.config.experiments import load_phase
    from vendomini.errors import ConfigError, harmless

    try:
        phase = load_phase(config, override or ())
    except ConfigError as exc:
        if len(exc.lines) < 2:
            raise
        for line in exc.lines:
            typer.echo(f"error: {harmless(line)}", err=True)
        raise typer.Exit(exc.exit_code) from exc
    at_most = "" if isinstance(phase.config.experiment.replications, int) else "at most "
    console().print(f"{phase.path}: {at_most}{counted(count(phase), 'run')}", markup=False)


@app.command()
def show(config: Config, override: Override = None) -> None:
    """Print a config with inheritance, overrides and defaults resolved, as YAML: under models, what each one gets.

    Example: vendomini config show configs/phases/phase5_large_models.yaml
    """
    import yaml

    from vendomini.config.experiments import load_phase

    phase = load_phase(config, override or ())
    shown = phase.config.model_dump(mode="json") | {"models": phase.own_settings()}
    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)
