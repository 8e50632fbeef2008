"""``vendomini export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import ToRead


def export(
    names: ToRead,
    out: Annotated[Path, typer.Option("--out", help="A folder that does not exist yet.")] = Path("dataset"),
) -> None:
    """Write results as a Hugging Face dataset: a folder with Parquet files and a card.

    Upload it with `hf upload NAME dataset --repo-type dataset`, or read it from the folder. `vendomini report` writes
    CSV and Parquet for this machine; `vendomini traces --export` writes Inspect's logs and JSON lines.

    Example:

      vendomini export phase1_large --out phase1
    """
    from vendomini.analysis.tables.dataset import write_dataset
    from vendomini.cli.output import console
    from vendomini.config.experiments import folders_to_read

    console().print(f"Wrote {write_dataset(folders_to_read(names), out)}", markup=False)
