"""Worlds by name: how they are found, what their configs may say, and a second one from command to report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vendomini.agent import system_prompt
from vendomini.config import expand, load_config, select
from vendomini.config.worlds import find_world, known_worlds
from vendomini.errors import ConfigError
from vendomini.measures.measured import MeasuredWorld
from vendomini.measures.prediction import error_types
from vendomini.records import RunSummary, read_record, write_record
from vendomini.worlds.protocol import Action, Call, load_world, open_world
from vendomini.worlds.vending import WORLD as VENDING

LEDGER = "configs/ledger.yaml"


def vendomini(*arguments: object, folder: Path | None = None) -> str:
    command = [sys.executable, "-m", "vendomini", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --------------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ledgr", "did you mean ledger?"),
        ("moon", "there are ledger, vending, or module:Class"),
        ("no_such_module:World", "can't be imported: No module named 'no_such_module'"),
        ("json:NoSuchClass", "can't be imported: module 'json' has no attribute"),
        ("json:loads", "must be a class derived from vendomini.worlds.protocol.World"),
        ("..:x", "can't be imported"),
    ],
)
def test_a_world_that_is_none_is_one_sentence_with_its_place(
    refusal: Callable[..., str], tmp_path: Path, name: str, told: str
) -> None:
    message = refusal(f'experiment:\n  world: "{name}"\n')
    assert message.startswith(f"{tmp_path / 'phase.yaml'}:2: experiment.world ")
    assert told in message


BROKEN = """
from vendomini.worlds.ledger import WORLD
from vendomini.worlds.protocol import Summary


class NoHorizon(WORLD):
    horizon = "ledger.max_step"

class Odd(WORLD):
    config = int

class Abstract(WORLD.__mro__[1]):
    config = WORLD.config

class Empty(WORLD):
    def step(self, call):
        return None

class Unnamed(WORLD):
    def step(self, call):
        outcome = super().step(call)
        outcome.event = "flooded"
        return outcome

class Raising(WORLD):
    def step(self, call):
        raise ValueError("a mistake of mine")

class NoTools(WORLD):
    def __init__(self, config):
        super().__init__(config)
        self.tools = []

class Twice(WORLD):
    def __init__(self, config):
        super().__init__(config)
        self.tools = [*self.tools, self.tools[0]]

class Unruly(WORLD):
    def rules(self):
        return None

class Blind(WORLD):
    def reset(self, *, seed, audit):
        super().reset(seed=seed, audit=audit)

class Shocked(WORLD):
    def step(self, call):
        outcome = super().step(call)
        outcome.shocks = None
        return outcome

class Stuck(WORLD):
    def step(self, call):
        outcome = super().step(call)
        if outcome.observation.step == 4:
            outcome.observation = self.first
        return outcome

    def reset(self, *, seed, audit):
        self.first = super().reset(seed=seed, audit=audit)
        return self.first

class EndsBlind(WORLD):
    def step(self, call):
        outcome = super().step(call)
        if outcome.observation.step > 3:
            outcome.observation = None
        return outcome

class Summing(WORLD):
    def summary(self):
        return Summary([], {})

class Listing(WORLD):
    def summary(self):
        return Summary({}, {"money": [1]})

class Echoing(WORLD):
    expectations = (*WORLD.expectations, WORLD.expectations[0])

class Ending(WORLD):
    endings = ["flooded"]

class Uncontrolled(WORLD):
    @classmethod
    def controls(cls):
        return None

class Wordy(WORLD):
    dose = "agent.model.name"
