"""Runs: the log is the checkpoint, whatever happens; every run ends exactly once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from vendomini.config import expand, load_config
from vendomini.config.schema import Breaker, EngineConfig
from vendomini.engines.base import Completion, Engine, EngineInfo
from vendomini.engines.resolve import start_engine
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.records import Results, read_steps, write_record
from vendomini.runner import Progress, Runner, Stop


def run_here(specs, folder, engine_config=None, start=None, stop=None, **how):
    """What ``vendomini run`` does, in this process; returns tally and counters."""

    async def start_quietly(model, config):
        return await start_engine(model, config, say=lambda line: None)

    config, progress = engine_config or EngineConfig(), Progress(how.pop("say", None))
    runner = Runner(Results(Path(folder)), config, progress, start=start or start_quietly, stop=stop, **how)
    asyncio.run(runner.run_all(runner.pending(specs)))
    return runner.tally, runner.counters


def logs(folder):
    return {path.parent.name: path.read_bytes() for path in Path(folder).glob("runs/*/steps.jsonl")}


def _size(path):
    return path.stat().st_size if path.exists() else 0


def grid(*overrides):
    return list(expand(load_config("configs/demo.yaml", overrides)))


CRAMPED = "grid.agent.model.context_length=[600, 16384]"
SHORT = ("simulation.max_steps=60", "experiment.replications=2", "pe_induction.p_shock=0.4")


class TestDeterminism:
    def test_two_processes_write_the_same_bytes(self, tmp_path):
        for name, salt in (("a", "1"), ("b", "2")):
            command = [sys.executable, "-m", "vendomini", "run", "-c", "configs/demo.yaml", "-r", str(tmp_path / name)]
            command += [part for override in SHORT for part in ("-o", override)]
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": salt})
        assert logs(tmp_path / "a") == logs(tmp_path / "b")
        assert len(logs(tmp_path / "a")) == 4

    def test_seeds_differ(self, tmp_path):
        run_here(grid(*SHORT, "agent.model.name=scripted/oracle"), tmp_path)
        assert len({hashlib.sha256(log).digest() for log in logs(tmp_path).values()}) == 2

    def test_neighbours_do_not_matter(self, tmp_path):
        specs = grid(*SHORT)
        run_here(specs, tmp_path / "together")
        for spec in specs:
            run_here([spec], tmp_path / "alone")
        assert logs(tmp_path / "together") == logs(tmp_path / "alone")


class TestKilled:
    def test_fifty_kills_leave_the_log_of_an_undisturbed_run(self, tmp_path, spec):
        specs = [spec("reactive", simulation__max_steps=1500, pe_induction__p_shock=0.1, demand__max_failures=10_000)]
        run_here(specs, tmp_path / "undisturbed")
        (whole,) = logs(tmp_path / "undisturbed").values()
        log = Results(tmp_path / "killed").run(specs[0].run_id).steps
        context, generator = multiprocessing.get_context("fork"), random.Random(7)
        lines = [0]
        for size in sorted(generator.randrange(len(whole)) for _ in range(50)):
            child = context.Process(target=run_here, args=(specs, tmp_path / "killed"))
            child.start()
            until = time.monotonic() + (generator.uniform(0, 0.05) if generator.random() < 0.2 else 60)
            while time.monotonic() < until and child.is_alive() and _size(log) < size:
                pass  # one kill in five strikes at any moment of start and replay, the others at a place in the log
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            lines.append(log.read_bytes().count(b"\n") if log.exists() else 0)
        run_here(specs, tmp_path / "killed")
        assert logs(tmp_path / "killed") == logs(tmp_path / "undisturbed")
        assert lines == sorted(lines), "a start never loses a step that was logged"
        assert len(set(lines)) > 10, "the kills struck at different moments of the episode"

    def test_a_torn_line_is_written_anew(self, tmp_path, spec):
        specs = [spec("oracle", simulation__max_steps=50)]
        run_here(specs, tmp_path)
        whole = logs(tmp_path)[specs[0].run_id]
        files = Results(tmp_path).run(specs[0].run_id)
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            files.summary.unlink()
            files.steps.write_bytes(whole[:length])
            run_here(specs, tmp_path)
            assert files.steps.read_bytes() == whole

    def test_killed_between_the_last_step_and_the_summary(self, tmp_path, spec):
        specs = [spec("oracle", simulation__max_steps=50)]
        run_here(specs, tmp_path)
        files = Results(tmp_path).run(specs[0].run_id)
        before = Results(tmp_path).summary(specs[0].run_id)
        files.summary.unlink()
        run_here(specs, tmp_path)
        after = Results(tmp_path).summary(specs[0].run_id)
        assert (after.ending, after.steps, after.pe) == (before.ending, before.steps, before.pe)
        assert after.attempt == 2

    def test_a_third_start_finds_nothing_to_do(self, tmp_path):
        specs = grid(*SHORT)
        run_here(specs[:2], tmp_path)
        tally, _ = run_here(specs, tmp_path)
        assert (tally.already, tally.finished) == (2, 2)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

        async def no_engine(model, config):
            raise AssertionError("an engine was started for nothing")

        tally, _ = run_here(specs, tmp_path, start=no_engine)
        assert (tally.already, tally.finished, tally.complete) == (4, 0, True)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written


class TestStopped:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
    def test_a_signal_ends_it_cleanly_and_the_next_start_goes_on(self, tmp_path, number):
        overrides = ["experiment.replications=1", "simulation.max_steps=20000", "pe_induction.p_shock=0"]
        overrides += ["agent.model.name=scripted/oracle"]
        command = [sys.executable, "-m", "vendomini", "run", "-c", "configs/demo.yaml", "-r", str(tmp_path)]
        command += [part for override in overrides for part in ("-o", override)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not any(logs(tmp_path).values()):
            time.sleep(0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "stopping after the steps in flight" in said
        assert "Traceback" not in said
        (path,) = tmp_path.glob("runs/*/steps.jsonl")
        assert 0 < len(list(read_steps(path))) < 20_000
        assert not (path.parent / "summary.json").exists()

    def test_a_second_signal_ends_the_steps_in_flight(self, tmp_path, spec):
        class Silent(Engine):
            info, max_num_seqs = EngineInfo("silent", "silent"), 4

            async def generate(self, prompt, params):
                loop = asyncio.get_running_loop()
                loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
                await loop.create_future()

            async def close(self):
                closed.append(True)

        async def silent(model, config):
            return Silent()

        closed: list[bool] = []
        stop, specs = Stop(), [spec("oracle", experiment__seed=seed) for seed in (1, 2)]
        runner = Runner(Results(tmp_path), EngineConfig(), Progress(), start=silent, stop=stop)
        with pytest.raises(KeyboardInterrupt):
            runner.run(runner.pending(specs))
        assert (stop.reason, closed) == ("SIGINT", [True])
        assert sorted(runner.tally.unfinished) == sorted(spec.run_id for spec in specs)

    def test_what_waits_is_listed(self, tmp_path):
        stop = Stop()
        stop.request("test")
        tally, _ = run_here(grid(*SHORT), tmp_path, stop=stop)
        assert len(tally.unfinished) == 4


class Breaking(Engine):
    """The oracle's engine, but the wire is cut after some answers."""

    def __init__(self, inner: Engine, answers: int) -> None:
        self.inner, self.answers = inner, answers
        self.info, self.max_num_seqs = inner.info, inner.max_num_seqs

    async def generate(self, prompt, params):
        self.answers -= 1
        if self.answers < 0:
            raise EngineError("the wire was cut")
        return await self.inner.generate(prompt, params)


