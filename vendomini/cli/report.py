"""``vendomini report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import AsJson, ToRead


def report(
    names: ToRead,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="report, in the first folder")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Also write every figure as PNG, SVG and PDF.")] = True,
    steps_csv: Annotated[bool, typer.Option("--steps-csv", help="Also write the table of steps as CSV.")] = False,
    json: AsJson = False,
) -> None:
    """Turn results into survival curves, tables and figures: one HTML page that needs no network, CSV and Parquet.

    Finished runs are read once; repeating it while an experiment runs reads only what is new.

    Examples:

      vendomini report demo

      vendomini report results/phase1_large_models
    """
    from vendomini.analysis.report.build import write_report
    from vendomini.cli.output import console, print_json
    from vendomini.config.experiments import folders_to_read

    shown = console(stderr=True)

    def progress(done: int, total: int) -> None:
        shown.print(f"read {done} of {total} parts")

    page = write_report(
        folders_to_read(names), out, figures=figures, steps_csv=steps_csv, progress=None if json else progress
    )
    if json:
        print_json({"report": page, "runs": page.parent / "runs.parquet", "steps": page.parent / "steps"})
    else:
        console().print(f"Report: {page}", markup=False)
