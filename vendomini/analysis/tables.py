"""Results folders → one table of runs and one of steps, read once, in bounded memory.

::

    OUT/runs.parquet, OUT/runs.csv         one row a run: finished, running, failed or damaged
    OUT/steps/<folder>/<part>.parquet      one row a step of every finished run: a Parquet dataset

A part holds the steps of some hundred runs and, in its own metadata, their rows of the runs table with the size and
time of each run's summary. So one rename commits a part, and the next call reads only what no part holds. A part of
which a run was redone or removed is dropped and read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vendomini.analysis.rows import Columns, Row, running_row, step_columns, summary_row
from vendomini.analysis.tail import last_steps
from vendomini.errors import CorruptRecordError, MissingExtraError, ResultsError
from vendomini.records import Results, RunInfo, RunPaths, RunSummary, read_record, read_steps, write_atomically

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import pyarrow.dataset

PART_BYTES = 192 * 2**20
"""Step logs that one part takes in, in bytes; with a part in memory per worker, this bounds the memory."""
PART_RUNS = 400

_FORMAT = "1"
_META = b"vendomini.runs"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the tables are, and what was done to make them.

    Attributes:
        out: the folder.
        read: finished runs that were read now.
        reused: finished runs that an earlier call had read.
        parts: the files of the steps table.
    """

    out: Path
    read: int
    reused: int
    parts: list[Path] = field(repr=False)

    def runs(self) -> pandas.DataFrame:
        """The runs table, one row a run."""
        import pandas

        return pandas.read_parquet(self.out / "runs.parquet")

    def steps(self) -> pyarrow.dataset.Dataset | None:
        """The steps table, to be scanned in pieces; None while no run has finished."""
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet

        if not self.parts:
            return None
        schema = pyarrow.unify_schemas([pyarrow.parquet.read_schema(part).remove_metadata() for part in self.parts])
        return pyarrow.dataset.dataset([str(part) for part in self.parts], schema=schema)


