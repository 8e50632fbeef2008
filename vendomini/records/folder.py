"""Every file name of a results folder, in one place."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from vendomini.errors import CorruptRecordError, ResultsError
from vendomini.records.files import read_record, write_error
from vendomini.records.kinds import Halt, Manifest, RunInfo, RunOutcome, RunSummary

INFO, SUMMARY = "run.json", "summary.json"
PILOT = "pilot"
"""The results folder of the pilot, in that of its experiment."""

READERS, AT_ONCE, CHUNKS = 8, 64, 32
"""Threads that read outcomes, runs that one takes at a time, and how many times before it is tried without them."""

SLOW_S = 0.0003
"""Seconds for one outcome beyond which threads read them; from the page cache it takes 0.00003, and threads only get in
each other's way."""

OfRun = TypeVar("OfRun", RunInfo, RunSummary, RunOutcome)


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Every file name of one run."""

    folder: Path

    @property
    def info(self) -> Path:
        return self.folder / INFO

    @property
    def steps(self) -> Path:
        return self.folder / "steps.jsonl"

    @property
    def summary(self) -> Path:
        return self.folder / SUMMARY


@dataclass(frozen=True, slots=True)
class Results:
    """A results folder."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def plans(self) -> Path:
        return self.root / "plans"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    @property
    def pilot(self) -> Results:
        """The pilot's results folder; no command counts it as part of the experiment."""
        return Results(self.root / PILOT)

    @property
    def looks(self) -> Path:
        return self.root / "looks.json"

    def halt(self, key: str) -> Path:
        """The file of a :class:`Halt`."""
        return self.root / "halts" / f"{key}.json"

    def halts(self) -> dict[str, Halt]:
        """The halts by key, the oldest first. Damaged ones are left out, which only means that runs are tried again."""
        found = []
        for file in self.root.glob("halts/*.json"):
            with contextlib.suppress(CorruptRecordError, FileNotFoundError):
                found.append(read_record(file, Halt))
        return {halt.key: halt for halt in sorted(found, key=lambda halt: halt.halted_at)}

    def manifests(self) -> list[Manifest]:
        """Every submission's manifest, oldest first.

        Raises:
            CorruptRecordError: one is damaged, or of another submission than its folder.
        """
        files = sorted(self.submissions.glob("*/manifest.json"))
        found = [read_record(file, Manifest) for file in files]
        for file, manifest in zip(files, found, strict=True):
            if manifest.id != file.parent.name:
                raise CorruptRecordError(f"{file} says that it is {manifest.id!r}: move its folder away")
        return found

    def run(self, run_id: str) -> RunPaths:
        """Raises:
        ResultsError: the id is not a plain file name (no path leads out of the folder).
        """
        return RunPaths(Path(self._folder(run_id)))

    def _folder(self, run_id: str) -> str:
        """A run's folder as text: over 10,000 runs, path objects would cost more than reading the files they name."""
        if not run_id or run_id in {".", ".."} or "/" in run_id or "\0" in run_id:
            raise ResultsError(f"{run_id!r} is not a run id")
        return f"{self.root}/runs/{run_id}"

    def run_ids(self) -> list[str]:
        """The ids of all runs that have a folder here, sorted."""
        try:
            with os.scandir(self.runs) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def info(self, run_id: str) -> RunInfo | None:
        """What the run is, or None where there is no such file.

        Raises:
            CorruptRecordError: the file is damaged, or of another run.
        """
        return self._own(run_id, INFO, RunInfo)

    def summary(self, run_id: str) -> RunSummary | None:
        """The run's summary, or None while it has none.

        Raises:
            CorruptRecordError: the file is damaged, or of another run.
        """
        return self._own(run_id, SUMMARY, RunSummary)

    def stamp(self, run_id: str) -> str | None:
        """What differs once a run has another summary; None while it has none."""
        try:
            status = os.stat(f"{self._folder(run_id)}/{SUMMARY}")
        except FileNotFoundError:
            return None
        return f"{status.st_size}.{status.st_mtime_ns}"

    def outcome(self, run_id: str) -> RunOutcome | None:
        """The part of the summary with outcome and cost, or None while there is no summary: for reading every run.

        Raises:
            CorruptRecordError: the file is damaged, or of another run.
        """
        return self._own(run_id, SUMMARY, RunOutcome)

    def outcomes(self, run_ids: Sequence[str]) -> Iterator[RunOutcome | ResultsError | None]:
        """:meth:`outcome` of each in turn, or what is wrong with its files. Where a few take so long that reading must
        wait for a disk or a file server, threads read the next ones."""
        rest = iter(run_ids)
        with ThreadPoolExecutor(READERS) as pool:
            while some := list(islice(rest, AT_ONCE)):
                began = time.monotonic()
                outcomes = self._outcomes(some)
                slow = time.monotonic() - began > SLOW_S * len(some)
                yield from outcomes
                if slow:
                    chunks = [list(islice(rest, AT_ONCE)) for _ in range(CHUNKS)]
                    yield from chain.from_iterable(pool.map(self._outcomes, chunks))

    def _outcomes(self, run_ids: Sequence[str]) -> list[RunOutcome | ResultsError | None]:
        found: list[RunOutcome | ResultsError | None] = []
        for run_id in run_ids:
            try:
                found.append(self.outcome(run_id))
            except ResultsError as exc:
                found.append(exc)
        return found

    def _own(self, run_id: str, name: str, kind: type[OfRun]) -> OfRun | None:
        path = f"{self._folder(run_id)}/{name}"
        try:
            record = read_record(path, kind)
        except FileNotFoundError:
            return None
        if record.run_id != run_id:
            raise CorruptRecordError(f"{path} is of the run {record.run_id}: a copied folder is no run, move it away")
        return record

    def create(self) -> None:
        """Makes the folders.

        Raises:
            ResultsError: the place is not writable.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            self.plans.mkdir(exist_ok=True)
        except OSError as exc:
            raise write_error(self.root, exc) from exc

    def remove_if_empty(self) -> None:
        """Takes back what :meth:`create` made, if nothing was written there."""
        with contextlib.suppress(OSError):
            for folder in (self.plans, self.runs, self.root):
                folder.rmdir()