class TestEngineFailure:
    def test_fails_the_run_and_the_next_start_goes_on_from_there(self, tmp_path, spec):
        specs = [spec("oracle", simulation__max_steps=50)]

        async def breaking(model, config):
            return Breaking(await start_engine(model, config, say=lambda line: None), 20)

        tally, _ = run_here(specs, tmp_path, start=breaking)
        assert tally.failed == {specs[0].run_id: "the wire was cut"}
        summary = Results(tmp_path).summary(specs[0].run_id)
        assert (summary.ending, summary.time_to_crash, summary.event_observed) == ("failed", None, None)
        assert summary.steps == 20
        tally, counters = run_here(specs, tmp_path)
        assert (tally.finished, counters.steps_resumed, counters.steps) == (1, 20, 30)
        run_here(specs, tmp_path / "undisturbed")
        assert logs(tmp_path) == logs(tmp_path / "undisturbed")


class Gone(Breaking):
    """Dead for good after some answers."""

    @property
    def gone(self):
        return "its process is gone" if self.answers < 0 else None


class TestEngineGone:
    def test_runs_that_wait_are_left_for_another_start(self, tmp_path):
        async def gone(model, config):
            return Gone(await start_engine(model, config, say=lambda line: None), 70)

        specs = grid("simulation.max_steps=60", "experiment.replications=8", "agent.model.name=scripted/oracle")
        tally, _ = run_here(specs, tmp_path, EngineConfig(max_num_seqs=1), start=gone)
        assert (tally.finished, len(tally.failed), len(tally.unfinished)) == (1, 1, len(specs) - 2)
        assert tally.stopped is None


