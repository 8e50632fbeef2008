"""What vLLM is told, on any machine, and what its log says of its end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import VLLM, machine, wait
from tests.tiny_model import make_tiny_model
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.vllm.caches import cache_variables, copy_back, copy_in, job_cache, warm_cache
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.engines.vllm.process import root_cause
from vendomini.engines.vllm.protocol import Ready
from vendomini.engines.vllm.settings import Settings
from vendomini.engines.vllm.thought import constraint
from vendomini.errors import EngineUnavailable
from vendomini.model_info import model_facts
from vendomini.model_info.formats import FAMILIES, PLAIN, ReplyFormat
from vendomini.probe import Capabilities

BY_NAME = {family.name: family for family in FAMILIES}


def arguments(folder: Path, found: Capabilities, context_length: int = 2048, **engine: Any) -> dict[str, Any]:
    model = Model(name=str(folder), context_length=context_length)
    return Settings(model, EngineConfig(**engine), found).engine_args()


def test_the_context_is_not_longer_than_the_model_was_made_for(tiny: Path) -> None:
    assert arguments(tiny, machine("A100"), context_length=16384)["max_model_len"] == 4096
    assert arguments(tiny, machine("A100"), context_length=1024)["max_model_len"] == 1024
    assert arguments(tiny, machine("A100"), max_model_len=9000)["max_model_len"] == 9000


def test_each_job_compiles_in_a_folder_of_its_own_on_the_node(tiny: Path) -> None:
    settings = Settings(Model(name=str(tiny)), EngineConfig(), machine("A100"))
    assert "VLLM_CACHE_ROOT" not in settings.environ({}, job_cache({}))
    assert job_cache({"SLURM_JOB_ID": "4711", "VLLM_CACHE_ROOT": "/mine"}) is None
    one, other = (job_cache({"SLURM_JOB_ID": "4711"}) for _ in range(2))
    assert one != other
    assert one.stat().st_mode & 0o777 == 0o700, "what lies in it is run"
    environ = settings.environ({"TRITON_CACHE_DIR": "/mine"}, one)
    for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME", "CUDA_CACHE_PATH"):
        assert environ[name].startswith(f"{one}/")
    assert environ["TRITON_CACHE_DIR"] == "/mine"
    one.rmdir()
    other.rmdir()


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({}, str(Path.home() / ".cache" / "huggingface")),
        ({"XDG_CACHE_HOME": "/shared"}, "/shared/huggingface"),
        ({"HF_HOME": "/models"}, None),
    ],
)
def test_moving_the_caches_leaves_the_models_where_they_are(
    tmp_path: Path, environ: dict[str, str], home: str | None
) -> None:
    assert cache_variables(environ, tmp_path).get("HF_HOME") == home


def compiled(folder: Path, text: str) -> Path:
    (folder / "vllm" / "torch_compile_cache").mkdir(parents=True)
    (folder / "vllm" / "torch_compile_cache" / "graph.py").write_text(text)
    (folder / "xdg").mkdir()
    return folder


def test_what_one_job_compiled_serves_the_next(tmp_path: Path) -> None:
    warm = warm_cache({"XDG_CACHE_HOME": str(tmp_path / "home")}, "0.32.0", "2.13.0", "A100", "org/model")
    first, second, third = compiled(tmp_path / "a", "one"), compiled(tmp_path / "b", "two"), tmp_path / "c"
    third.mkdir()
    assert not copy_in(warm, third)
    assert copy_back(first, warm)
    assert not copy_back(second, warm), "the first of several jobs wins"
    assert copy_in(warm, third)
    assert (third / "vllm/torch_compile_cache/graph.py").read_text() == "one"
    assert not (third / "xdg").exists()
    assert [entry.name for entry in warm.parent.iterdir()] == [warm.name], "nothing half-copied is left"


def test_a_compiled_cache_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    warm, cache = compiled(tmp_path / "warm", "evil"), tmp_path / "cache"
    cache.mkdir()
    warm.chmod(0o777)
    assert not copy_in(warm, cache)
    assert list(cache.iterdir()) == []


def test_another_version_gpu_model_or_shape_has_another_compiled_cache(tiny: Path) -> None:
    def of(card: str, **engine: Any) -> Path:
        return Settings(Model(name=str(tiny)), EngineConfig(**engine), machine(card)).warm_cache({})

    assert of("A100") == of("A100")
    assert len({of("A100"), of("H200"), of("A100", max_model_len=512), of("A100", enforce_eager=True)}) == 4


def test_answers_that_do_not_depend_on_the_batch_can_be_asked_for(tiny: Path) -> None:
    def environ(**engine: Any) -> dict[str, str]:
        return Settings(Model(name=str(tiny)), EngineConfig(**engine), machine("A100")).environ({})

    assert environ(batch_invariant=True)["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in environ()


class NeverStarts(VllmEngine):
    """Every start fails for the same reason; counts them."""

    reason, starts = "", 0

    async def _launch(self) -> Ready:
        self.starts += 1
        raise EngineUnavailable(self.reason)


@pytest.mark.parametrize(
    ("reason", "starts"),
    [
        ("OSError: [Errno 98] Address already in use", 3),
        ("OSError: [Errno 116] Stale file handle: '/home/me/.cache/vllm'", 3),
        ("RuntimeError: can't write to /dev/shm", 3),
        ("FileNotFoundError: '/tmp/torchinductor_me/ab/cab.py'", 3),
        ("ValueError: max_model_len is too long", 1),
        ("torch.OutOfMemoryError: CUDA out of memory", 1),
    ],
)
def test_a_start_that_failed_for_a_passing_reason_is_tried_again(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, reason: str, starts: int
) -> None:
    monkeypatch.setattr("vendomini.engines.vllm.engine.START_AGAIN_S", (0.0, 0.0))
    lines: list[str] = []
    engine = NeverStarts(Model(name=str(tiny)), EngineConfig(), machine("A100"), lines.append)
    engine.reason = reason
    with pytest.raises(EngineUnavailable):
        wait(engine.start())
    assert (engine.starts, len(lines)) == (starts, starts - 1)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("OSError: [Errno 98] Address already in use", True), ("RuntimeError: torch_compile_cache is truncated", False)],
)
def test_what_was_compiled_is_forgotten_where_it_may_be_the_cause(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, kept: bool
) -> None:
    """Else every later job would begin with the same copy, and fail once."""
    monkeypatch.setattr("vendomini.engines.vllm.engine.START_AGAIN_S", (0.0,))
    engine = NeverStarts(Model(name=str(tiny)), EngineConfig(), machine("A100"), [].append)
    engine.reason, engine._cache, engine._warm = reason, compiled(tmp_path / "a", "x"), compiled(tmp_path / "warm", "x")
    with pytest.raises(EngineUnavailable):
        wait(engine.start())
    assert (tmp_path / "a" / "vllm").exists() == kept
    assert sorted(entry.name for entry in tmp_path.iterdir()) == (["a", "warm"] if kept else ["a"])


def test_little_shared_memory_is_announced_where_several_ranks_need_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendomini.engines.vllm.settings.SHARED_MEMORY_PER_RANK", 1 << 60)
    for cards, announced in ((("A100",), 0), (("A100", "A100"), 1)):
        lines: list[str] = []
        engine = NeverStarts(Model(name=str(tiny)), EngineConfig(), machine(*cards), lines.append)
        with pytest.raises(EngineUnavailable):
            wait(engine.start())
        assert sum("--shm-size" in line for line in lines) == announced


def test_gpus_that_stay_idle_are_announced(tiny: Path) -> None:
    def line(*cards: str) -> str | None:
        return Settings(Model(name=str(tiny)), EngineConfig(), machine(*cards)).reduced_gpus()

    assert line("A100", "A100", "A100") == "[*] 2 attention heads: using 2 of 3 GPUs"
    assert line("A100", "A100") is None


def test_vllm_is_told_how_the_family_marks_a_thought(tiny: Path) -> None:
    def told(form: ReplyFormat, **engine_args: Any) -> Any:
        settings = Settings(Model(name=str(tiny)), EngineConfig(engine_args=engine_args), machine("A100"))
        return settings.engine_args(form).get("reasoning_config")

    think, harmony = BY_NAME["think"], BY_NAME["harmony"]
    assert told(think) == {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}
    assert told(harmony)["reasoning_end_str"] == "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert told(think, reasoning_config={"reasoning_end_str": "x"}) == {"reasoning_end_str": "x"}
    assert told(think, reasoning_parser="qwen3") is None
    assert told(PLAIN) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("opened", [False, True])
def test_the_grammar_begins_with_the_answer_in_every_family(family: ReplyFormat, opened: bool) -> None:
    """vLLM's own grammar library takes thought, header and answer, and nothing but JSON as the answer."""
    xgrammar = pytest.importorskip("xgrammar")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    asked = constraint(schema, replace(family, opened=opened))
    grammar = xgrammar.Grammar.from_structural_tag(asked["structural_tag"])
    begin = "" if opened else family.start

    def takes(text: str) -> bool:
        compiled = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([])).compile_grammar(grammar)
        return bool(xgrammar.GrammarMatcher(compiled).accept_string(text))

    assert takes(begin + 'I may {"b": 2}.' + family.end + family.header + '{"a": 1}')
    assert not takes(begin + "I may." + family.end + family.header + "So")
    assert takes(family.header + '{"a": 1}') or opened
    assert constraint(schema, None) == {"json": schema}


