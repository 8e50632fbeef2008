"""The guide's numbers, and what is measured in their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.test_model_info import guide_case
from vendomini.cluster.estimate import estimate
from vendomini.cluster.site import Site
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.throughput import ENGINES, Measurement, Throughput, billions, published_step_s
from vendomini.config import load_config
from vendomini.config.schema import EngineConfig, Model
from vendomini.errors import ClusterError, ConfigError
from vendomini.records import RunSummary

H100 = Site("gpu", 1440, 8, "h100", 1001, live=False)
A100 = Site("gpu", 1440, 4, "a100_40gb", 1001, live=False)


@pytest.mark.parametrize(
    ("size", "tasks", "steps", "hours"),
    [(32, 880, 500, (440, 176, 44)), (70, 880, 500, (880, 326, 88)), (32, 440, 5000, (440, 176, 22))],
)
def test_the_guides_table(size: float, tasks: int, steps: int, hours: tuple[float, ...]) -> None:
    found = [tasks * steps * published_step_s(size, engine, steps) / 3600 for engine in ENGINES]
    assert found == pytest.approx(hours)


@pytest.mark.parametrize(("site", "gpus"), [(H100, 4), (replace(A100, gpus_per_node=8), 8)])
def test_a_model_that_is_here_is_sized_by_its_files(tmp_path: Path, site: Site, gpus: int) -> None:
    """Its name says nothing; weights and the keys and values of a batch say how many GPUs."""
    guide_case(tmp_path, "70B")
    assert Sizing(EngineConfig(), site).gpus(Model(name=str(tmp_path))) == gpus
    with pytest.raises(ClusterError, match="does not fit on the 4 GPUs"):
        Sizing(EngineConfig(), A100).gpus(Model(name=str(tmp_path)))


def test_between_the_guides_sizes_time_grows_with_size() -> None:
    times = [published_step_s(size, "vllm", 500) for size in (1, 7, 13, 32, 40, 70, 140)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2 * times[-2])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen3-32B", 32), ("openai/gpt-oss-20b", 20), ("allenai/OLMo-2-1124-13B-Instruct", 13),
        ("deepseek-ai/deepseek-llm-7b-chat", 7), ("Qwen/Qwen2.5-0.5B", 0.5), ("gpt2", None), ("a/b2b-model", None),
    ],
)  # fmt: skip
def test_size_by_name(name: str, size: float | None) -> None:
    assert billions(name) == size


def test_phase_1_on_this_cluster() -> None:
    rows = estimate(load_config("configs/phases/phase1_large_models.yaml"), H100, {})
    assert [(row.tasks, row.gpus) for row in rows] == [(220, 2), (220, 4), (220, 1), (220, 4)]
    assert rows[0].hours == pytest.approx({"standard": 110, "flash": 44, "vllm": 11})
    assert rows[0].gpu_hours == pytest.approx(22)
    assert set(rows[0].sources.values()) == {"published estimate"}


def test_what_was_measured_replaces_what_was_published() -> None:
    measured = {("Qwen/Qwen3-32B", "vllm"): Throughput(step_s=0.1, tokens_s=900)}
    row = estimate(load_config("configs/phases/phase1_large_models.yaml"), H100, measured)[0]
    assert row.hours["vllm"] == pytest.approx(220 * 500 * 0.1 / 3600)
    assert row.sources == {"standard": "published estimate", "flash": "published estimate", "vllm": "measured here"}


def test_throughput_is_that_of_a_job_with_all_its_episodes() -> None:
    def ended(second: int, seconds: float, attempt: int = 1) -> RunSummary:
        return RunSummary(
            run_id="r", parameters={}, seed=0, replication=0, ending="survived", steps=100, completion_tokens=1000,
            seconds=seconds, attempt=attempt, ended_at=f"2026-01-01T00:00:{second:02}+00:00",
        )  # fmt: skip

    measurement = Measurement()
    assert measurement.throughput() is None
    for run in (ended(20, 20), ended(20, 20), ended(50, 1, attempt=2)):
        measurement.add("job", run)
    assert measurement.throughput() == Throughput(step_s=0.1, tokens_s=100)


def test_gpus_by_config_and_by_size() -> None:
    assert Sizing(EngineConfig(gpus=2), H100).gpus(Model(name="x/y")) == 2
    assert Sizing(EngineConfig(), H100).gpus(Model(name="scripted/oracle")) == 0
    assert Sizing(EngineConfig(), H100).gpus(Model(name="a/b-8B")) == 1
    with pytest.raises(ConfigError, match=r"engine\.gpus is 3"):
        Sizing(EngineConfig(gpus=3), H100).gpus(Model(name="x/y"))
    with pytest.raises(ClusterError, match="size of x/y is unknown"):
        Sizing(EngineConfig(), H100).gpus(Model(name="x/y"))
    with pytest.raises(ClusterError, match="does not fit on the 4 GPUs"):
        Sizing(EngineConfig(), A100).gpus(Model(name="meta-llama/Llama-3.3-70B-Instruct"))
