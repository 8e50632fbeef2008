"""What vLLM is told, on any machine, and what its log says of its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import VLLM, machine
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.vllm.process import root_cause
from vendomini.engines.vllm.settings import Settings, job_cache
from vendomini.probe import Capabilities


def arguments(folder: Path, found: Capabilities, context_length: int = 2048, **engine: Any) -> dict[str, Any]:
    model = Model(name=str(folder), context_length=context_length)
    return Settings(model, EngineConfig(**engine), found).engine_args()


def test_the_context_is_not_longer_than_the_model_was_made_for(tiny: Path) -> None:
    assert arguments(tiny, machine("A100"), context_length=16384)["max_model_len"] == 4096
    assert arguments(tiny, machine("A100"), context_length=1024)["max_model_len"] == 1024
    assert arguments(tiny, machine("A100"), max_model_len=9000)["max_model_len"] == 9000


def test_each_job_compiles_in_a_cache_of_its_own(tiny: Path) -> None:
    settings = Settings(Model(name=str(tiny)), EngineConfig(), machine("A100"))
    assert "VLLM_CACHE_ROOT" not in settings.environ({}, job_cache({}))
    assert job_cache({"SLURM_JOB_ID": "4711", "VLLM_CACHE_ROOT": "/mine"}) is None
    one, other = (job_cache({"SLURM_JOB_ID": "4711"}) for _ in range(2))
    assert one != other
    assert one.stat().st_mode & 0o777 == 0o700, "what lies in it is run"
    assert settings.environ({}, one)["VLLM_CACHE_ROOT"] == str(one)
    one.rmdir()
    other.rmdir()


def test_gpus_that_stay_idle_are_announced(tiny: Path) -> None:
    def line(*cards: str) -> str | None:
        return Settings(Model(name=str(tiny)), EngineConfig(), machine(*cards)).reduced_gpus()

    assert line("A100", "A100", "A100") == "[*] 2 attention heads: using 2 of 3 GPUs"
    assert line("A100", "A100") is None


def test_tensor_parallelism_takes_the_gpus_of_the_job_that_the_heads_divide_among(tiny: Path) -> None:
    assert arguments(tiny, machine("A100", "A100", "A100"))["tensor_parallel_size"] == 2
    assert arguments(tiny, machine("A100", "A100"), gpus=1)["tensor_parallel_size"] == 1
    assert arguments(tiny, machine("A100"))["tensor_parallel_size"] == 1


def test_engine_args_have_the_last_word_and_cpus_their_own_rules(tiny: Path) -> None:
    assert arguments(tiny, machine("A100"), engine_args={"max_num_seqs": 3, "seed": 5})["seed"] == 5
    cpu = arguments(tiny, machine(packages=(replace(VLLM, platform="cpu"),)))
    assert (cpu["enable_chunked_prefill"], cpu["max_num_batched_tokens"]) == (False, 2048)
    assert "enable_chunked_prefill" not in arguments(tiny, machine("A100", packages=(VLLM,)))


def test_one_process_computes_on_cpus_and_nothing_polls_it(tiny: Path) -> None:
    def settings(**engine_args: int) -> Settings:
        found = machine(packages=(replace(VLLM, platform="cpu"),))
        return Settings(Model(name=str(tiny)), EngineConfig(engine_args=engine_args), found)

    alone, two = settings(), settings(tensor_parallel_size=2)
    assert alone.engine_args()["distributed_executor_backend"] == "uni"
    assert alone.environ({})["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "distributed_executor_backend" not in two.engine_args()
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in two.environ({})


LOG = """\
(Worker_TP0 pid=7) ERROR 11-23 10:48:20 [multiproc_executor.py:1] WorkerProc failed to start.
(Worker_TP0 pid=7) ERROR 11-23 10:48:20 [multiproc_executor.py:1] Traceback (most recent call last):
(Worker_TP0 pid=7) ERROR 11-23 10:48:20 [multiproc_executor.py:1] torch.OutOfMemoryError: CUDA out of memory.
(EngineCore pid=6) ERROR 11-23 10:48:21 [core.py:1] Exception: WorkerProc initialization failed due to an exception
"""


@pytest.mark.parametrize(
    ("said", "log", "cause"),
    [
        ("RuntimeError: Engine core initialization failed. See root cause.", LOG, "torch.OutOfMemoryError: CUDA out"),
        ("ValueError: too long", LOG, "ValueError: too long"),
        ("RuntimeError: Engine core initialization failed.", "", "was killed, or crashed without a word"),
    ],
)
def test_the_root_cause_is_the_last_exception_that_is_not_second_hand(
    tmp_path: Path, said: str, log: str, cause: str
) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    assert cause in root_cause(said, file)