class TestEngineThatAnswersNobody:
    @pytest.mark.parametrize("width", [1, 6])
    def test_stops_after_more_failures_than_were_in_flight(self, tmp_path, width):
        """A server that is down, or a wrong key: thousands of runs would each wait for it in vain."""
        said = []

        async def down(model, config):
            return Breaking(await start_engine(model, config, say=lambda line: None), 50)

        specs = grid("simulation.max_steps=40", "experiment.replications=20", "agent.model.name=scripted/oracle")
        tally, _ = run_here(specs, tmp_path, EngineConfig(max_num_seqs=width), start=down, say=said.append)
        assert max(width, 3) < len(tally.failed) <= 2 * width + 3
        assert len(tally.failed) + tally.finished + len(tally.unfinished) == len(specs)
        assert sum("failed in a row, without a step between them" in line for line in said) == 1
        tally, _ = run_here(specs, tmp_path)
        assert tally.complete

    def test_failures_with_answers_between_them_stop_nothing(self, tmp_path):
        class Moody(Breaking):
            async def generate(self, prompt, params):
                self.answers += 1
                if self.answers % 30 == 0:
                    raise EngineError("a bad moment")
                return await self.inner.generate(prompt, params)

        async def moody(model, config):
            return Moody(await start_engine(model, config, say=lambda line: None), 0)

        specs = grid("simulation.max_steps=40", "experiment.replications=20", "agent.model.name=scripted/oracle")
        tally, _ = run_here(specs, tmp_path, EngineConfig(max_num_seqs=2), start=moody)
        assert len(tally.failed) > 10
        assert tally.unfinished == []


class Chatty(Engine):
    """Answers in prose: every reply, or those that it is asked to by its index."""

    def __init__(self, inner: Engine, prose=lambda index: True) -> None:
        self.inner, self.prose, self.asked = inner, prose, 0
        self.info, self.max_num_seqs = inner.info, inner.max_num_seqs

    async def generate(self, prompt, params):
        await asyncio.sleep(0)  # as a model's engine does: the episodes take turns
        self.asked += 1
        if self.prose(self.asked):
            return Completion("I would rather wait and see.", "stop", 100, 7)
        return await self.inner.generate(prompt, params)


def chatty(*how):
    async def start(model, config):
        return Chatty(await start_engine(model, config, say=lambda line: None), *how)

    return start


UNREADABLE = ("simulation.max_steps=500", "experiment.replications=200", "agent.model.name=scripted/oracle",
              "pe_induction.p_shock=0.4")  # fmt: skip


