"""Model repositories run no code of theirs unless the config says so."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.security.traps import Bomb
from tests.tiny_model import make_tiny_model
from vendomini.bench import write_random_model
from vendomini.cluster.prefetch import missing
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.model import load, load_tokenizer
from vendomini.engines.vllm.settings import Settings
from vendomini.errors import EngineUnavailable, VendoMiniError
from vendomini.model_info import model_facts
from vendomini.probe import Capabilities


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


EVIL = """
open({mark!r}, "w")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "evil"
class Evil(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
HOSTILE = {
    "config.json": {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Evil"},
    },
    "tokenizer_config.json": {
        "tokenizer_class": "Tokenizer",
        "auto_map": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
    },
}


def copy(repository: Path, folder: Path) -> Path:
    return Path(shutil.copytree(repository, folder / "model"))


@pytest.mark.parametrize("file", HOSTILE)
def test_code_of_a_model_runs_only_if_the_config_says_so(
    repository: Path, tmp_path: Path, mark: Path, file: str
) -> None:
    model = copy(repository, tmp_path)
    (model / "evil.py").write_text(EVIL.format(mark=str(mark)))
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | HOSTILE[file]))
    refused, allowed = (Model(name=str(model), trust_remote_code=trust) for trust in (False, True))
    assert Model(name="x").trust_remote_code is False
    with pytest.raises(EngineUnavailable, match=r"agent\.model\.trust_remote_code"):
        load(refused, EngineConfig(), Capabilities())
    with suppress(EngineUnavailable):
        load_tokenizer(refused)
    assert not mark.exists()
    assert Settings(refused, EngineConfig(), Capabilities()).engine_args()["trust_remote_code"] is False
    with suppress(EngineUnavailable):
        load(allowed, EngineConfig(), Capabilities())
    assert mark.exists(), "the attack works where it is let"


def test_an_architecture_to_be_measured_brings_no_code(repository: Path, tmp_path: Path, mark: Path) -> None:
    model = copy(repository, tmp_path)
    (model / "evil.py").write_text(EVIL.format(mark=str(mark)))
    code = {name: f"{model}--{path}" for name, path in HOSTILE["config.json"]["auto_map"].items()}
    (model / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()) | {"auto_map": code}))
    write_random_model(model / "config.json", tmp_path / "random")
    assert not mark.exists()


def test_pickled_weights_and_a_hostile_template_run_nothing(repository: Path, tmp_path: Path, mark: Path) -> None:
    import torch

    from vendomini.agent.template import ChatTemplate

    model = copy(repository, tmp_path)
    (model / "model.safetensors").unlink()
    torch.save({"weight": Bomb(mark)}, model / "pytorch_model.bin")
    with pytest.raises((EngineUnavailable, pickle.UnpicklingError)):
        load(Model(name=str(model)), EngineConfig(), Capabilities())
    tokenizer = load_tokenizer(Model(name=str(model)))
    tokenizer.chat_template = "{{ cycler.__init__.__globals__.os.system('touch MARK') }}{{ messages }}".replace(
        "MARK", str(mark)
    )
    with pytest.raises(VendoMiniError, match="unsafe"):
        ChatTemplate(tokenizer, "system")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ("model.safetensors", b"\xff" * 8),
        ("config.json", b'{"num_attention_heads": 1, "hidden_size": 8, "num_hidden_layers": 1000000000000}'),
        ("config.json", b'{"a": ' * 100_000),
        ("config.json", b"[]"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "/dev/zero"}}'),
    ],
)
def test_a_model_is_measured_within_bounds(repository: Path, tmp_path: Path, file: str, content: bytes) -> None:
    model = copy(repository, tmp_path)
    (model / file).write_bytes(content)
    with pytest.raises(EngineUnavailable, match=r"set engine\.gpus"):
        model_facts(str(model), None, Capabilities())


@pytest.mark.parametrize(
    "index", [b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}', b"\xff", b"[" * 100_000]
)
def test_a_model_is_checked_whatever_its_index_is(repository: Path, tmp_path: Path, index: bytes) -> None:
    model = copy(repository, tmp_path)
    (model / "model.safetensors.index.json").write_bytes(index)
    assert "does not say which files hold the weights" in str(missing(Model(name=str(model))))
