"""Results folders → one table of runs and one of steps, read once, in bounded memory.

::

    OUT/runs.parquet, OUT/runs.csv         one row a run: finished, running, failed or damaged
    OUT/steps/<folder>/<part>.parquet      one row a step of every finished run: a Parquet dataset

What a finished run holds is read once: the next call reads only what no part holds
(:mod:`vendomini.analysis.tables.parquet_cache`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.analysis.tables.parquet_cache import Source, batches, read_part
from vendomini.analysis.tables.rows import Row
from vendomini.errors import MissingExtraError, ResultsError
from vendomini.records import PILOT, Results, replacing, write_atomically

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import pyarrow.dataset

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
        out: where the tables are; made if necessary.
        workers: processes; by default one per core that this process may use.
        progress: called with (parts read, parts to read).

    Raises:
        ResultsError: a folder holds no runs, or ``out`` can't be written.
        MissingExtraError: pyarrow or pandas is not installed.
    """
    _require_parquet()
    with writing(out):
        return _aggregate(folders, out, workers or _cores(), progress)


def make_folder(folder: Path) -> None:
    """Raises:
    OSError: it can't be made, or is a link: its content would be written, and removed, somewhere else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise OSError(errno.ELOOP, f"{folder.name} is a link")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns a failed write to a folder of the report into one sentence."""
    try:
        yield
    except OSError as exc:
        raise ResultsError(f"can't write {out} ({exc.strerror}): choose another folder with --out") from exc


def _aggregate(folders: Sequence[Path], out: Path, workers: int, progress: Progress | None) -> Tables:
    rows: list[Row] = []
    parts: list[Path] = []
    read = reused = 0
    for results in find_results(folders):
        source = Source(results, out / "steps" / source_name(results.root))
        make_folder(source.folder.parent)
        make_folder(source.folder)
        known, todo, others = source.sort()
        fresh = _read_all(source, batches(results, todo), workers, progress)
        read += sum(row["status"] == "finished" for row in fresh)
        reused += len(known)
        for row in (*known, *fresh, *others):  # not copied: the rows of 100,000 runs are a gigabyte
            row["results"] = str(results.root)
            row["folder"] = source.folder.name
            rows.append(row)
        parts += sorted(source.folder.glob("*.parquet"))
    if not rows:
        names = ", ".join(map(str, folders))
        raise ResultsError(f"no run of {names} has begun yet: `vendomini status {names}` says what they wait for")
    rows.sort(key=lambda row: (row["results"], row["run_id"]))
    _write_runs(out, rows)
    return Tables(out, read, reused, parts)


def find_results(folders: Sequence[Path]) -> list[Results]:
    """The results folders that are meant: each folder itself where it has runs, else those directly below it.

    Raises:
        ResultsError: there are none.
    """
    found = []
    for folder in folders:
        candidates = [folder] if (folder / "runs").is_dir() else _below(folder)
        if not candidates:
            near = [path for path in (folder / PILOT, *folder.parents) if (path / "runs").is_dir()]
            if near:
                raise ResultsError(f"{folder} holds no runs; did you mean {near[0]}?")
            raise ResultsError(f"{folder} holds no runs: give a folder that `vendomini run` wrote to (it has runs/)")
        found += [Results(candidate) for candidate in candidates]
    return list({results.root.resolve(): results for results in found}.values())


def _below(folder: Path) -> list[Path]:
    """Its results folders; a pilot is read only where it is named itself."""
    return sorted(runs.parent for runs in folder.glob("*/runs") if runs.parent.name != PILOT)


def write_steps_csv(tables: Tables, path: Path) -> None:
    """The steps table as one CSV file, streamed.

    Raises:
        ResultsError: no run has finished yet.
    """
    import pyarrow.csv

    steps = tables.steps()
    if steps is None:
        raise ResultsError("no run has finished yet, so there are no steps to write")
    with replacing(path) as file, pyarrow.csv.CSVWriter(file, steps.schema) as writer:
        for batch in steps.to_batches():
            writer.write_batch(batch)


def _read_all(source: Source, todo: Iterable[list[str]], workers: int, progress: Progress | None) -> list[Row]:
    work = list(todo)
    rows: list[Row] = []
    for done, batch_rows in enumerate(_mapped(source, work, min(workers, len(work))), 1):
        rows += batch_rows
        if progress:
            progress(done, len(work))
    return rows


def _mapped(source: Source, work: list[list[str]], workers: int) -> Iterator[list[Row]]:
    if workers <= 1:
        yield from (read_part(source, batch) for batch in work)
        return
    from vendomini.analysis.tables.worker import read_parts  # not at module level: the child runs that module

    yield from read_parts(source, work, workers)


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


def source_name(root: Path) -> str:
    """Readable, and different for two folders of one name."""
    path = root.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _require_parquet() -> None:
    try:
        import pandas  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("the report", exc.name or "pyarrow", "report") from exc
