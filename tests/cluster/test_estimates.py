"""The guide's numbers, and what is measured in their place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster.described import offers
from tests.engines.test_model_info import guide_case
from vendomini.cluster.estimate import estimate
from vendomini.cluster.offers import Offers
from vendomini.cluster.plan import Shape, arrays
from vendomini.cluster.replicas import part_of_the_gpus
from vendomini.cluster.site import Cluster, Gpus, gpus_of
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.throughput import ENGINES, Measurement, Throughput, billions, published_step_s
from vendomini.config import load_config
from vendomini.config.schema import EngineConfig, Model
from vendomini.errors import ClusterError, ConfigError
from vendomini.probe import Partition
from vendomini.records import RunSummary, Shard

H100, A100 = offers("gpu:h100:8"), offers("gpu:a100_40gb:4")


@pytest.mark.parametrize(
    ("size", "tasks", "steps", "hours"),
    [(32, 880, 500, (440, 176, 44)), (70, 880, 500, (880, 326, 88)), (32, 440, 5000, (440, 176, 22))],
)
def test_the_guides_table(size: float, tasks: int, steps: int, hours: tuple[float, ...]) -> None:
    found = [tasks * steps * published_step_s(size, engine, steps) / 3600 for engine in ENGINES]
    assert found == pytest.approx(hours)


@pytest.mark.parametrize(("site", "gpus"), [(H100, 4), (offers("gpu:a100_40gb:8"), 8)])
def test_a_model_that_is_here_is_sized_by_its_files(tmp_path: Path, site: Offers, gpus: int) -> None:
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
    assert [(row.tasks, row.gpus) for row in rows] == [(210, 2), (210, 4), (210, 1), (210, 4)]
    assert rows[0].hours == pytest.approx({"standard": 105, "flash": 42, "vllm": 10.5})
    assert rows[0].gpu_hours == pytest.approx(21)
    assert set(rows[0].sources.values()) == {"published estimate"}


def test_what_was_measured_replaces_what_was_published() -> None:
    measured = {("Qwen/Qwen3-32B", "vllm"): Throughput(step_s=0.1, tokens_s=900)}
    row = estimate(load_config("configs/phases/phase1_large_models.yaml"), H100, measured)[0]
    assert row.hours["vllm"] == pytest.approx(210 * 500 * 0.1 / 3600)
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


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:nvidia_h100_80gb_hbm3:8", [Gpus("nvidia_h100_80gb_hbm3", 8)]),
        ("gpu:2080ti:8(S:0-1)", [Gpus("2080ti", 8)]),
        ("gpu:8", [Gpus("", 8)]),
        ("gpu:1g.10gb:7,gpu:a100_3g.40gb:2(S:0),shard:16", [Gpus("1g.10gb", 7), Gpus("a100_3g.40gb", 2)]),
        ("gpu:a100:no_consume:4", [Gpus("a100", 4)]),
        ("craynetwork:4,gpu:gh200_480gb:1", [Gpus("gh200_480gb", 1)]),
        ("(null)", []),
    ],
)
def test_gpus_of_a_node(gres: str, gpus: list[Gpus]) -> None:
    assert gpus_of(gres) == gpus


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu:nvidia_h100_80gb_hbm3:8", 4), ("gpu:nvidia_b200:8", 2), ("gpu:a100:8", 8), ("gpu:mystery:8", 8)],
)
def test_70b_on_a_gpu_by_its_type(gres: str, gpus: int) -> None:
    assert Sizing(EngineConfig(), offers(gres)).gpus(Model(name="a/b-70B")) == gpus


def test_kinds_of_gpu_that_differ_by_node(tmp_path: Path) -> None:
    """Planned by the smallest that a job may come to, unless its template names a type."""
    mixed = offers("gpu:h200:8,gpu:2080ti:4")
    assert Sizing(EngineConfig(), mixed).gpus(Model(name="a/b-8B")) == 4
    assert Sizing(EngineConfig(), mixed).gpus(Model(name="a/b-32B")) == 8, "only the larger nodes have eight"
    shutil.copytree("slurm", tmp_path / "slurm")
    one = tmp_path / "slurm" / "gpu1.sbatch"
    one.write_text(one.read_text().replace("--gpus-per-node=1 ", "--gpus-per-node=h200:1 "))
    typed = offers("gpu:h200:8,gpu:2080ti:4", templates=tmp_path / "slurm")
    assert Sizing(EngineConfig(), typed).gpus(Model(name="a/b-8B")) == 1


def test_small_models_share_a_node_that_is_given_as_a_whole(tmp_path: Path) -> None:
    sizing = Sizing(EngineConfig(), H100, whole_nodes=True)
    small, large = Model(name="a/b-8B"), Model(name="a/b-70B")
    assert (sizing.shape(small), sizing.shape(large)) == (Shape(8, 1, 8), Shape(8, 1, 2))
    assert sizing.shape(Model(name="scripted/oracle")) == Shape(0)
    alone = Sizing(EngineConfig(), H100).pace(small, Shape(1), 500)
    shared = sizing.pace(small, Shape(8, 1, 8), 500)
    assert (shared.step_s, shared.concurrency) == (alone.step_s / 8, alone.concurrency * 8)
    shutil.copytree("slurm", tmp_path / "slurm")
    one = tmp_path / "slurm" / "gpu1.sbatch"
    one.write_text(one.read_text().replace("#SBATCH --requeue", "#SBATCH --exclusive\n#SBATCH --requeue"))
    assert Sizing(EngineConfig(), offers(templates=tmp_path / "slurm")).shape(small) == Shape(8, 1, 8)


def test_transformers_gets_an_engine_for_as_few_gpus_as_hold_the_model_well() -> None:
    """On one engine's GPUs its layers would run one after another."""

    def shape(size: str, gpus: int | None = None, backend: str = "hf", whole: bool = False) -> Shape:
        config = EngineConfig(backend=backend, gpus=gpus)
        return Sizing(config, H100, whole_nodes=whole).shape(Model(name=f"a/b-{size}"))

    assert shape("8B", 4) == Shape(4, 1, 4)
    assert shape("8B", 4, "vllm") == Shape(4)
    assert shape("32B", 4) == Shape(4, 1, 2), "64 GB of weights are too much of 80 GB"
    assert shape("70B", 4) == Shape(4)
    assert shape("70B", 8) == Shape(8, 1, 2)
    assert shape("32B", whole=True) == Shape(8, 1, 4)
    assert shape("8B", 1) == Shape(1)


