"""``vendomini config``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import Override

app = typer.Typer(no_args_is_help=True, help="Check a config, show it resolved, or print its JSON Schema.")

ConfigPath = Annotated[Path, typer.Argument(help="Phase YAML; a shipped one is found by its path.")]


@app.command()
def schema() -> None:
    """Print the JSON Schema of a phase file, for editors.

    Example: vendomini config schema > configs/phase.schema.json
    """
    from vendomini.cli.output import print_json
    from vendomini.config.json_schema import json_schema

    print_json(json_schema())


@app.command()
def check(config: ConfigPath, override: Override = None) -> None:
    """Check a config and say how many runs it makes.

    Example: vendomini config check configs/phases/phase1_large_models.yaml
    """
    from vendomini.cli.output import console
    from vendomini.config import count, load_config

    phase = load_config(config, override or ())
    console().print(f"{phase.path}: {count(phase):,} runs", markup=False)


@app.command()
def show(config: ConfigPath, override: Override = None) -> None:
    """Print a config with inheritance, overrides and defaults resolved, as YAML.

    Example: vendomini config show configs/phases/phase5_large_models.yaml
    """
    import yaml

    from vendomini.config import load_config

    phase = load_config(config, override or ())
    typer.echo(yaml.safe_dump(phase.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
