"""``vendomini export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import ToRead


class To(StrEnum):
    dataset = "dataset"
    wandb = "wandb"
    mlflow = "mlflow"


def export(
    names: ToRead,
    to: Annotated[To, typer.Option("--to", help="A Hugging Face dataset, W&B or MLflow.")] = To.dataset,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="For a dataset: a folder that does not exist yet.", show_default="dataset"),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option("--project", help="W&B project or MLflow experiment.", show_default="the experiment's name"),
    ] = None,
) -> None:
    """Write results as a Hugging Face dataset (Parquet files and a card), or send them to W&B or MLflow.

    Upload a dataset with `hf upload NAME dataset --repo-type dataset`, or read it from the folder. W&B and MLflow get
    one run for each cell of the grid, through their own clients and settings (WANDB_MODE, MLFLOW_TRACKING_URI, …).

    `vendomini report` writes CSV and Parquet for this machine; `vendomini traces --export` writes Inspect's logs and
    JSON lines.

    Examples:

      vendomini export phase1_large --out phase1

      vendomini export phase1_large --to wandb --project survival
    """
    from vendomini.cli.output import console
    from vendomini.config.experiments import folders_to_read
    from vendomini.errors import UsageError

    if to is To.dataset:
        from vendomini.analysis.tables.dataset import write_dataset

        if project is not None:
            raise UsageError("--project is for W&B or MLflow: add --to wandb or --to mlflow")
        written = str(write_dataset(folders_to_read(names), out or Path("dataset")))
    else:
        from vendomini.analysis.tables.trackers import send

        if out is not None:
            raise UsageError(f"--out is for a dataset: {to} writes where its own settings say")
        written = send(folders_to_read(names), to, project)
    console().print(f"Wrote {written}", markup=False)
