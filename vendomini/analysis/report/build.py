"""Results folders → tables, one self-contained HTML page, and every figure for papers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import vendomini
from vendomini.analysis.report.content import Note, Section, figures_of
from vendomini.analysis.report.figures import draw
from vendomini.analysis.report.page import render
from vendomini.analysis.report.sections import survival_section
from vendomini.analysis.report.sections_behaviour import endings_section, scaling_section
from vendomini.analysis.report.sections_effects import effects_section
from vendomini.analysis.report.sections_errors import errors_section
from vendomini.analysis.report.sections_format import format_section
from vendomini.analysis.report.sections_primary import primary_section
from vendomini.analysis.report.sections_runs import (
    completeness_notes,
    config_section,
    engines_section,
    failures_section,
)
from vendomini.analysis.report.sections_time import time_section
from vendomini.analysis.tables.aggregate import Progress, Tables, aggregate, make_folder, write_steps_csv, writing
from vendomini.analysis.tables.study import MODEL, Study, open_study
from vendomini.errors import MissingExtraError
from vendomini.records import write_atomically


def write_report(
    results: Path | Sequence[Path],
    out: Path | None = None,
    *,
    figures: bool = True,
    steps_csv: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes ``report.html``, ``runs.parquet``, ``runs.csv``, ``steps/`` and ``figures/``.

    Args:
        results: results folder or folders.
        out: the folder; by default ``report`` in the first folder.
        figures: also write every figure as PNG, SVG and PDF.
        steps_csv: also write the table of steps as ``steps.csv``.
        progress: called with (parts read, parts to read).

    Returns:
        The path of the page.

    Raises:
        ResultsError: there are no runs, or ``out`` can't be written.
        MissingExtraError: a package of the ``report`` extra is not installed.
    """
    _require_packages()
    folders = [results] if isinstance(results, Path) else list(results)
    out = out or folders[0] / "report"
    tables = aggregate(folders, out, progress=progress)
    if steps_csv:
        with writing(out):
            write_steps_csv(tables, out / "steps.csv")
    study = open_study(folders, tables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lifelines' and pandas' advice to programmers; what matters is in the report
        sections = build_sections(study, tables)
    write_atomically(out / "report.html", _page(study, sections, figures).encode())
    if figures:
        with writing(out):
            _draw_all(sections, out / "figures")
    return out / "report.html"


def _draw_all(sections: Sequence[Section], folder: Path) -> None:
    make_folder(folder)
    for figure in figures_of(sections):
        draw(figure, folder)


def build_sections(study: Study, tables: Tables) -> list[Section]:
    """The whole content, in order."""
    return [
        primary_section(study),
        survival_section(study),
        effects_section(study),
        errors_section(study, tables),
        endings_section(study),
        format_section(study),
        time_section(study),
        scaling_section(study),
        engines_section(study),
        failures_section(study),
        config_section(study),
    ]


def _page(study: Study, sections: Sequence[Section], figures: bool) -> str:
    """The primary contrast comes before everything else."""
    name = ", ".join(study.names) or "Results"
    models = study.analysed[MODEL].nunique() if MODEL in study.analysed else 0
    tiles = [
        ("Runs analysed", f"{len(study.analysed)}"),
        ("Runs asked for", f"{len(study.planned) or len(study.runs)}"),
        ("Events", f"{int(study.analysed['event_observed'].sum())}"),
        ("Models", f"{models}"),
        ("Steps", f"{int(study.runs['steps'].sum()) if 'steps' in study.runs else 0:,}".replace(",", "\u202f")),
    ]
    now = datetime.now(UTC)
    primary, *others = sections
    notes = [block for block in primary.blocks if isinstance(block, Note)]
    evidence = [block for block in primary.blocks if not isinstance(block, Note)]
    return render(
        title=f"{name}: survival report",
        subtitle=f"Written {now:%Y-%m-%d %H:%M} UTC by VendoMini {vendomini.__version__}",
        lead=replace(primary, blocks=[*notes, *completeness_notes(study), *evidence]),
        tiles=tiles,
        sections=others,
        footer="Click on a heading to sort its table. The data are in runs.csv, runs.parquet and steps/"
        f"{', figures for papers in figures/' if figures else ''}.",
        version=vendomini.__version__,
    )


def _require_packages() -> None:
    try:
        import lifelines  # noqa: F401
        import matplotlib  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("the report", exc.name or "lifelines", "report") from exc