def test_phi_4_takes_two_of_four_gpus(tmp_path: Path) -> None:
    """vLLM asserts that the 10 KV heads divide among the GPUs, or the GPUs among them."""
    heads = {"num_attention_heads": 40, "num_key_value_heads": 10, "hidden_size": 5120, "intermediate_size": 17920}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi3", "num_hidden_layers": 40, **heads}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 1000)
    found = machine("A100", "A100", "A100", "A100")
    settings = Settings(Model(name=str(tmp_path)), EngineConfig(), found)
    assert settings.engine_args()["tensor_parallel_size"] == 2
    assert settings.reduced_gpus() == "[*] 10 KV heads and layers of 17920: using 2 of 4 GPUs"


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

IN_USE = """\
(EngineCore_0 pid=892764) INFO 09-10 23:09:10 [parallel_state.py:1134] rank 0 in world size 1 is assigned as DP rank 0
(EngineCore_0 pid=892764) ERROR 09-10 23:09:12 [core.py:718] torch.distributed.DistNetworkError: The server socket has \
failed to listen on any local network address. port: 43301, useIpv6: false, code: -98, name: EADDRINUSE, message: \
address already in use
Exception: See root cause above.
"""

INSPECTED = """\
ERROR 11-25 10:48:20 [registry.py:1] Error in inspecting model architecture 'X'
ERROR 11-25 10:48:20 [registry.py:1] Traceback (most recent call last):
ERROR 11-25 10:48:20 [registry.py:1] ModuleNotFoundError: No module named 'torchvision'
"""


