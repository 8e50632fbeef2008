"""One experiment that faults strike: its processes, and the books on its steps."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 240.0


@dataclass
class Books:
    """What became of the faults, by kind: how often, and what they cost.

    Attributes:
        struck: faults.
        lost: steps that were logged before a fault and not after it.
        duplicated: lines that an undisturbed log does not have there.
        unnamed: damaged files that nobody spoke of.
        rude: processes that ended with a traceback or an exit code that nobody can explain.
        details: of the last four, for a person.
    """

    struck: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    duplicated: Counter[str] = field(default_factory=Counter)
    unnamed: Counter[str] = field(default_factory=Counter)
    rude: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    def blame(self, column: Counter[str], kind: str, detail: str, number: int = 1) -> None:
        column[kind] += number
        self.details.append(f"{kind}: {detail}")

    def __add__(self, other: Books) -> Books:
        return Books(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


class Deck:
    """Kinds of faults in random order, dealt until so many have struck: none comes up again before all have.

    Attributes:
        left: faults that are still to strike.
    """

    def __init__(self, kinds: Iterable[str], books: Books, generator: random.Random, faults: int) -> None:
        self._kinds, self._books, self._generator = list(kinds), books, generator
        self._order: list[str] = []
        self.left = faults

    def draw(self) -> str:
        self._order = self._order or self._generator.sample(self._kinds, len(self._kinds))
        return self._order.pop()

    def settle(self, kind: str, struck: bool) -> None:
        """Enters a fault that was drawn in the books; one that had nothing to hit comes last of those in the deck."""
        if struck:
            self._books.struck[kind] += 1
            self.left -= 1
        else:
            self._order.insert(0, kind)


class Runner(subprocess.Popen[str]):
    """``vendomini run``, in a session of its own; what it says goes to a file."""

    def __init__(self, config: Path, results: Path, environ: Mapping[str, str]) -> None:
        self._said = config.with_name(f"said-{time.monotonic_ns()}")
        command = [sys.executable, "-m", "vendomini", "run", "-c", str(config), "-r", str(results)]
        with self._said.open("w") as said:
            super().__init__(
                # A shell in the background leaves Ctrl-C switched off, for its children, too.
                ["env", "--default-signal=INT", *command],
                stdout=said,
                stderr=said,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | environ,
                cwd=config.parent,
                text=True,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._said.read_text()


class Experiment:
    """A config, the results that faults strike, and the logs of the same runs undisturbed.

    Args:
        folder: private to it.
        phase: the config; it must give the same logs every time, but for ``volatile``.
        volatile: keys of a step that differ from call to call (how long the engine took).
    """

    def __init__(self, folder: Path, phase: dict[str, Any], books: Books, volatile: frozenset[str] = frozenset()):
        self.folder, self.books, self.volatile = folder, books, volatile
        folder.mkdir(parents=True)
        self.config, self.results = folder / "phase.yaml", folder / "results"
        self.config.write_text(json.dumps(phase))
        undisturbed = folder / "undisturbed"
        process = Runner(self.config, undisturbed, {})
        assert process.wait(PATIENCE_S) == 0, process.said()
        self.reference = {run: self._lines(undisturbed, run) for run in os.listdir(undisturbed / "runs")}
        self._size = sum(len(line) for lines in self.reference.values() for line in lines)
        self._seen: dict[str, int] = {}
        self.spoilt: set[str] = set()

    # --------------------------------------------------------------------------------------------- processes

    def start(self, **environ: str) -> Runner:
        return Runner(self.config, self.results, environ)

    def end(self, process: Runner, kind: str, *codes: int) -> str:
        """Waits for it; returns what it said. A traceback, or a code that is not among these, is rude."""
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            self.books.blame(self.books.rude, kind, f"did not end within {PATIENCE_S:g} s\n{process.said()}")
        said = process.said()
        if code not in codes or "Traceback" in said:
            self.books.blame(self.books.rude, kind, f"exit code {code}, not {codes}\n{said}")
        return said

    def written(self) -> int:
        """Bytes in all step logs."""
        return sum(log.stat().st_size for log in self.results.glob("runs/*/steps.jsonl"))

    def wait_for(self, process: Runner, more: int) -> None:
        """Until the logs have grown by so many bytes, or the process has ended."""
        goal, end = self.written() + more, time.monotonic() + PATIENCE_S
        while self.written() < goal and process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)

    def moment(self, generator: random.Random) -> int:
        """How much more is written before a fault strikes, in bytes: up to a thirtieth of all; one in five strikes at
        any moment of the start."""
        return 1 if generator.random() < 0.2 else generator.randrange(1, self._size // 30)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to strike: a run that failed is tried again."""
        summaries = [json.loads(file.read_bytes()) for file in self.results.glob("runs/*/summary.json")]
        return sum(summary["ending"] != "failed" for summary in summaries) == len(self.reference)

    # ------------------------------------------------------------------------------------------------- books

    def audit(self, kind: str) -> None:
        """Compares every log with the undisturbed one, line by line, and with what was there at the last audit."""
        for run, reference in self.reference.items():
            if run in self.spoilt:
                continue
            lines = self._lines(self.results, run)
            same = next((i for i, (a, b) in enumerate(zip(lines, reference, strict=False)) if a != b), None)
            right = len(lines) if same is None and len(lines) <= len(reference) else same or len(reference)
            if right < len(lines):
                self.books.blame(self.books.duplicated, kind, f"{run} line {right + 1}", len(lines) - right)
            if right < (before := self._seen.get(run, 0)):
                self.books.blame(self.books.lost, kind, f"{run} had {before} steps, has {right}", before - right)
            self._seen[run] = right

    def conclude(self, kind: str) -> None:
        """Finishes in peace what is left and settles the books: each run once, whole, with a summary."""
        self.end(self.start(), kind, 0)
        self.audit(kind)
        runs = set(os.listdir(self.results / "runs"))
        for run in sorted(runs ^ set(self.reference)):
            column = self.books.duplicated if run in runs else self.books.lost
            self.books.blame(column, kind, f"{run} is in one of the folders only")
        for run, reference in self.reference.items():
            if (short := len(reference) - self._seen.get(run, 0)) or not self.summary(run).exists():
                self.books.blame(self.books.lost, kind, f"{run}: {short} steps short, or no summary", max(short, 1))
        if left := {file.name for file in self.results.glob("runs/*/*") if file.suffix != ".tmp"} - KNOWN:
            self.books.blame(self.books.rude, kind, f"left behind: {left}")

    def summary(self, run: str) -> Path:
        return self.results / "runs" / run / "summary.json"

    def forget(self, run: str) -> None:
        """What the message of a damaged run says: its folder is moved away, so that it is done anew."""
        shutil.rmtree(self.results / "runs" / run)
        self._seen.pop(run, None)
        self.spoilt.discard(run)

    def _lines(self, results: Path, run: str) -> list[bytes]:
        """The whole lines of a log, without what differs from call to call."""
        log = results / "runs" / run / "steps.jsonl"
        lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
        if not self.volatile:
            return lines
        hidden = re.compile(rb'"(%s|crc)":[^,}]*' % "|".join(self.volatile).encode())
        return [hidden.sub(b"", line) for line in lines]


