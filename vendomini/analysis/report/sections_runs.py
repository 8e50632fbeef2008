"""What the report says about the runs themselves: how complete, on which engine, how fast, what failed, what was
planned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vendomini.analysis.report.content import Block, Listing, Note, Section, Table
from vendomini.analysis.tables.study import ENGINE, MODEL, Study, show

if TYPE_CHECKING:
    import pandas


def completeness_notes(study: Study) -> list[Block]:
    """How partial the data are, and what is synthetic."""
    blocks: list[Block] = []
    if study.synthetic:
        names = ", ".join(study.synthetic)
        blocks.append(
            Note(f"Synthetic agents: {names}. They are scripted controls, not language models.", warning=True)
        )
    finished, running = study.count("finished"), study.count("running")
    left = [(study.count("failed"), "failed (listed below, not analysed)"), (study.pending, "not begun"),
            (study.count("damaged"), "damaged (named below, left out)")]  # fmt: skip
    told = "; ".join(f"{count} {what}" for count, what in left if count)
    if running or told:
        planned = len(study.planned) or len(study.runs)
        progress = f"; {running} in progress, counted as censored at their last step" if running else ""
        blocks.append(
            Note(
                f"Partial data: {finished} of {planned} runs have finished{progress}; {told}".rstrip("; ") + ".",
                warning=True,
            )
        )
    if study.copies:
        told = (
            f"{study.copies} runs at dose 0 are others again: kinds of shock make no difference there. Each is counted "
            "once, and is the reference of all their levels."
        )
        blocks.append(Note(told))
    return blocks + [Note(note, warning=True) for note in study.notes]


def engines_section(study: Study) -> Section:
    runs = study.runs[study.runs["status"] == "finished"]
    if runs.empty or "engine.backend" not in runs:
        return Section("engines", "Engines and throughput", [Note("No run has finished yet.")])
    return Section("engines", "Engines and throughput", [*_mixed_cells(study), _throughput(study, runs)])


def _engine(runs: pandas.DataFrame) -> pandas.Series:
    """Backend, with the attention implementation where it is known."""
    backend = runs["engine.backend"].astype(str)
    if "engine.attention" not in runs:
        return backend
    attention = runs["engine.attention"]
    return backend.where(attention.isna(), backend + " / " + attention.astype(str))


def _mixed_cells(study: Study) -> list[Block]:
    runs = study.analysed[study.analysed["status"] == "finished"]
    runs = runs.assign(engine=_engine(runs))
    paths = [factor.path for factor in study.factors] or [MODEL]
    rows = []
    for cell, group in runs.groupby(paths, dropna=False):
        counts = group["engine"].value_counts()
        if len(counts) > 1:
            values = cell if isinstance(cell, tuple) else (cell,)
            rows.append([*(show(value) for value in values), ", ".join(f"{name}: {n}" for name, n in counts.items())])
    if not rows:
        return [Note("Every cell of the grid ran on one engine.")]
    labels = [factor.label for factor in study.factors] or ["model"]
    told = f"{len(rows)} cells mix engines: a difference between engines would look like noise within the cell."
    return [Note(told, warning=True), Table("Cells that mix engines", (*labels, "Runs by engine"), rows)]


def _throughput(study: Study, runs: pandas.DataFrame) -> Table:
    """The speed of single runs: many share an engine at a time, so a run's speed is not the engine's."""
    among = [study.apart] if study.apart and study.apart.path != ENGINE else []
    groups = runs.assign(engine=_engine(runs)).groupby([*(factor.path for factor in among), MODEL, "engine"])
    rows = []
    for cell, group in groups:
        tokens, seconds = float(group["completion_tokens"].sum()), float(group["seconds"].sum())
        cached = group["cached_tokens"].sum(min_count=1) / max(group["prompt_tokens"].sum(), 1)
        rows.append([*map(show, cell), len(group), int(group["steps"].sum()), int(group["prompt_tokens"].sum()),
                     float(cached), int(tokens), tokens / seconds if seconds else None,
                     float(group["steps"].sum()) / seconds if seconds else None])  # fmt: skip
    columns = (*(factor.label for factor in among), "Model", "Engine", "Runs", "Steps", "Prompt tokens",
               "Share cached", "Completion tokens", "Completion tokens/s of a run", "Steps/s of a run")  # fmt: skip
    return Table(
        "Throughput", columns, rows, "Runs share an engine: multiply by the runs in flight for the engine's own."
    )


def failures_section(study: Study) -> Section:
    lost = study.runs[study.runs["status"].isin(["failed", "damaged"])]
    if lost.empty:
        return Section("failures", "What failed", [Note("Nothing failed.")])
    rows = [[row["run_id"], row["status"], row.get("reason") or "", row["results"]] for _, row in lost.iterrows()]
    return Section("failures", "What failed", [Table("Runs without a result", ("Run", "State", "Why", "Folder"), rows)])


def config_section(study: Study) -> Section:
    blocks: list[Block] = []
    for name, plan in zip(_names(study), study.plans, strict=True):
        description = plan.get("experiment", {}).get("description")
        if description:
            blocks.append(Note(f"{name}: {description}"))
        blocks.append(Listing(f"Config of {name}", json.dumps(plan, indent=2, ensure_ascii=False)))
    if "versions.vendomini" in study.runs:
        versions = [name for name in study.runs if name.startswith("versions.")]
        rows = [[name.removeprefix("versions."), ", ".join(sorted(map(str, study.runs[name].dropna().unique())))]
                for name in versions]  # fmt: skip
        blocks.append(Table("Versions", ("Package", "Version"), rows))
    return Section("config", "What was asked", blocks or [Note("There is no plan in these folders.")])


def _names(study: Study) -> list[str]:
    return [plan.get("experiment", {}).get("name", "experiment") for plan in study.plans]
