"""Parts: the steps of some hundred finished runs in one Parquet file, with these runs' rows in its metadata.

One rename commits a part. A part of which a run was redone or removed is dropped, and its other runs are read again.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vendomini.analysis.tables.digest import CausedErrors, Digest
from vendomini.analysis.tables.rows import Row, damaged_row, running_row, step_rows, summary_row
from vendomini.config.worlds import world_of
from vendomini.errors import ConfigError, CorruptRecordError
from vendomini.records import Results, RunPaths, RunSummary, StepRecord, last_steps, read_record, read_steps, replacing

if TYPE_CHECKING:
    import pyarrow

PART_BYTES = 192 * 2**20
"""Step logs that one part takes in, in bytes; with a part in memory per worker, this bounds the memory."""
PART_RUNS = 2000
"""Runs of a part, at most: rows of short runs bound the memory, too. With fewer, starting a process would cost more
than its work."""

TABLE_ROWS = 2000
"""Steps that are kept as Python's own objects, at least, before they become a table."""

_FORMAT = "3"
_META = b"vendomini.runs"


@dataclass(frozen=True, slots=True)
class Source:
    """One results folder, and the folder of its parts."""

    results: Results
    folder: Path

    def sort(self) -> tuple[list[Row], list[str], list[Row]]:
        """(rows that parts hold already, finished or damaged runs to read, rows of running and failed runs)."""
        stamps = {run_id: self.results.stamp(run_id) for run_id in self.results.run_ids()}
        held = self._held(stamps)
        todo, others = [], []
        for run_id, stamp in stamps.items():
            if run_id in held:
                continue
            row = _unfinished_row(self.results, run_id) if stamp is None else _failed_row(self.results, run_id)
            if row is None:
                todo.append(run_id)
            else:
                others.append(row)
        return list(held.values()), todo, others

    def _held(self, stamps: dict[str, str | None]) -> dict[str, Row]:
        held = {}
        for part in self.folder.glob("*.parquet"):
            runs = _part_runs(part)
            if all(stamps.get(run["row"]["run_id"]) == run["stamp"] for run in runs) and runs:
                held.update({run["row"]["run_id"]: run["row"] for run in runs})
            else:
                part.unlink(missing_ok=True)
        return held


