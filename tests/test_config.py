"""Configs: what is refused and how it is said, what expands, and that ids stay."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vendomini.config import build_phase, count, expand, find_phase, load_config, numbered, select
from vendomini.config.grid import identity, tasks
from vendomini.config.json_schema import json_schema
from vendomini.config.shipped import phases, shipped
from vendomini.errors import ConfigError, UsageError

SHIPPED = {
    "phase1_large_models": (880, 840),
    "phase2_large_models": (3300, 3020),
    "phase3_large_models": (1320, 1320),
    "phase4_large_models": (660, 620),
    "phase5_large_models": (440, 440),
    "phase1_small_models": (660, 630),
    "phase2_small_models": (2475, 2265),
    "phase3_small_models": (990, 990),
    "phase4_small_models": (495, 465),
    "phase5_small_models": (660, 660),
}


class TestShipped:
    @pytest.mark.parametrize("name", SHIPPED)
    def test_has_the_published_size(self, name):
        phase = load_config(phases()[name])
        assert (tasks(phase), count(phase)) == SHIPPED[name]
        runs = list(expand(phase))
        assert len(runs) == count(phase)
        assert len({run.number for run in runs}) == len(runs)
        some = runs[:: max(len(runs) // 20, 1)][::-1]
        as_submitted = build_phase(phase.config.model_dump(mode="json"))
        assert list(numbered(as_submitted, [run.number for run in some])) == some

    def test_runs_at_no_dose_are_one_cell_with_the_ids_they_had(self):
        """Factors that only shape the shocks do nothing there; whoever ran the first of their levels has the runs."""
        whole = load_config(phases()["phase2_large_models"])
        single = load_config(phases()["phase2_large_models"], [
            "grid.pe_induction.pe_type_mix=[realistic]", "grid.pe_induction.observability=[full]",
            "grid.pe_induction.p_shock=[0.0]"])  # fmt: skip
        zero = {s.run_id for s in expand(whole) if s.parameters["pe_induction"]["p_shock"] == 0}
        assert zero == {s.run_id for s in expand(single)}

    def test_where_the_dose_is_fixed_at_nothing_one_level_is_left(self, phase):
        fixed = phase(
            "experiment: {replications: 2}\nfixed: {pe_induction.p_shock: 0.0}\n"
            "grid: {pe_induction.pe_mag: [high, low], agent.interface.memory_tools: [none, basic]}"
        )
        assert (tasks(fixed), count(fixed), len(list(expand(fixed)))) == (8, 4, 4)
        assert {s.parameters["pe_induction"]["pe_mag"] for s in expand(fixed)} == {"high"}

    def test_all_are_tested(self):
        assert set(phases()) == set(SHIPPED)

    def test_horizon_depends_on_the_level_in_phase_3(self):
        specs = expand(load_config(phases()["phase3_large_models"]))
        simulations = [spec.parameters["simulation"] for spec in specs]
        horizons = {s["complexity_level"]: s["max_steps"] for s in simulations}
        assert horizons == {1: 500, 2: 1000, 3: 2500}

    @pytest.mark.parametrize("file", sorted(shipped("configs").rglob("*.yaml")), ids=lambda p: p.stem)
    def test_names_its_schema_and_satisfies_it(self, file):
        text = file.read_text(encoding="utf-8")
        phase = yaml.safe_load(text)
        world = phase.get("experiment", {}).get("world", "vending")
        jsonschema.validate(phase, json_schema(world))
        if world == "vending":
            named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text).group(1)
            assert (file.parent / named).resolve() == (shipped("configs") / "phase.schema.json").resolve()

    def test_schema_file_is_current(self):
        written = json.loads((shipped("configs") / "phase.schema.json").read_text(encoding="utf-8"))
        assert written == json_schema(), "refresh it: vendomini config schema > configs/phase.schema.json"


REFUSED = [
    ("pe_induction:\n  p_shok: 0.1", 2, "unknown key pe_induction.p_shok; did you mean p_shock?"),
    ("analysis:\n  primary: [{factor: a, withn: {}}]", 2, "unknown key analysis.primary.0.withn; did you mean within?"),
    ("env:\n  max_steps: 3", 1, "unknown key env; this is simulation: now"),
    ("pe_induction: {p_shock: 1.5}", 1, "less than or equal to 1"),
    ("pe_induction: {p_shock: '0.5'}", 1, "must be a number, without quotes"),
    ("pe_induction: {p_shock: high}", 1, "must be a number"),
    (
        "agent: {model: Qwen/Qwen3-8B}",
        1,
        "is 'Qwen/Qwen3-8B': must be a section, with lines of key: value; did you mean agent.model.name?",
    ),
    ("agent: {interface: {structured_output: perhaps}}", 1, "must be true or false"),
    ("agent: {model: {name: ''}}", 1, "must not be empty"),
    ("agent: {model: {prompt_date: today}}", 1, "must be a date such as 2026-01-31"),
    ("agent: {model: {reply_format: thnk}}", 1, "did you mean think?"),
    ("agent: {model: {reply_format: {start: 1, end: x}}}", 1, "agent.model.reply_format.start is 1: must be text"),
    ("measurement: {pe_windows: []}", 1, "pe_windows is []: must have at least 1 value"),
    ("measurement: {pe_windows: 20}", 1, "pe_windows is 20: must be a list"),
    ("grid:\n  agent.model.name: [scripted/reactve]", 2, "is no control; did you mean scripted/reactive?"),
    ("pe_induction: {p_shock: true}", 1, "must be a number"),
    ("pe_induction: {p_shock: .nan}", 1, "must be a finite number"),
    ("simulation:\n  max_steps: 10\n  max_steps: 20", 3, "max_steps is given twice (first in line 2)"),
    ("simulation: {max_steps: 2.5}", 1, "must be a whole number"),
    ("grid:\n  pe_induction.p_shok: [1]", 2, "no parameter; did you mean pe_induction.p_shock?"),
    ("grid:\n  p_shock: [1]", 2, "no parameter; did you mean pe_induction.p_shock?"),
    ("grid:\n  pe_induction.p_shock: []", 2, "is empty"),
    ("grid:\n  pe_induction.p_shock: 0.5", 2, "wants a list of values"),
    ("grid:\n  pe_induction.p_shock: [0.1, 2]", 2, "less than or equal to 1"),
    ("grid:\n  pe_induction.p_shock: [0.1, 0.10]", 2, "lists 0.1 twice"),
    ("grid:\n  simulation: [1]", 2, "no parameter"),
    ("fixed:\n  pe_induction.pe_mag: hig", 2, "did you mean high?"),
    ("fixed: {demand.max_failures: 3}\ngrid:\n  demand.max_failures: [4]", 1, "both fixed and in the grid"),
    ("max_steps_by_level: {7: 10}", 1, "less than or equal to 4"),
    ("max_steps_by_level: {1: 10}\ngrid:\n  simulation.max_steps: [5]", 3, "keep one"),
    ("agent:\n  model: {max_tokens: 900, context_length: 1024}", 0, "must be at most half"),
    ("engine: vllmm", 1, "did you mean vllm?"),
    ("experiment: {name: ../up}", 1, "must begin with a letter or digit"),
    ("a: [1", 2, "not valid YAML"),
    ("- 1", 1, "a config is a mapping"),
    ("<<: {a: 1}", 1, "keys are plain names"),
    ("? [a, b]\n: 1", 1, "keys are plain names"),
    ("a: !!python/object/apply:os.system ['true']", 1, "not valid YAML"),
]
"""The text of a config, the line that is named (0: none), and what is said of it."""


class TestRefused:
    @pytest.mark.parametrize(("text", "line", "sentence"), REFUSED)
    def test_names_place_and_remedy(self, refusal, text, line, sentence):
        message = refusal(f"{text}\n")
        assert sentence in message
        assert f"phase.yaml:{line}:" in message if line else "phase.yaml:" in message

    def test_inherited_key_is_named_where_it_stands(self, refusal, tmp_path):
        (tmp_path / "parent.yaml").write_text("\nsimulation:\n  daily_feee: 1\n")
        assert "parent.yaml:3: unknown key simulation.daily_feee" in refusal("inherit: parent.yaml\n")

    def test_circle_in_inherit(self, refusal, tmp_path):
        (tmp_path / "parent.yaml").write_text("inherit: phase.yaml\n")
        assert "phase.yaml → parent.yaml → phase.yaml" in refusal("inherit: parent.yaml\n")

    def test_missing_parent(self, refusal):
        said = refusal("inherit: none.yaml\n")
        assert "phase.yaml:1: inherit names none.yaml, which is neither beside it nor a shipped config" in said

    def test_missing_file_suggests_the_nearest(self):
        with pytest.raises(ConfigError, match="did you mean configs/phases/phase1_large_models.yaml"):
            load_config("configs/phases/phase1_large_model.yaml")

    @pytest.mark.parametrize("path", ["a" * 300, "configs/" + "a" * 300 + ".yaml", "a/" * 3000, "\0"])
    def test_a_name_that_no_file_can_have(self, path):
        with pytest.raises(ConfigError):
            load_config(path)

    def test_alias_bomb(self, refusal):
        levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
        assert "entries, aliases expanded" in refusal("a0: &a0 [x, x, x]\n" + levels)

    def test_deep_nesting(self, refusal):
        assert "nested too deeply" in refusal("a: " + "[" * 5000 + "]" * 5000)

    @pytest.mark.parametrize("override", ["p_shock", "=3", "pe_induction.p_shock=[", "nonsense.key=1", "simulation=3"])
    def test_bad_override_says_which(self, refusal, override):
        assert f"-o {override}" in refusal("", override)

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=200))
    def test_any_text_loads_or_is_refused_in_one_line(self, text):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "phase.yaml"
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
            try:
                load_config(file)
            except ConfigError as exc:
                assert "\n" not in str(exc)


class TestValues:
    def test_yaml_scalars_mean_what_they_look_like(self, phase):
        loaded = phase("pe_induction: {p_shock: 1e-3}\nexperiment: {description: 12:30:00, name: 'no'}\n")
        assert loaded.config.pe_induction.p_shock == 1e-3
        assert loaded.config.experiment.description == "12:30:00"

    def test_a_value_has_one_form(self, phase):
        assert phase("grid: {pe_induction.p_shock: [0, 1]}\n").axes["pe_induction.p_shock"] == [0.0, 1.0]

    def test_child_wins_over_parent_and_mappings_merge(self, phase, tmp_path):
        (tmp_path / "parent.yaml").write_text("simulation: {max_steps: 7, daily_fee: 1.0}\n")
        base = phase("inherit: parent.yaml\nsimulation: {max_steps: 9}\n").base["simulation"]
        assert (base["max_steps"], base["daily_fee"]) == (9, 1.0)

    def test_fixed_wins_over_sections(self, phase):
        base = phase("simulation: {max_steps: 7}\nfixed: {simulation.max_steps: 9}\n").base
        assert base["simulation"]["max_steps"] == 9

    def test_override_replaces_an_axis(self, phase):
        text = "grid: {pe_induction.p_shock: [0.1, 0.2], pe_induction.pe_mag: [low, high]}\n"
        loaded = phase(text, "pe_induction.p_shock=0.5")
        assert count(loaded) == 2
        assert {s.parameters["pe_induction"]["p_shock"] for s in expand(loaded)} == {0.5}

    def test_override_of_the_horizon_wins_over_levels(self, phase):
        loaded = phase("max_steps_by_level: {1: 10}\n", "simulation.max_steps=3")
        assert next(expand(loaded)).parameters["simulation"]["max_steps"] == 3

    def test_engine_has_a_short_form(self, phase):
        assert phase("engine: hf\n").config.engine.backend == "hf"

    def test_a_saved_plan_expands_to_the_same_runs(self):
        loaded = load_config(phases()["phase3_small_models"])
        again = build_phase(json.loads(json.dumps(loaded.config.model_dump(mode="json"))))
        assert [s.run_id for s in expand(again)] == [s.run_id for s in expand(loaded)]


class TestIds:
    def test_are_pinned(self):
        """Results folders outlive versions: an id changes only with what a run is."""
        first = next(expand(load_config(phases()["phase1_large_models"])))
        assert first.run_id == "Qwen3-32B-p0-s0-90f26cc5abaccee3"

    def test_a_key_that_is_null_has_no_part_in_them(self, phase):
        """As every run of a version that did not know the key."""
        parameters = next(expand(phase(""))).parameters
        del parameters["agent"]["model"]["top_k"]
        assert identity(parameters) == identity(next(expand(phase(""))).parameters)
        texts = ["", "agent: {model: {top_k: 20}}", "agent: {model: {temperature: null}}"]
        texts += ["agent: {model: {chat_template_kwargs: {a: null}}}"]
        assert len({next(expand(phase(text + "\n"))).run_id for text in texts}) == 4

    def test_do_not_depend_on_the_process(self):
        code = (
            "from vendomini.config import *; from vendomini.config.shipped import phases;"
            "print([s.run_id for s in expand(load_config(phases()['phase4_small_models']))])"
        )
        runs = {subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": s}) for s in "12"}
        assert len(runs) == 1

    def test_another_model_leaves_the_old_ids(self, phase):
        grid = "grid:\n  agent.model.name: [{}]\n  pe_induction.p_shock: [0.0, 0.1]\n"
        one = {s.run_id for s in expand(phase(grid.format("a")))}
        two = {s.run_id for s in expand(phase(grid.format("b, a")))}
        assert one < two

    def test_where_a_value_is_written_does_not_matter(self, phase):
        written = ["pe_induction: {pe_mag: high}", "fixed: {pe_induction.pe_mag: high}"]
        assert len({next(expand(phase(text + "\n"))).run_id for text in written}) == 1

    def test_the_engine_is_no_part_of_a_run(self, phase):
        ids = {next(expand(phase(f"engine: {{backend: {b}, gpus: 4}}\n"))).run_id for b in ("hf", "vllm")}
        assert len(ids) == 1

    def test_replications_share_their_seeds_across_cells(self, phase):
        text = "experiment: {replications: 3, seed: 5}\ngrid: {pe_induction.p_shock: [0.0, 1.0]}\n"
        specs = list(expand(phase(text)))
        assert [s.seed for s in specs] == [5, 6, 7, 5, 6, 7]
        assert len({s.run_id for s in specs}) == 6

    @pytest.mark.parametrize("name", ["a/../../b", "ü §$", "…", "x" * 300, "/tmp/some model/"])
    def test_are_file_names_whatever_the_model_is_called(self, phase, name):
        run_id = next(expand(phase("", f"agent.model.name={json.dumps(name)}"))).run_id
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{,80}", run_id)


class TestScale:
    def test_a_hundred_thousand_runs_stream(self):
        """A million: ``python benchmarks/scale.py plan``."""
        loaded = load_config(phases()["phase2_large_models"], ["experiment.replications=160"])
        assert tasks(loaded) == 105_600
        assert count(loaded) == 96_640
        tracemalloc.start()
        distinct = len({hash(s.run_id) for s in expand(loaded) if s.seed < 20})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert distinct == 12_080
        assert peak < 6e6  # a list of them: 20e6


class TestSelect:
    def test_by_any_unambiguous_name(self):
        loaded = load_config(phases()["phase1_large_models"])
        chosen = list(select(expand(loaded), ["p_shock=0.20", "model=Qwen/Qwen3-32B", "seed=1"]))
        assert {s.parameters["pe_induction"]["p_shock"] for s in chosen} == {0.2}
        assert len(chosen) == 4

    def test_the_same_key_twice_means_either(self):
        loaded = load_config(phases()["phase1_large_models"])
        assert len(list(select(expand(loaded), ["p_shock=0", "p_shock=1", "pe_mag=low"]))) == 80

    def test_limit(self):
        assert len(list(select(expand(load_config(phases()["phase1_large_models"])), limit=7))) == 7

    @pytest.mark.parametrize("only", ["p_shok=1", "p_shock", "nonsense=1"])
    def test_refuses_what_names_nothing(self, only):
        with pytest.raises(UsageError, match="--only"):
            list(select(iter(()), [only]))


class TestFindPhase:
    def test_a_beginning_is_all_that_begin_so(self):
        assert [p.stem for p in find_phase("phase1")] == ["phase1_large_models", "phase1_small_models"]
        assert [p.stem for p in find_phase("phase1_large")] == ["phase1_large_models"]

    def test_a_file_here_goes_by_its_name_unless_a_phase_does(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("mine", "phase1"):
            Path(f"{name}.yaml").write_text("inherit: base.yaml\n")
        assert find_phase("mine") == [Path("mine.yaml")]
        assert len(find_phase("phase1")) == 2
        with pytest.raises(ConfigError, match="no phase"):
            find_phase("m" * 5000)

    def test_unknown_lists_the_known(self):
        with pytest.raises(
            ConfigError, match=r"no phase or results folder 'phase9': there are demo, .*ledger, phase1_large"
        ):
            find_phase("phase9")


class TestPreregistration:
    GRID = "grid: {pe_induction.p_shock: [0.0, 0.4], pe_induction.pe_mag: [low, high]}\n"

    def test_contrasts_are_part_of_a_phase_and_of_no_run(self, phase):
        plain = phase(self.GRID)
        told = phase(self.GRID + "analysis: {primary: [{factor: pe_induction.p_shock, compare: [0.0, 0.4]}]}")
        assert told.config.analysis.primary[0].compare == [0.0, 0.4]
        assert [s.run_id for s in expand(told)] == [s.run_id for s in expand(plain)]

    @pytest.mark.parametrize(
        ("entry", "sentence"),
        [
            ("{factor: pe_induction.p_shok}", "which is no parameter; did you mean pe_induction.p_shock?"),
            ("{factor: pe_induction.pe_mag}", "is not a number: add two of its levels"),
            ("{factor: pe_induction.pe_mag, compare: [low, low]}", "compares 'low' with itself"),
            ("{factor: pe_induction.pe_mag, compare: [low]}", "must have at least 2 values"),
        ],
    )
    def test_what_can_not_be_answered_is_refused(self, refusal, entry, sentence):
        assert sentence in refusal(self.GRID + f"analysis: {{primary: [{entry}]}}")
