"""The files on disk: sealed, appended to with one write, recovered after a crash, locked."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import pytest

from vendomini.errors import CorruptRecordError, ResultsError, RunLockedError
from vendomini.records import Results, RunSummary, StepLog, StepRecord, read_record, read_steps, seal, write_record


def step(number: int, text: str = "{}") -> StepRecord:
    return StepRecord(
        step=number,
        day=0,
        observation={"step": number},
        completion=text,
        finish_reason="stop",
        parse="ok",
        thought="",
        tool="tool_end_day",
        arguments={},
        card=None,
        result={"ok": True},
        shocks=[],
        resolved=[],
        pe={},
        detectors={},
        prompt_tokens=1,
        cached_tokens=None,
        completion_tokens=1,
        latency_s=None,
    )


@pytest.fixture
def log_path(tmp_path):
    (tmp_path / "run-1").mkdir()
    return tmp_path / "run-1" / "steps.jsonl"


def write_log(path, count):
    log = StepLog(path)
    for number in range(1, count + 1):
        log.append(step(number, f"ünï → {number}"))
    log.close()
    return path.read_bytes()


class TestStepLog:
    def test_reads_back_what_was_appended(self, log_path):
        write_log(log_path, 5)
        assert list(read_steps(log_path)) == [step(n, f"ünï → {n}") for n in range(1, 6)]

    def test_cut_anywhere_it_opens_at_the_last_whole_line(self, log_path):
        whole = write_log(log_path, 4)
        ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
        for length in range(len(whole)):
            log_path.write_bytes(whole[:length])
            log = StepLog(log_path)
            log.close()
            kept = sum(end <= length for end in ends)
            assert len(log.records) == kept
            assert log_path.read_bytes() == whole[: ends[kept - 1] if kept else 0]

    def test_any_flipped_byte_is_found(self, log_path):
        whole = write_log(log_path, 3)
        generator = random.Random(0)
        for _ in range(300):
            at = generator.randrange(len(whole) - 1)
            flipped = bytearray(whole)
            flipped[at] ^= 1 << generator.randrange(8)
            log_path.write_bytes(flipped)
            with pytest.raises(CorruptRecordError, match=r"run-1.*line \d"):
                list(read_steps(log_path))

    def test_a_missing_or_repeated_line_is_found(self, log_path):
        lines = write_log(log_path, 4).splitlines(keepends=True)
        for wrong in (lines[:1] + lines[2:], lines[:2] + lines[1:]):
            log_path.write_bytes(b"".join(wrong))
            with pytest.raises(CorruptRecordError, match="holds step"):
                StepLog(log_path)

    def test_a_second_writer_is_refused(self, log_path):
        code = (
            "import sys; from pathlib import Path; from vendomini.records import StepLog;"
            "log = StepLog(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(log_path)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(RunLockedError, match="run-1"):
            StepLog(log_path)
        holder.kill()
        holder.communicate()
        StepLog(log_path).close()

    def test_a_write_that_fails_leaves_whole_lines(self, log_path):
        """A file size limit stands in for a full disk: the write comes back short, then fails."""
        code = (
            "import resource, signal, sys; from pathlib import Path; sys.path.insert(0, 'tests');"
            "from test_records import step; from vendomini.records import StepLog; from vendomini.errors import *\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
            "log = StepLog(Path(sys.argv[1]))\n"
            "try:\n  for n in range(1, 100): log.append(step(n))\n"
            "except ResultsError as exc: print(exc)"
        )
        said = subprocess.check_output([sys.executable, "-c", code, str(log_path)], text=True)
        assert "can't write" in said
        kept = list(read_steps(log_path))
        assert 0 < len(kept) < 99
        assert log_path.read_bytes().endswith(b"\n")


class TestWholeFiles:
    def summary(self, **values):
        return RunSummary(run_id="r", parameters={}, seed=0, replication=0, ending="survived", **values)

    def test_round_trip(self, tmp_path):
        write_record(tmp_path / "summary.json", self.summary(steps=7))
        assert read_record(tmp_path / "summary.json", RunSummary) == self.summary(steps=7)
        assert os.listdir(tmp_path) == ["summary.json"]

    def test_damage_is_named(self, tmp_path):
        path = tmp_path / "summary.json"
        write_record(path, self.summary(steps=7))
        path.write_bytes(path.read_bytes().replace(b'"steps":7', b'"steps":8'))
        with pytest.raises(CorruptRecordError, match=r"summary.json is damaged \(its checksum"):
            read_record(path, RunSummary)

    def test_what_no_reader_would_accept_is_not_written(self, tmp_path):
        path = tmp_path / "summary.json"
        wrong = RunSummary(run_id="r", parameters={}, seed=0, replication=0, ending="out of steps")
        with pytest.raises(ResultsError, match=r"a RunSummary that can't be read again .*ending"):
            write_record(path, wrong)
        assert os.listdir(tmp_path) == []

    def test_another_schema_is_named(self, tmp_path):
        path = tmp_path / "summary.json"
        path.write_bytes(seal(b'{"schema":0,"run_id":"r"}'))
        with pytest.raises(CorruptRecordError, match="has schema version 0, this program writes 1"):
            read_record(path, RunSummary)

    def test_a_reader_never_sees_half_a_file(self, tmp_path):
        """Readers in a loop while a writer is killed and begun again."""
        path = tmp_path / "summary.json"
        write_record(path, self.summary())
        code = (
            "import sys; from pathlib import Path; from vendomini.records import *\n"
            "for n in range(10**9): write_record(Path(sys.argv[1]), RunSummary(run_id='r' * (n % 5000), parameters={},"
            " seed=n, replication=0, ending='survived'))"
        )
        for _ in range(5):
            writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
            until = time.monotonic() + 0.4
            while time.monotonic() < until:
                read_record(path, RunSummary)
            writer.kill()
            writer.wait()
        read_record(path, RunSummary)

    @pytest.mark.parametrize("run_id", ["../x", "a/b", "", ".", "..", "a\0b", "/etc"])
    def test_no_id_leads_out_of_the_folder(self, tmp_path, run_id):
        with pytest.raises(ResultsError, match="is not a run id"):
            Results(tmp_path).run(run_id)


@pytest.mark.parametrize("slow_s", [0.0, 1e9], ids=["slow-disk", "page-cache"])
def test_outcomes_come_in_order_whoever_reads_them(tmp_path, monkeypatch, slow_s):
    monkeypatch.setattr("vendomini.records.folder.SLOW_S", slow_s)
    monkeypatch.setattr("vendomini.records.folder.AT_ONCE", 3)
    monkeypatch.setattr("vendomini.records.folder.CHUNKS", 4)
    results = Results(tmp_path)
    names = [f"r{n}" for n in range(50)]
    for n, name in enumerate(names):
        results.run(name).folder.mkdir(parents=True)
        if n % 7:
            done = RunSummary(run_id=name, parameters={}, seed=0, replication=0, ending="survived", steps=n)
            write_record(results.run(name).summary, done)
    results.run("r20").summary.write_text("{}")
    asked = [*names[::-1], "never", "a/b"]
    threads = set()
    monkeypatch.setattr(Results, "_outcomes", seen_in(threads, Results._outcomes))
    found = dict(zip(asked, results.outcomes(asked), strict=True))
    assert [name for name, outcome in found.items() if outcome is None] == [*names[::-1][0:50:7], "never"]
    assert isinstance(found["r20"], CorruptRecordError)
    assert "is not a run id" in str(found["a/b"])
    assert all(found[f"r{n}"].run_id == f"r{n}" for n in range(50) if n % 7 and n != 20)
    assert (len(threads) > 1) == (slow_s == 0.0)


def seen_in(threads, function):
    def wrapped(*arguments):
        threads.add(threading.get_ident())
        return function(*arguments)

    return wrapped