"""


@pytest.mark.parametrize(
    ("world", "told"),
    [
        ("Abstract", "broken:Abstract does not define horizon, dose, dose_label, pe_types, __init__, reset"),
        ("Odd", "its config must be a vendomini.config.RunConfig"),
        ("NoHorizon", "its config has no ledger.max_step; did you mean"),
        ("Empty", "Empty.step's outcome must be of type Outcome, not NoneType"),
        ("NoTools", "NoTools.tools must be a list of ToolSpec, at least one"),
        ("Twice", "Twice.tools has two tools of one name"),
        ("Unruly", "Unruly.rules must be of type str, not NoneType"),
        ("Blind", "Blind.reset's observation must be of type Observation, not NoneType"),
        ("Shocked", "Shocked.step's shocks must be of type list, not NoneType"),
        ("Stuck", "Stuck.step's observation must be of step 4, which comes next, not 1"),
        ("EndsBlind", "EndsBlind.step's observation must be of type Observation, not NoneType"),
        ("Summing", "Summing.summary's shocks must be of type dict, not list"),
        ("Listing", "Listing.summary's money must be of type bool | int | float | str | None, not list"),
        ("Echoing", "Echoing.expectations has a field twice"),
        ("Ending", "broken:Ending: its pe_types must be a tuple, and its endings a dict"),
        ("Uncontrolled", "broken:Uncontrolled: its controls must be a dict of name and class"),
        ("Wordy", "broken:Wordy: its dose agent.model.name must be an int or a float"),
        ("Unnamed", "Unnamed ended with 'flooded', which its endings do not name"),
        ("Raising", "broken.py, line 27, raised ValueError('a mistake of mine'); the whole traceback is in"),
    ],
)
def test_a_mistake_in_a_world_of_one_s_own_is_said_to_its_author(tmp_path: Path, world: str, told: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    config = {"experiment": {"name": "mine", "world": f"broken:{world}", "replications": 1}}
    config["grid"] = {"agent.model.name": [f"scripted/broken:{world}/oracle"]}
    (tmp_path / "mine.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "vendomini", "run", "mine.yaml"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env=environ)
    assert done.returncode == 1
    assert told in done.stdout + done.stderr
    assert "bug in vendomini" not in done.stderr


def test_what_a_results_folder_names_is_not_imported() -> None:
    with pytest.raises(ConfigError, match="is not loaded"):
        find_world("antigravity:x", trusted=False)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("office: {p_eror: 0.1}", "unknown key office.p_eror; did you mean p_error?"),
        ("office: {p_error: 2}", "office.p_error is 2: must be less than or equal to 1"),
        ('office: {max_steps: "3"}', "office.max_steps is '3': must be a whole number, without quotes"),
        ("simulation: {max_steps: 3}", "unknown key simulation"),
        (
            "grid: {office.p_eror: [1]}",
            "grid names 'office.p_eror', which is no parameter; did you mean office.p_error?",
        ),
        ("fixed: {pe_induction.p_shock: 0.1}", "fixed names 'pe_induction.p_shock', which is no parameter"),
        ("max_steps_by_level: {1: 3}", "unknown key max_steps_by_level"),
        ("grid: {agent.model.name: [scripted/oracle]}", "name one of its own, such as scripted/ledger/oracle"),
    ],
)
def test_the_sections_of_a_world_are_as_strict_as_ours(refusal: Callable[..., str], text: str, told: str) -> None:
    ledger = "experiment: {world: ledger}\nagent: {model: {name: scripted/ledger/oracle}}\n"
    assert told in refusal(f"{ledger}{text}\n")


def test_only_and_overrides_reach_them() -> None:
    phase = load_config(LEDGER, ["office.max_steps=7", "grid.office.p_error=[0, 0.25]"])
    specs = list(select(expand(phase), ["p_error=0.250", "seed=3"]))
    assert [spec.horizon for spec in specs] == [7, 7]
    assert [spec.run_id[:13] for spec in specs] == ["oracle-p0.25-", "fragile-p0.25"]


def test_the_id_of_a_run_names_its_world_unless_it_is_the_warehouse() -> None:
    ours = next(expand(load_config("configs/demo.yaml")))
    assert "world" not in ours.parameters
    other = next(expand(load_config(LEDGER)))
    assert other.parameters["world"] == other.world == "ledger"
    assert type(other.config()).__name__ == "LedgerConfig"


# ------------------------------------------------------------------------------------------ the contract


@pytest.mark.parametrize("name", known_worlds())
def test_every_world_keeps_the_contract(name: str) -> None:
    """Two with one seed are equal at every step, whatever they are asked, and all they say is JSON."""
    kind = load_world(name)
    config = kind.config.model_validate({"agent": {"interface": {"memory_tools": "full", "recovery_tools": "all"}}})
    assert kind.pe_types == error_types(kind.expectations)
    first, second = open_world(name, config), open_world(name, config)
    assert system_prompt(first, config.agent.interface) == system_prompt(second, config.agent.interface)
    measured = [MeasuredWorld(world, config, 200) for world in (first, second)]
    observations = [world.reset(seed=5) for world in measured]
    assert msgspec.json.encode(observations[0]) == msgspec.json.encode(observations[1])
    calls = [Action("ok", tool.name, {}, {"expected_success": True}) for tool in first.tools]
    calls += [Action("ok", "tool_nothing", {}, None), Action("unparsable"), Action("ok", None, [1], 3)]
    for number in range(150):
        outcomes = [world.step(calls[number % len(calls)]) for world in measured]
        logged = [msgspec.json.encode([o.result, o.observation, o.shocks, o.resolved, o.ending]) for o in outcomes]
        assert logged[0] == logged[1]
        assert outcomes[0].observation.step == number + 2
        if outcomes[0].ending is not None:
            break
    assert first.summary() == second.summary()
    assert isinstance(first.step(Call("tool_nothing", None)).result.error, msgspec.Struct)


def test_every_control_of_every_world_is_found_by_its_name() -> None:
    for name in known_worlds():
        assert {key: control.name for key, control in load_world(name).controls().items()} == {
            key: key for key in load_world(name).controls()
        }
    assert {"oracle", "reactive", "fragile", "idle", "garbled", "looper"} < set(VENDING.controls())


# --------------------------------------------------------------------------------------- the second one


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "results"
    settings = ["-o", "office.max_steps=120", "-o", "experiment.replications=6"]
    vendomini("run", "-c", LEDGER, "-r", folder, *settings)
    return folder


def summaries(results: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(results.glob("runs/*/summary.json"))]


def test_it_runs_and_what_happens_depends_on_the_dose(results: Path) -> None:
    found = summaries(results)
    assert len(found) == 36
    mean: dict[tuple[str, float], list[int]] = {}
    for one in found:
        control = one["parameters"]["agent"]["model"]["name"].rpartition("/")[2]
        mean.setdefault((control, one["parameters"]["office"]["p_error"]), []).append(one["time_to_crash"])
        assert one["world"]["posted"] > 0
        if one["parameters"]["office"]["p_error"] == 0:
            assert {kind: series["mean"] for kind, series in one["pe"].items()} == {
                "temporal": 0.0, "amount": 0.0, "causal": 0.0, "all": 0.0,
            }  # fmt: skip
    survival = {key: sum(times) / len(times) for key, times in mean.items()}
    assert survival["oracle", 0.0] == survival["oracle", 0.3] == 120
    assert survival["fragile", 0.0] > survival["fragile", 0.1] > survival["fragile", 0.3]


def test_it_resumes_where_its_log_ends(results: Path, tmp_path: Path) -> None:
    run = sorted(results.glob("runs/oracle-p0.3-*"))[0]
    whole = (run / "steps.jsonl").read_bytes()
    (run / "summary.json").unlink()
    (run / "steps.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:50]))
    settings = ["-o", "office.max_steps=120", "-o", "experiment.replications=6"]
    vendomini("run", "-c", LEDGER, "-r", results, *settings)
    assert (run / "steps.jsonl").read_bytes() == whole


def test_its_report_speaks_of_its_dose_and_its_endings(results: Path) -> None:
    pytest.importorskip("lifelines")
    vendomini("report", results, "--no-figures")
    page = (results / "report" / "report.html").read_text()
    assert "p_error (probability of a wrong credit at each step)" in page
    assert "a crash or dismissal" in page
    assert not [word for word in ("p_shock", "bankruptcy", "customers") if word in page]


def test_its_traces_show_its_turns(results: Path, tmp_path: Path) -> None:
    vendomini("traces", results, "--export", "jsonl", "--out", tmp_path / "steps.jsonl")
    first = json.loads((tmp_path / "steps.jsonl").read_text().splitlines()[0])
    assert first["observation"]["receipts"] == 2
    run = sorted(path.name for path in results.glob("runs/*"))[0]
    vendomini("traces", results, "--run", run, "--static", tmp_path / "episode.html")
    assert "OBSERVATION" in (tmp_path / "episode.html").read_text()


def test_summaries_that_were_written_before_worlds_keep_their_figures(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_record(path, RunSummary(run_id="r", parameters={}, seed=0, replication=0, ending="survived", steps=9))
    from vendomini.records import seal

    old = json.loads(path.read_bytes()) | {"days": 3, "orders_total": 4, "net_worth": 12.5}
    old = {key: value for key, value in old.items() if key not in {"world", "crc"}}
    path.write_bytes(seal(msgspec.json.encode(old)) + b"\n")
    assert read_record(path, RunSummary).world == {"days": 3, "orders_total": 4, "net_worth": 12.5}
