"""The fallback chain: what is decided for which machine, and the exact lines of the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.engines.conftest import BROKEN_FLASH, FLASH, TRANSFORMERS, VLLM, Conversation, machine, wait
from vendomini.config.schema import BACKENDS, EngineConfig, Model
from vendomini.engines import Engine, SamplingParams
from vendomini.engines.hf.attention import attention_choices, attention_line
from vendomini.engines.registry import BUILT_IN
from vendomini.engines.resolve import print_line, start_engine, too_large, vllm_refusal, wants_vllm
from vendomini.errors import ConfigError, EngineUnavailable
from vendomini.probe import Capabilities, Package

OLD_CUDA = Package("torch", "2.6.0", True, "installed", "cuda 11.7")
FLASH_3 = Package("flash_attn_3", "3.0.0", True, "imports", "cuda")


def with_flash(*gpus: str, more: tuple[Package, ...] = ()) -> Capabilities:
    """A machine with these GPUs, on which Flash Attention 2 is installed."""
    return machine(*gpus, packages=(FLASH, *more))


@pytest.mark.parametrize(
    ("found", "choices"),
    [
        (with_flash("A100"), ["flash_attention_2", "sdpa", "eager"]),
        (machine("A100"), ["sdpa", "eager"]),
        (machine("A100", packages=(BROKEN_FLASH,)), ["sdpa", "eager"]),
        (with_flash("V100"), ["sdpa", "eager"]),
        (with_flash("4090", more=(FLASH_3,)), ["flash_attention_2", "sdpa", "eager"]),
        (with_flash("H200", more=(FLASH_3,)), ["flash_attention_3", "flash_attention_2", "sdpa", "eager"]),
        (with_flash("A100", "V100"), ["sdpa", "eager"]),
        (with_flash(), ["sdpa", "eager"]),
        (with_flash("A100", more=(OLD_CUDA,)), ["sdpa", "eager"]),
    ],
)
def test_attention_is_the_fastest_that_the_weakest_gpu_can_run(found: Capabilities, choices: list[str]) -> None:
    assert attention_choices(found, "auto") == choices


def test_attention_that_was_asked_for_stands_alone() -> None:
    assert attention_choices(with_flash("A100"), "eager") == ["eager"]


@pytest.mark.parametrize(
    ("found", "attention", "line"),
    [
        (with_flash("A100"), "flash_attention_2", "[*] Using Flash Attention 2 (GPU compute capability: (8, 0))"),
        (with_flash("4090"), "flash_attention_2", "[*] Using Flash Attention 2 (GPU compute capability: (8, 9))"),
        (
            with_flash("H200", more=(FLASH_3,)),
            "flash_attention_3",
            "[*] Using Flash Attention 3 (GPU compute capability: (9, 0))",
        ),
        (machine("A100"), "eager", "[*] Flash Attention not installed, using eager attention (slower)"),
        (machine(), "sdpa", "[*] Flash Attention not installed, using sdpa attention (slower)"),
        (
            with_flash("V100"),
            "sdpa",
            "[*] Flash Attention needs GPU compute capability >= (8, 0), this is (7, 0), using sdpa attention (slower)",
        ),
        (
            with_flash("A100", more=(OLD_CUDA,)),
            "sdpa",
            "[*] Flash Attention needs CUDA 11.8 or newer, torch is built for cuda 11.7, using sdpa attention (slower)",
        ),
        (
            machine("A100", packages=(BROKEN_FLASH,)),
            "sdpa",
            "[*] Flash Attention installed, but its import fails: ImportError: undefined symbol, "
            "using sdpa attention (slower)",
        ),
    ],
)
def test_the_log_says_what_the_loaded_model_reports(found: Capabilities, attention: str, line: str) -> None:
    assert attention_line(attention, found) == line


@pytest.mark.parametrize(
    ("found", "refusal"),
    [
        (machine("A100", packages=(VLLM,)), None),
        (machine("V100", packages=(VLLM,)), None),
        (machine("P100", packages=(VLLM,)), "vLLM needs GPU compute capability >= (7, 0), this is (6, 0)"),
        (machine("A100", "P100", packages=(VLLM,)), "vLLM needs GPU compute capability >= (7, 0), this is (6, 0)"),
        (machine("A100"), 'vLLM is not installed: pip install "vendomini[vllm]"'),
        (machine(packages=(replace(VLLM, platform="cpu"),)), None),
        (
            machine(packages=(VLLM,)),
            "vLLM 0.32.0 is built for CUDA and there is no GPU (nvidia-smi is not installed)",
        ),
        (
            machine("A100", packages=(replace(VLLM, works=False, reason="is too old: 0.24 is needed"),)),
            "vLLM 0.32.0 is too old: 0.24 is needed",
        ),
    ],
)
def test_vllm_is_passed_over_with_a_reason(found: Capabilities, refusal: str | None) -> None:
    assert vllm_refusal(EngineConfig(), {}, found) == refusal


@pytest.mark.parametrize(
    ("backend", "variable", "asked", "refusal"),
    [
        ("auto", None, False, None),
        ("auto", "1", True, None),
        ("auto", "0", False, "VENDOMINI_USE_VLLM=0 forbids it"),
        ("vllm", None, True, None),
        ("vllm", "0", False, "VENDOMINI_USE_VLLM=0 forbids it"),
        ("hf", "1", False, "engine.backend is hf"),
    ],
)
def test_the_variable_asks_for_vllm_or_forbids_it(
    backend: str, variable: str | None, asked: bool, refusal: str | None
) -> None:
    environ = {} if variable is None else {"VENDOMINI_USE_VLLM": variable}
    engine = EngineConfig.model_validate({"backend": backend})
    assert wants_vllm(engine, environ) is asked
    assert vllm_refusal(engine, environ, machine("A100", packages=(VLLM,))) == refusal


def test_another_value_of_the_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="must be 1, 0 or unset, not 'yes'"):
        wants_vllm(EngineConfig(), {"VENDOMINI_USE_VLLM": "yes"})


def test_a_model_that_cannot_fit_is_not_tried_on_vllm(tiny: Path) -> None:
    model = Model(name=str(tiny), context_length=1024)
    assert too_large(model, EngineConfig(), machine("A100")) is None
    refusal = too_large(model, EngineConfig(gpu_memory_utilization=0.01), machine("A100"))
    assert refusal is not None
    assert "leaves no room for keys and values: 1 x (40.0 GiB x 0.01 - 2.0 GiB)" in refusal
    assert too_large(model, EngineConfig(gpu_memory_utilization=0.01), machine()) is None


@pytest.mark.parametrize(
    ("name", "backend", "message"),
    [
        ("org/model", "scripted", "runs controls such as scripted/oracle"),
        ("scripted/oracle", "hf", "is a control of the scripted engine: engine.backend must be auto or scripted"),
        ("scripted/oracle", "openai", "is a control of the scripted engine"),
        ("org/model", "openai", r"needs engine\.base_url"),
    ],
)
def test_contradictions_are_config_errors(name: str, backend: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wait(start_engine(Model(name=name), EngineConfig.model_validate({"backend": backend}), machine()))


def test_a_control_needs_no_probe_and_no_model() -> None:
    engine = wait(start_engine(Model(name="scripted/oracle"), EngineConfig(), None))
    assert engine.info.backend == "scripted"


def test_a_model_not_in_the_cache_while_offline_names_the_prefetch_line(offline: Capabilities) -> None:
    with pytest.raises(EngineUnavailable, match="run `vendomini prefetch org/model`"):
        wait(start_engine(Model(name="org/model"), EngineConfig(), offline))


def test_vllm_that_is_missing_but_asked_for_falls_back_with_the_lines_of_the_contract(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOMINI_USE_VLLM", "1")
    lines: list[str] = []
    engine = wait(start_and_close(Model(name=str(tiny), context_length=1024), machine(packages=TRANSFORMERS), lines))
    assert lines == [
        '[WARNING] vLLM initialization failed: vLLM is not installed: pip install "vendomini[vllm]"',
        "[*] Falling back to standard HuggingFace Transformers",
        "[*] Flash Attention not installed, using sdpa attention (slower)",
    ]
    assert engine.info.backend == "hf"
    assert engine.info.rejected == {"vllm": 'vLLM is not installed: pip install "vendomini[vllm]"'}


def test_vllm_that_nobody_asked_for_is_passed_over_silently(tiny: Path) -> None:
    lines: list[str] = []
    engine = wait(start_and_close(Model(name=str(tiny), context_length=1024), machine(packages=TRANSFORMERS), lines))
    assert lines == ["[*] Flash Attention not installed, using sdpa attention (slower)"]
    assert engine.info.rejected == {"vllm": 'vLLM is not installed: pip install "vendomini[vllm]"'}
    assert engine.info.attention == "sdpa"


def test_attention_that_does_not_load_is_an_engine_that_is_unavailable(tiny: Path) -> None:
    config = EngineConfig(backend="hf", attn_implementation="flash_attention_2")
    with pytest.raises(EngineUnavailable, match="flash_attention_2"):
        wait(
            start_engine(Model(name=str(tiny), context_length=1024), config, machine(packages=TRANSFORMERS), [].append)
        )


def test_when_no_engine_can_run_a_model_each_says_why(tiny: Path) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        wait(start_engine(Model(name=str(tiny), context_length=1024), EngineConfig(), machine(), [].append))
    assert str(caught.value) == (
        f'no engine here can run {tiny} (vllm: vLLM is not installed: pip install "vendomini[vllm]"; '
        'hf: torch is not installed: pip install "vendomini[hf]")'
    )


def test_never_falling_back_stops_at_the_engine_that_was_asked_for(tiny: Path) -> None:
    config = EngineConfig(backend="vllm", fallback="never")
    lines: list[str] = []
    with pytest.raises(EngineUnavailable, match=r"engine\.fallback is never \(vllm: vLLM is not installed: "):
        wait(start_engine(Model(name=str(tiny)), config, machine(packages=TRANSFORMERS), lines.append))
    assert lines == []


def test_auto_that_never_falls_back_takes_the_first_engine_that_this_machine_can_run(tiny: Path) -> None:
    model, config = Model(name=str(tiny), context_length=1024), EngineConfig(fallback="never")
    engine = wait(start_and_close(model, machine(packages=TRANSFORMERS), [], config))
    assert engine.info.backend == "hf"


def test_every_name_of_the_config_has_its_engine() -> None:
    assert {"auto", *BUILT_IN} == set(BACKENDS)


PARROT = """
from vendomini.engines import Completion, Engine, EngineInfo
from vendomini.engines.registry import Backend