@pytest.mark.parametrize(
    ("said", "log", "cause"),
    [
        ("RuntimeError: Engine core initialization failed. See root cause.", LOG, "torch.OutOfMemoryError: CUDA out"),
        (
            "ValidationError: Model architectures ['X'] failed to be inspected.",
            INSPECTED,
            "No module named 'torchvision'",
        ),
        ("ValueError: too long", LOG, "ValueError: too long"),
        (
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
            IN_USE,
            "EADDRINUSE, message: address already in use",
        ),
        ("RuntimeError: Engine core initialization failed.", "", "was killed, or crashed without a word"),
    ],
)
def test_the_root_cause_is_the_last_exception_that_is_not_second_hand(
    tmp_path: Path, said: str, log: str, cause: str
) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    assert cause in root_cause(said, file)


def test_a_cpu_without_bfloat16_computes_in_float32_where_that_fits(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, dtype="bfloat16")
    cpu = replace(machine(packages=(replace(VLLM, platform="cpu"),)), bfloat16=False)
    many = EngineConfig(max_num_seqs=4000)
    stored = Settings(Model(name=str(folder)), many, replace(cpu, bfloat16=True))
    wide = Settings(Model(name=str(folder)), many, cpu)
    assert (stored.engine_args()["dtype"], wide.engine_args()["dtype"]) == ("auto", "float32")
    assert arguments(folder, replace(cpu, memory=100_000))["dtype"] == "auto"
    assert Settings(Model(name=str(folder), dtype="bfloat16"), EngineConfig(), cpu).engine_args()["dtype"] == "bfloat16"
    assert arguments(folder, replace(machine("A100"), bfloat16=False))["dtype"] == "auto"
    facts = model_facts(str(folder), None, cpu)
    needed = 4000 * facts.kv_bytes(4096)
    for settings, times in ((stored, 1), (wide, 2)):
        assert settings.environ({})["VLLM_CPU_KVCACHE_SPACE"] == str(1 + times * needed // (1 << 30))