class TestBreaker:
    def test_two_hundred_runs_of_unreadable_replies_stop_early(self, tmp_path):
        said, specs = [], grid(*UNREADABLE)
        tally, counters = run_here(specs, tmp_path, start=chatty(), say=said.append)
        assert len(specs) == len(tally.unfinished) == 200
        assert counters.steps <= 0.05 * 200 * 58  # each would crash at its 8th step, and end 50 steps later
        assert list(tally.halted.values()) == ["replies"]
        (halt,) = Results(tmp_path).halts().values()
        assert (halt.model, halt.cause) == ("scripted/oracle", "replies")
        assert halt.reason.startswith("100% of its first ")
        assert halt.reason.endswith("replies can't be used (no_object 100%)")
        assert sum("scripted/oracle is stopped: 100%" in line for line in said) == 1

        async def no_engine(model, config):
            raise AssertionError("a model was loaded for runs that are stopped")

        before = logs(tmp_path)
        tally, counters = run_here(specs, tmp_path, start=no_engine)
        assert (len(tally.unfinished), counters.steps, logs(tmp_path)) == (200, 0, before)

    @pytest.mark.parametrize("how", [{"anyway": True}, {"limits": Breaker(unusable=None)}])
    def test_they_go_on_when_told_to(self, tmp_path, how):
        specs = grid(*UNREADABLE)[:8]
        tally, _ = run_here(specs, tmp_path, start=chatty())
        assert len(tally.unfinished) == 8
        tally, _ = run_here(specs, tmp_path, start=chatty(), **how)
        assert (tally.finished, tally.halted) == (8, {})
        run_here(specs, tmp_path / "undisturbed", start=chatty(), limits=Breaker(unusable=None))
        assert logs(tmp_path) == logs(tmp_path / "undisturbed")

    def test_a_kill_on_the_way_changes_nothing(self, tmp_path):
        specs, one = grid(*UNREADABLE), EngineConfig(max_num_seqs=1)
        run_here(specs, tmp_path / "undisturbed", one, start=chatty())
        for answers in (3, 8, 20):  # the log is cut, as by a kill, and the call begins again

            async def killed(model, config, answers=answers):
                return Killed(await chatty()(model, config), answers)

            with pytest.raises(KeyboardInterrupt):
                run_here(specs, tmp_path / "killed", one, start=killed)
        run_here(specs, tmp_path / "killed", one, start=chatty())
        assert logs(tmp_path / "killed") == logs(tmp_path / "undisturbed")
        reasons = [[h.reason for h in Results(tmp_path / name).halts().values()] for name in ("killed", "undisturbed")]
        assert reasons[0] == reasons[1]

    def test_what_another_job_found_counts(self, tmp_path):
        specs, one = grid(*UNREADABLE), EngineConfig(max_num_seqs=1)
        run_here(specs[:100], tmp_path, one, start=chatty())
        (halt,) = Results(tmp_path).halts().values()
        Results(tmp_path).halt(halt.key).unlink()

        async def meanwhile(model, config):
            write_record(Results(tmp_path).halt(halt.key), halt)
            return await chatty()(model, config)

        tally, counters = run_here(specs[100:], tmp_path, one, start=meanwhile)
        assert (len(tally.unfinished), counters.steps) == (100, 0)

    @pytest.mark.parametrize(("prose", "stops"), [(lambda n: n % 5 < 3, True), (lambda n: n % 5 < 2, False)])
    def test_the_limit_is_a_share(self, tmp_path, prose, stops):
        specs = grid("simulation.max_steps=12", "experiment.replications=20", "agent.model.name=scripted/oracle",
                     "pe_induction.p_shock=0.4")  # fmt: skip
        tally, _ = run_here(specs, tmp_path, start=chatty(prose))
        assert bool(tally.halted) is stops

    def test_only_runs_whose_agents_are_set_alike_stop(self, tmp_path):
        """The replies have no card, which one half of the runs requires."""
        modes = 'grid.agent.interface.prediction_mode=["required", "optional"]'
        specs = grid(*UNREADABLE[2:], "simulation.max_steps=30", "experiment.replications=10", modes)

        class Cardless(Breaking):
            async def generate(self, prompt, params):
                await asyncio.sleep(0)
                found = await self.inner.generate(prompt, params)
                reply = json.loads(found.text) | {"prediction": None}
                return msgspec.structs.replace(found, text=json.dumps(reply))

        async def start(model, config):
            return Cardless(await start_engine(model, config, say=lambda line: None), 0)

        tally, _ = run_here(specs, tmp_path, start=start)
        required = {s.run_id for s in specs if s.parameters["agent"]["interface"]["prediction_mode"] == "required"}
        assert set(tally.unfinished) == required
        assert tally.finished == 10
        (halt,) = Results(tmp_path).halts().values()
        assert "(card_missing 100%)" in halt.reason

    def test_a_server_that_answers_nobody_is_kept_in_mind_until_the_next_call(self, tmp_path):
        class Server(Breaking):
            elsewhere = True

        async def down(model, config):
            return Server(await start_engine(model, config, say=lambda line: None), 50)

        specs = grid("simulation.max_steps=40", "experiment.replications=20", "agent.model.name=scripted/oracle")
        tally, _ = run_here(specs, tmp_path, EngineConfig(max_num_seqs=2), start=down)
        (halt,) = Results(tmp_path).halts().values()
        assert (halt.cause, halt.reason) == ("engine", "4 runs failed in a row, without a step between them")
        tally, _ = run_here(specs, tmp_path, EngineConfig(max_num_seqs=2))
        assert tally.complete
        assert Results(tmp_path).halts() == {}