class Parrot(Engine):
    max_num_seqs = 4

    def __init__(self, model, *_):
        self.info = EngineInfo("parrot", model.name)

    async def generate(self, prompt, params):
        return Completion("hello", "stop", len(prompt.token_ids), 1)

BACKEND = Backend("parrot", Parrot, "the parrot", gpus=False, model_files=False)
"""


@pytest.fixture
def parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with an engine of its own, as pip would install it."""
    (tmp_path / "parrot_engine.py").write_text(PARROT)
    info = tmp_path / "parrot-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vendomini.engines]\nparrot = parrot_engine:BACKEND\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("parrot")
def test_another_package_brings_an_engine_through_its_entry_point() -> None:
    async def run() -> str:
        config = EngineConfig(backend="parrot")
        async with await start_engine(Model(name="any/bird"), config, None) as engine:
            return (await engine.generate(Conversation([1]), SamplingParams(5))).text

    assert wait(run()) == "hello"


def test_an_engine_that_no_package_brings_is_named_with_those_that_are_there() -> None:
    with pytest.raises(ValidationError, match="'auto', 'vllm', 'hf', 'scripted' or 'openai'"):
        EngineConfig(backend="parrot")


def test_lines_reach_a_log_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("[*] one")
    assert capsys.readouterr().out == "[*] one\n"


async def start_and_close(
    model: Model, found: Capabilities, lines: list[str], config: EngineConfig | None = None
) -> Engine:
    engine = await start_engine(model, config or EngineConfig(), found, lines.append)
    await engine.close()
    return engine