KNOWN = {"run.json", "steps.jsonl", "summary.json"}

Fault = Callable[[Experiment, random.Random, str], bool]
"""Strikes an experiment once; the books know it by the name that it is given. False if there was nothing to hit."""


def campaign(
    folder: Path,
    phases: Iterable[dict[str, Any]],
    kinds: Mapping[str, Fault],
    books: Books,
    generator: random.Random,
    faults: int,
    volatile: frozenset[str] = frozenset(),
    around: Callable[[Path], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Experiments one after another until so many faults have struck; no kind comes up again before all have.

    Args:
        around: entered with each results folder while faults strike it.
    """
    deck = Deck(kinds, books, generator, faults)
    for number, config in enumerate(phases):
        experiment = Experiment(folder / str(number), config, books, volatile)
        with around(experiment.results):
            while deck.left and not experiment.finished:
                kind = deck.draw()
                deck.settle(kind, kinds[kind](experiment, generator, kind))
                experiment.audit(kind)
            experiment.conclude("finished in peace")
        if not deck.left:
            return


def phase(grid: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
    """A config whose episodes go on whatever happens in them: what ends them early would spare them the faults."""
    sections["simulation"]["initial_budget"] = 10_000_000
    return {
        "inherit": str(REPOSITORY / "configs" / "base.yaml"),
        "grid": grid,
        "demand": {"max_failures": 1_000_000},
        "crash_detector": {"continue_after_crash": 1_000_000},
        **sections,
    }