class Killed(Breaking):
    async def generate(self, prompt, params):
        self.answers -= 1
        if self.answers < 0:
            raise KeyboardInterrupt
        return await self.inner.generate(prompt, params)


class TestDamage:
    def test_a_damaged_run_is_refused_by_name_and_the_rest_goes_on(self, tmp_path):
        specs = grid(*SHORT)
        run_here(specs[:1], tmp_path)
        files = Results(tmp_path).run(specs[0].run_id)
        files.summary.unlink()
        damaged = bytearray(files.steps.read_bytes())
        damaged[1000] ^= 1
        files.steps.write_bytes(damaged)
        tally, _ = run_here(specs, tmp_path)
        assert list(tally.refused) == [specs[0].run_id]
        assert "line 1 is damaged" in tally.refused[specs[0].run_id]
        assert (tally.finished, tally.complete) == (3, False)
        assert files.steps.read_bytes() == bytes(damaged)

    def test_a_log_of_another_run_does_not_replay(self, tmp_path):
        specs = grid(*SHORT, "agent.model.name=scripted/oracle")
        run_here(specs, tmp_path)
        first, second = (Results(tmp_path).run(spec.run_id) for spec in specs)
        first.summary.unlink()
        first.steps.write_bytes(second.steps.read_bytes())
        tally, _ = run_here(specs, tmp_path)
        assert "does not follow from the actions before it" in tally.refused[specs[0].run_id]

    def test_a_damaged_summary_is_not_overwritten(self, tmp_path, spec):
        specs = [spec("idle", simulation__max_steps=5)]
        run_here(specs, tmp_path)
        files = Results(tmp_path).run(specs[0].run_id)
        files.summary.write_bytes(b'{"half":')
        tally, _ = run_here(specs, tmp_path)
        assert specs[0].run_id in tally.refused
        assert files.summary.read_bytes() == b'{"half":'

    def test_a_run_that_another_process_writes_is_left_to_it(self, tmp_path, spec):
        specs = [spec("idle", simulation__max_steps=5)]
        results = Results(tmp_path)
        results.run(specs[0].run_id).folder.mkdir(parents=True)
        code = (
            "import sys; from pathlib import Path; from vendomini.records import StepLog;"
            "log = StepLog(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(results.run(specs[0].run_id).steps)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
        tally, _ = run_here(specs, tmp_path)
        holder.kill()
        holder.communicate()
        assert (tally.locked, tally.failed) == ([specs[0].run_id], {})


class TestElsewhere:
    def test_a_run_that_another_process_finished_meanwhile_is_left_as_it_is(self, tmp_path, spec):
        specs, results = [spec("oracle", simulation__max_steps=5)], Results(tmp_path)
        runner = Runner(results, EngineConfig(), Progress())
        stale, tally = runner.pending(specs), runner.tally
        run_here(specs, tmp_path)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        asyncio.run(runner.run_all(stale))
        assert (tally.already, tally.finished, tally.complete) == (1, 0, True)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written

    def test_the_run_stays_locked_until_its_summary_is_written(self, tmp_path, spec, monkeypatch):
        """Another call that starts just before the summary is written must not finish the run: its result would be
        overwritten. It is a thread of its own here, which the kernel's lock keeps out as it does a process."""
        specs, results = [spec("oracle", simulation__max_steps=50)], Results(tmp_path)
        others = []

        async def breaking(model, config):
            return Breaking(await start_engine(model, config, say=lambda line: None), 20)

        def write_late(path, record):
            if getattr(record, "ending", None) == "failed":
                with ThreadPoolExecutor(1) as other:
                    others.append(other.submit(run_here, specs, tmp_path).result()[0])
            write_record(path, record)

        monkeypatch.setattr("vendomini.runner.episode.write_record", write_late)
        run_here(specs, tmp_path, start=breaking)
        assert [(other.locked, other.finished) for other in others] == [([specs[0].run_id], 0)]
        assert results.summary(specs[0].run_id).ending == "failed"
        tally, _ = run_here(specs, tmp_path)
        assert (tally.finished, results.summary(specs[0].run_id).ending) == (1, "survived")


class Clocked(Engine):
    """Answers the same idle reply after a moment, and remembers how many waited together."""

    info = EngineInfo(backend="scripted", model="clocked")
    max_num_seqs = 8

    def __init__(self) -> None:
        self.waiting = self.most = 0

    async def generate(self, prompt, params):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.001)
        self.waiting -= 1
        return Completion('{"thought":"","tool":"tool_end_day","arguments":{}}', "stop", 10, 5)


