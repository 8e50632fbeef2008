"""Damaged results: what is wrong is named, never a traceback, and never silently fewer steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tests.fuzz import scratch
from vendomini.analysis.tables.aggregate import aggregate
from vendomini.analysis.tables.study import open_study
from vendomini.analysis.tables.summary import summarise_cells
from vendomini.analysis.traces.episodes import Library
from vendomini.analysis.traces.export import export_inspect, export_jsonl
from vendomini.analysis.traces.static import write_static
from vendomini.cluster.status import status
from vendomini.config import expand, load_config
from vendomini.errors import VendoMiniError
from vendomini.records import Plan, Results, RunInfo, RunSummary, StepLog, read_record, read_steps, seal, unseal
from vendomini.runner import Progress, Runner, save_plan

_FOLDER = scratch()
_OVERRIDES = ["experiment.replications=2", "simulation.max_steps=5", "pe_induction.p_shock=0.9"]
_PHASE = load_config("configs/base.yaml", [*_OVERRIDES, "agent.model.name=scripted/garbled"])
_SPECS = list(expand(_PHASE))
_RESULTS = Results(_FOLDER / "results")


def _run() -> None:
    """Makes or resumes the two runs."""
    runner = Runner(_RESULTS, _PHASE.config.engine, Progress())
    runner.run(runner.pending(_SPECS))


save_plan(_PHASE, _RESULTS)
_run()
_ID, _OTHER = (spec.run_id for spec in _SPECS)
_PATHS = _RESULTS.run(_ID)
_FILES = {
    "steps": _PATHS.steps,
    "run": _PATHS.info,
    "summary": _PATHS.summary,
    "plan": next(_RESULTS.plans.glob("*.json")),
}
_KINDS: dict[str, Callable[[], Any]] = {
    "run": lambda: _RESULTS.info(_ID),
    "summary": lambda: _RESULTS.summary(_ID),
    "plan": lambda: read_record(_FILES["plan"], Plan),
}
_WHOLE = {name: file.read_bytes() for name, file in _FILES.items()}

_OTHERS = {"run": _RESULTS.run(_OTHER).info.read_bytes(), "summary": _RESULTS.run(_OTHER).summary.read_bytes()}
_FOREIGN = {"records", "resume"}

TOKENS = [
    *(
        "steps ",
        "run ",
        "summary ",
        "plan ",
        "sealed ",
        "records\n",
        "tables\n",
        "traces\n",
        "export\n",
        "resume\n",
        "running\n",
    ),
    *("null", "[]", "{}", '"x"', "1e999", "-1", "9" * 20, "true", '"\\ud800"', ',"crc":"', '"schema":2', '"step":1,'),
    *(f'"{name}":' for name in (*RunSummary.__struct_fields__, *RunInfo.__struct_fields__)),
    *(f'"{name}":' for name in ("type", "pe", "on", "ok", "error", "all", "agent", "model", "name", "p_shock")),
]


def check(data: bytes) -> None:
    """The first line is ``FILE READER`` or ``FILE sealed READER``, the rest takes the file's place.

    With ``sealed``, each line is given the checksum that it lacks: no accident, but a file from elsewhere. What reads
    it must not fail; that it makes sense, only a resume can tell, which plays it again.
    """
    head, _, content = data.partition(b"\n")
    words = head.decode("ascii", "replace").split()
    if len(words) not in {2, 3} or words[0] not in _FILES or words[-1] not in _READERS:
        return
    sealed = words[1] == "sealed"
    if sealed:
        if words[-1] not in _FOREIGN:
            return
        content = b"".join(seal(line) + b"\n" for line in content.split(b"\n") if line)
    name = words[0]
    _FILES[name].write_bytes(content)
    try:
        _READERS[words[-1]](name, content, sealed and content != _WHOLE[name])
    except VendoMiniError as exc:
        assert str(exc), "a refusal that says nothing"
        assert content != _WHOLE[name], f"a whole file is refused: {exc}"
    finally:
        for each, file in _FILES.items():
            file.write_bytes(_WHOLE[each])


def seeds() -> Iterator[bytes]:
    for name, whole in _WHOLE.items():
        bare = b"\n".join(unseal(line) for line in whole.splitlines())
        for reader in _READERS:
            yield f"{name} {reader}\n".encode() + whole
            if reader in _FOREIGN:
                yield f"{name} sealed {reader}\n".encode() + bare
            yield f"{name} {reader}\n".encode() + _OTHERS.get(name, b"")
    lines = _WHOLE["steps"].splitlines(keepends=True)
    for wrong in (lines[:-1], lines[1:], [*lines, lines[-1]], [*lines[:2], lines[3], lines[2], *lines[4:]]):
        for reader in _READERS:
            yield f"steps {reader}\n".encode() + b"".join(wrong)


def _records(name: str, content: bytes, foreign: bool) -> None:
    """Each whole line is a step or an error; each file is what it was or an error."""
    if name == "steps":
        steps = list(read_steps(_PATHS.steps))
        assert len(steps) == content.count(b"\n")
        assert foreign or steps == _STEPS[: len(steps)]
        log = StepLog(_PATHS.steps)
        log.close()
        assert log.records == steps
    else:
        assert foreign or _KINDS[name]() == _RECORDS[name]


def _tables(name: str, content: bytes, foreign: bool) -> None:
    """The run is in the tables as it was, or as damaged; the other run is there in either case."""
    found = _tabled()
    assert found[_OTHER] == _TABLED[_OTHER]
    row, _ = found[_ID]
    assert foreign or found[_ID] == _TABLED[_ID] or (row["status"] == "damaged" and row["reason"])
    assert found["study"] in (_TABLED["study"], None)  # None: a note says what is wrong
    status(_RESULTS).as_json()
    summarise_cells(_SPECS, ["pe_induction.p_shock"], _RESULTS)


def _tabled() -> dict[str, Any]:
    """Run → its row and the number of its steps in the tables; and what the study says where it has no notes."""
    out = _FOLDER / "report"
    shutil.rmtree(out, ignore_errors=True)
    tables = aggregate([_RESULTS.root], out, workers=1)
    study = open_study([_RESULTS.root], tables)
    rows = {row["run_id"]: row for row in tables.runs().to_dict("records")}
    steps = tables.steps()
    counted = steps.to_table(columns=["run_id"]).column("run_id").to_pylist() if steps is not None else []
    shown = (study.names, study.pending, sorted(study.planned)) if not study.notes else None
    return {run_id: [_present(row), counted.count(run_id)] for run_id, row in rows.items()} | {"study": shown}


def _running(name: str, content: bytes, foreign: bool) -> None:
    """A run in progress has as many steps as its log has lines, or is damaged."""
    _PATHS.summary.unlink()
    row, _ = _tabled()[_ID]
    if row["status"] != "damaged":
        assert row["steps"] == _PATHS.steps.read_bytes().count(b"\n")
    status(_RESULTS).as_json()


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None and value == value}


def _traces(name: str, content: bytes, foreign: bool) -> None:
    """The reader shows every step, or says why not."""
    library = Library([_RESULTS.root])
    assert {entry["run_id"] for entry in library.runs()} == {_ID, _OTHER}
    shown = _shown(library)
    assert foreign or shown["damage"] or (shown["ending"] == "damaged" and shown["reason"]) or shown == _SHOWN
    write_static(library, 0, _ID, _FOLDER / "episode.html")


def _shown(library: Library) -> dict[str, Any]:
    episode = library.episode(0, _ID)
    return {**episode, "shown": library.steps(0, _ID, 1, 200)}


def _export(name: str, content: bytes, foreign: bool) -> None:
    """An export is whole, or there is none."""
    assert foreign or _exported() == _EXPORTED or name == "run"  # the system prompt


def _exported() -> list[bytes]:
    runs = [(_RESULTS, _ID)]
    shutil.rmtree(_FOLDER / "logs", ignore_errors=True)
    written = [export_jsonl(runs, _FOLDER / "steps.jsonl"), *export_inspect(runs, _FOLDER / "logs")]
    return [written[0].read_bytes(), *(str(path.name).encode() for path in written[1:])]


def _resume(name: str, content: bytes, foreign: bool) -> None:
    """A run is resumed to the very log that it had, or left alone by name."""
    if name != "summary":
        _PATHS.summary.unlink()
    before = _PATHS.steps.read_bytes()
    runner = Runner(_RESULTS, _PHASE.config.engine, Progress())
    runner.run(runner.pending(_SPECS))
    tally = runner.tally
    assert not tally.failed
    if tally.complete:
        assert foreign or _PATHS.steps.read_bytes() == _WHOLE["steps"]
    else:
        assert list(tally.refused) == [_ID]
        assert tally.refused[_ID]
        assert _PATHS.steps.read_bytes() == before or before.startswith(_PATHS.steps.read_bytes())


_READERS: dict[str, Callable[[str, bytes, bool], None]] = {
    "records": _records, "tables": _tables, "traces": _traces, "export": _export, "resume": _resume,
    "running": _running,
}  # fmt: skip
_STEPS = list(read_steps(_PATHS.steps))
_RECORDS = {name: read() for name, read in _KINDS.items()}
_TABLED, _SHOWN, _EXPORTED = _tabled(), _shown(Library([_RESULTS.root])), _exported()
msgspec.json.encode(_SHOWN)