def aggregate(
    folders: Sequence[Path], out: Path, *, workers: int | None = None, progress: Progress | None = None
) -> Tables:
    """Brings the tables in ``out`` up to date with the results folders.

    Args:
        folders: results folders, or folders of results folders.
        out: where the tables are; made if need be.
        workers: processes; by default one per core that this process may use.
        progress: called with (parts read, parts to read).

    Raises:
        ResultsError: a folder holds no runs, or ``out`` can't be written.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    _require_parquet()
    rows: list[Row] = []
    parts: list[Path] = []
    read = reused = 0
    for results in find_results(folders):
        source = _Source(results, out / "steps" / _source_name(results.root))
        source.folder.mkdir(parents=True, exist_ok=True)
        known, todo, others = source.sort()
        fresh = _read_all(source, _batches(results, todo), workers or _cores(), progress)
        read += sum(row["status"] == "finished" for row in fresh)
        reused += len(known)
        rows += [{**row, "results": str(results.root)} for row in [*known, *fresh, *others]]
        parts += sorted(source.folder.glob("*.parquet"))
    _write_runs(out, sorted(rows, key=lambda row: (row["results"], row["run_id"])))
    return Tables(out, read, reused, parts)


def find_results(folders: Sequence[Path]) -> list[Results]:
    """The results folders meant: each folder itself where it has runs, else those right below it.

    Raises:
        ResultsError: there are none.
    """
    found = []
    for folder in folders:
        candidates = [folder] if (folder / "runs").is_dir() else sorted(p.parent for p in folder.glob("*/runs"))
        if not candidates:
            raise ResultsError(f"{folder} holds no runs: give a folder that `vendomini run` wrote to (it has runs/)")
        found += [Results(candidate) for candidate in candidates]
    return list({results.root.resolve(): results for results in found}.values())


def write_steps_csv(tables: Tables, path: Path) -> None:
    """The steps table as one CSV file, streamed.

    Raises:
        ResultsError: no run has finished yet.
    """
    import pyarrow.csv

    steps = tables.steps()
    if steps is None:
        raise ResultsError("no run has finished yet, so there are no steps to write")
    with pyarrow.csv.CSVWriter(path, steps.schema) as writer:
        for batch in steps.to_batches():
            writer.write_batch(batch)


# ------------------------------------------------------------------------------------------- one folder


@dataclass(frozen=True, slots=True)
class _Source:
    """One results folder and the folder of its parts."""

    results: Results
    folder: Path

    def sort(self) -> tuple[list[Row], list[str], list[Row]]:
        """(rows that parts hold already, finished or damaged runs to read, rows of running and failed runs)."""
        stamps = {run_id: _stamp(self.results.run(run_id)) for run_id in self.results.run_ids()}
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


def _stamp(paths: RunPaths) -> str | None:
    try:
        status = paths.summary.stat()
    except FileNotFoundError:
        return None
    return f"{status.st_size}.{status.st_mtime_ns}"


def _part_runs(part: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(part).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return []
    content: dict[str, Any] = json.loads(metadata.get(_META, b"{}"))
    return list(content.get("runs", [])) if content.get("format") == _FORMAT else []


def _unfinished_row(results: Results, run_id: str) -> Row:
    paths = results.run(run_id)
    try:
        info = read_record(paths.info, RunInfo)
        patience = int(info.parameters["crash_detector"]["continue_after_crash"])
        return running_row(info, last_steps(paths.steps, patience + 1))
    except FileNotFoundError:
        return _damaged_row(run_id, "its folder has no run.json")
    except CorruptRecordError as exc:
        return _damaged_row(run_id, str(exc))


def _failed_row(results: Results, run_id: str) -> Row | None:
    """The row of a failed or unreadable run; None for a finished one, whose steps are to be read."""
    try:
        summary = read_record(results.run(run_id).summary, RunSummary)
    except CorruptRecordError as exc:
        return _damaged_row(run_id, str(exc))
    return None if summary.finished else summary_row(summary)


def _damaged_row(run_id: str, reason: str) -> Row:
    return {"run_id": run_id, "status": "damaged", "reason": reason}


# ---------------------------------------------------------------------------------------------- reading


def _batches(results: Results, run_ids: Iterable[str]) -> Iterator[list[str]]:
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


def _read_all(
    source: _Source, batches: Iterator[list[str]], workers: int, progress: Progress | None
) -> list[Row]:
    work = list(batches)
    rows: list[Row] = []
    for done, batch_rows in enumerate(_mapped(source, work, min(workers, len(work))), 1):
        rows += batch_rows
        if progress:
            progress(done, len(work))
    return rows


def _mapped(source: _Source, work: list[list[str]], workers: int) -> Iterator[list[Row]]:
    if workers <= 1:
        yield from (_read_part(source, batch) for batch in work)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_read_part, [source] * len(work), work)


def _read_part(source: _Source, run_ids: list[str]) -> list[Row]:
    """Reads some runs, writes their part and returns their rows; damaged runs get a row and no steps."""
    import pyarrow

    finished, damaged, tables = [], [], []
    for run_id in run_ids:
        paths = source.results.run(run_id)
        try:
            stamp, row, columns = _stamp(paths), *_read_run(paths)
        except CorruptRecordError as exc:
            damaged.append(_damaged_row(run_id, str(exc)))
            continue
        finished.append({"stamp": stamp, "row": row})
        tables.append(pyarrow.table(columns, schema=_schema(columns)))
    if finished:
        _write_part(source.folder, finished, tables)
    return [run["row"] for run in finished] + damaged


def _read_run(paths: RunPaths) -> tuple[Row, Columns]:
    summary = read_record(paths.summary, RunSummary)
    try:
        columns = step_columns(summary.run_id, read_steps(paths.steps))
    except FileNotFoundError as exc:
        raise CorruptRecordError(f"{paths.steps} is missing although the run has ended") from exc
    logged = len(columns.get("step", []))
    if logged != summary.steps:
        raise CorruptRecordError(f"{paths.steps} holds {logged} steps where the summary counts {summary.steps}")
    return summary_row(summary), columns


def _write_part(folder: Path, runs: list[dict[str, Any]], tables: list[Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    meta = {_META: json.dumps({"format": _FORMAT, "runs": runs})}
    table = pyarrow.concat_tables(tables, promote_options="default").replace_schema_metadata(meta)
    name = hashlib.sha256("\n".join(run["row"]["run_id"] for run in runs).encode()).hexdigest()[:16]
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    pyarrow.parquet.write_table(table, temporary, compression="zstd")
    os.replace(temporary, folder / f"{name}.parquet")


def _schema(columns: Columns) -> pyarrow.Schema:
    import pyarrow

    text, count = pyarrow.string(), pyarrow.int64()
    named = {
        **dict.fromkeys(("run_id", "parse", "tool", "error", "shock_types", "detectors_on"), text),
        **dict.fromkeys(("step", "day", "shocks", "resolved"), count),
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens"), count),
        "ok": pyarrow.bool_(),
    }
    return pyarrow.schema([(name, named.get(name, pyarrow.float64())) for name in columns])


def _write_runs(out: Path, rows: list[Row]) -> None:
    import pandas

    table = pandas.DataFrame(rows)
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = _one_type(table[name])
    write_atomically(out / "runs.parquet", table.to_parquet(index=False))
    write_atomically(out / "runs.csv", table.to_csv(index=False).encode())


def _one_type(column: pandas.Series) -> pandas.Series:
    """Parquet wants one type a column: text where the values differ in type, 64-bit floats for counts with gaps."""
    kinds = {type(value) for value in column.dropna()}
    if kinds <= {int, float}:
        return column.astype("float64")
    if kinds == {bool}:
        return column.astype("boolean")
    if kinds == {str}:
        return column
    return column.map(lambda value: value if value is None else str(value))


def _source_name(root: Path) -> str:
    """Readable, and different for two folders of one name."""
    path = root.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _require_parquet() -> None:
    try:
        import pandas  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("the report", exc.name or "pyarrow", "report") from exc