class TestConcurrency:
    def test_as_many_episodes_as_the_engine_likes_are_in_flight(self, tmp_path):
        engine = Clocked()

        async def start(model, config):
            return engine

        overrides = ("experiment.replications=20", "simulation.max_steps=5", "pe_induction.p_shock=0")
        specs = grid(*overrides, "agent.model.name=scripted/idle")
        tally, counters = run_here(specs, tmp_path, start=start)
        assert (tally.finished, engine.most) == (20, 8)
        assert counters.completion_tokens == 20 * 5 * 5

    def test_the_config_can_narrow_it(self, tmp_path):
        engine = Clocked()

        async def start(model, config):
            return engine

        specs = grid("experiment.replications=6", "simulation.max_steps=5", "agent.model.name=scripted/idle")
        run_here(specs, tmp_path, EngineConfig(max_num_seqs=3), start=start)
        assert engine.most == 3


class TestModelsThatCanNotRun:
    def test_one_fails_its_own_runs_by_name_and_the_others_go_on(self, tmp_path):
        models = "grid.agent.model.name=[./nobody, scripted/oracle, scripted/idle]"
        tally, counters = run_here(grid(*SHORT, models), tmp_path)
        assert tally.finished == 4
        assert all("./nobody is no folder with a config.json" in reason for reason in tally.failed.values())
        assert (len(tally.failed), counters.runs_failed, tally.complete) == (2, 2, False)

    def test_nor_does_a_config_that_only_some_runs_can_not_follow(self, tmp_path):
        specs = grid(
            *SHORT,
            "agent.model.name=scripted/oracle",
            "grid.agent.model.context_length=[600, 16384]",
            "agent.model.max_tokens=100",
        )
        said = []
        tally, _ = run_here(specs, tmp_path, say=said.append)
        assert (tally.finished, len(tally.failed), tally.complete) == (2, 2, False)
        assert sum("leaves no room for a conversation" in line for line in said) == 1

    def test_the_only_one_is_an_error(self, tmp_path):
        with pytest.raises(EngineUnavailable, match="./nobody is no folder with a config.json"):
            run_here(grid(*SHORT, "agent.model.name=./nobody"), tmp_path)


class TestNotebook:
    def test_runs_where_an_event_loop_runs_already(self, tmp_path):
        async def cell():
            runner = Runner(Results(tmp_path), EngineConfig(), Progress())
            runner.run(runner.pending(grid(*SHORT)))
            return runner.tally

        assert asyncio.run(cell()).finished == 4

    def test_runs_in_a_thread(self, tmp_path):
        """Where Python delivers no signals."""
        runner = Runner(Results(tmp_path), EngineConfig(), Progress())
        with ThreadPoolExecutor(1) as other:
            other.submit(runner.run, runner.pending(grid(*SHORT))).result()
        assert runner.tally.finished == 4


@pytest.mark.parametrize(
    ("steps", "tokens", "seconds", "says"),
    [
        (0, 0, 150, "0/4 runs · no step yet after 2 min 30 s"),
        (3, 240, 60, "0/4 runs · 3 steps · 0.05 steps/s · 4 tokens/s · at most 32 min 20 s left"),
        (90, 7200, 3, "0/4 runs · 90 steps · 30 steps/s · 2,400 tokens/s · at most 0 s left"),
    ],
)
def test_progress_of_a_slow_model_is_not_nothing(monkeypatch, steps, tokens, seconds, says):
    now = time.monotonic()
    progress = Progress()
    progress.counters.runs_total, progress.counters.steps_total = 4, 100
    progress.counters.steps, progress.counters.completion_tokens = steps, tokens
    monkeypatch.setattr("vendomini.runner.progress.time.monotonic", lambda: now + seconds)
    assert progress.line() == says