def test_several_partitions() -> None:
    rows = (
        Partition("gpu", True, "1-00:00:00", 4, "gpu:h100:8", "up"),
        Partition("old", False, "infinite", 4, "gpu:v100:4", "up"),
    )
    cluster = Cluster(rows, 1001, live=False)
    both = cluster.site("gpu,old")
    assert (both.partition, both.max_minutes, both.gpus_per_node) == ("gpu,old", None, 8)
    assert (both.gpu_memory_gb(1), both.gpu_memory_gb(8)) == (16, 80)
    with pytest.raises(ClusterError, match="there is no partition 'new'"):
        cluster.site("gpu,new")


def test_a_site_without_arrays() -> None:
    shards = [(Shape(0), Shard(model="m", run_ids=[str(k)], seconds=1.0)) for k in range(3)]
    assert [len(some) for _, some in arrays(shards, 0)] == [1, 1, 1]


@pytest.mark.parametrize(("replica", "gpus"), [(0, "0,1"), (3, "6,7")])
def test_the_gpus_of_one_engine(replica: int, gpus: str) -> None:
    listed = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
    assert part_of_the_gpus(listed, replica, 4, 8) == {"CUDA_VISIBLE_DEVICES": gpus}
    assert part_of_the_gpus({}, replica, 4, 8) == {"CUDA_VISIBLE_DEVICES": gpus}
    named = {"ROCR_VISIBLE_DEVICES": ",".join(f"GPU-{k}" for k in range(8))}
    expected = ",".join(f"GPU-{k}" for k in gpus.split(","))
    assert part_of_the_gpus(named, replica, 4, 8) == {"ROCR_VISIBLE_DEVICES": expected}