def _part_runs(part: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(part).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return []
    try:
        content: dict[str, Any] = msgspec.json.decode(zlib.decompress(base64.b64decode(metadata[_META])))
    except (KeyError, ValueError, zlib.error):  # of another version; msgspec's errors are ValueErrors
        return []
    return list(content.get("runs", [])) if content.get("format") == _FORMAT else []


def _unfinished_row(results: Results, run_id: str) -> Row:
    paths = results.run(run_id)
    try:
        info = results.info(run_id)
        if info is None:
            return damaged_row(run_id, "its folder has no run.json")
        patience = int(info.parameters["crash_detector"]["continue_after_crash"])
        return running_row(info, last_steps(paths.steps, patience + 1))
    except CorruptRecordError as exc:
        return damaged_row(run_id, str(exc))


def _failed_row(results: Results, run_id: str) -> Row | None:
    """The row of a failed or unreadable run; None for a finished one, whose steps are to be read."""
    try:
        summary = results.summary(run_id)
    except CorruptRecordError as exc:
        return damaged_row(run_id, str(exc))
    return None if summary is None or summary.finished else summary_row(summary)


# ---------------------------------------------------------------------------------------------- reading


def batches(results: Results, run_ids: Iterable[str]) -> Iterator[list[str]]:
    """Runs that make one part each."""
    batch: list[str] = []
    size = 0
    for run_id in run_ids:
        batch.append(run_id)
        size += _size(results.run(run_id).steps)
        if size >= PART_BYTES or len(batch) >= PART_RUNS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_part(source: Source, run_ids: list[str]) -> list[Row]:
    """Reads some runs, writes their part and returns their rows; damaged runs get a row and no steps."""
    finished: list[Row] = []
    stamps: list[str | None] = []
    damaged: list[Row] = []
    steps = _Steps()
    for run_id in run_ids:
        paths = source.results.run(run_id)
        stamp = source.results.stamp(run_id)
        try:
            row, rows = _read_run(paths, source.folder.name)
        except CorruptRecordError as exc:
            damaged.append(damaged_row(run_id, str(exc)))
            continue
        finished.append(row)
        stamps.append(stamp)
        steps.add(rows)
    if finished:
        _write_part(source.folder, finished, stamps, steps.tables())
    return finished + damaged


class _Steps:
    """Steps of many runs: so many together become a table, since making one costs as much as reading a short run."""

    def __init__(self) -> None:
        self._tables: list[pyarrow.Table] = []
        self._rows: list[Row] = []

    def add(self, rows: list[Row]) -> None:
        """Takes one run's; cells that are missing are null."""
        self._rows += rows
        if len(self._rows) >= TABLE_ROWS:
            self._finish()

    def tables(self) -> list[pyarrow.Table]:
        if self._rows or not self._tables:
            self._finish()
        return self._tables

    def _finish(self) -> None:
        import pyarrow

        names = dict.fromkeys(itertools.chain(("run_id", "folder"), *self._rows))
        self._tables.append(pyarrow.Table.from_pylist(self._rows, schema=_schema(names)))
        self._rows = []


def _read_run(paths: RunPaths, folder: str) -> tuple[Row, list[Row]]:
    """The run's row, and those of its steps, with ``folder`` beside ``run_id``: two folders may hold runs of one id."""
    summary = read_record(paths.summary, RunSummary)
    try:
        digest = Digest(summary)
        steps, again = itertools.tee(digest.watching(read_steps(paths.steps)))
        errors = CausedErrors(summary.time_to_crash or summary.steps)
        name = {"run_id": summary.run_id, "folder": folder}
        rows = [name | row for row in step_rows(steps, _caused(summary, again), errors)]
    except FileNotFoundError as exc:
        raise CorruptRecordError(f"{paths.steps} is missing although the run has ended") from exc
    if len(rows) != summary.steps:
        raise CorruptRecordError(f"{paths.steps} holds {len(rows)} steps where the summary counts {summary.steps}")
    return summary_row(summary) | digest.row() | {"caused.largest": errors.largest}, rows


def _caused(summary: RunSummary, steps: Iterable[StepRecord]) -> Iterable[dict[str, float]] | None:
    """What shocks caused, where the world of the run is installed here and says so."""
    try:
        return world_of(summary.parameters, trusted=False).caused_errors(steps)
    except ConfigError:
        return None


def _write_part(folder: Path, rows: list[Row], stamps: list[str | None], tables: list[Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    runs = [{"stamp": stamp, "row": row} for stamp, row in zip(stamps, rows, strict=True)]
    rows_as_json = msgspec.json.encode({"format": _FORMAT, "runs": runs})
    meta = {_META: base64.b64encode(zlib.compress(rows_as_json))}  # a scan holds the metadata of all parts
    table = pyarrow.concat_tables(tables, promote_options="default").replace_schema_metadata(meta)
    name = hashlib.sha256("\n".join(row["run_id"] for row in rows).encode()).hexdigest()[:16]
    with replacing(folder / f"{name}.parquet") as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def _schema(names: Iterable[str]) -> pyarrow.Schema:
    import pyarrow

    text, count = pyarrow.string(), pyarrow.int64()
    named = {
        **dict.fromkeys(("run_id", "folder", "parse", "tool", "error", "shock_types", "detectors_on"), text),
        **dict.fromkeys(("step", "day", "shocks", "resolved"), count),
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens"), count),
        "ok": pyarrow.bool_(),
    }
    return pyarrow.schema([(name, named.get(name, pyarrow.float64())) for name in names])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
