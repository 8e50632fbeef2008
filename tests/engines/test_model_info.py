"""What models need, from files as the Hub has them (written here), on the guide's own cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import machine
from vendomini.errors import EngineUnavailable
from vendomini.model_info import GIB, ModelFacts, fit, locate, model_facts, recommend, smallest_fit
from vendomini.probe import Capabilities, HFCache

LLAMA_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
}
QWEN_32B = LLAMA_70B | {"hidden_size": 5120, "num_hidden_layers": 64, "head_dim": 128}
DEEPSEEK_7B = {
    "hidden_size": 4096,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "torch_dtype": "bfloat16",
}
SIZES = {"70B": (LLAMA_70B, 141_107_412_992), "32B": (QWEN_32B, 65_524_246_528), "7B": (DEEPSEEK_7B, 13_820_731_392)}


def described(folder: Path, config: dict[str, Any], weight_bytes: int = 1000) -> ModelFacts:
    """Facts of a model of which only the configuration and the index are here."""
    (folder / "config.json").write_text(json.dumps(config))
    index = {"metadata": {"total_size": weight_bytes}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return model_facts(str(folder), None, machine())


def guide_case(folder: Path, size: str) -> ModelFacts:
    return described(folder, *SIZES[size])


def test_70b_on_four_40_gb_gpus_leaves_no_room_and_on_eight_it_does(tmp_path: Path) -> None:
    facts = guide_case(tmp_path, "70B")
    four = fit(facts, gpus=4, memory=40 * GIB, tokens=16384)
    eight = fit(facts, gpus=8, memory=40 * GIB, tokens=16384)
    assert not four.fits
    assert eight.conversations >= 16
    assert four.arithmetic == (
        "4 x (40.0 GiB x 0.9 - 2.0 GiB) - 131.4 GiB weights = 4.6 GiB for KV; 5.0 GiB for 16384 tokens"
    )


@pytest.mark.parametrize(("size", "gpus", "memory"), [("7B", 1, 24), ("7B", 1, 40), ("32B", 1, 80), ("32B", 2, 40)])
def test_7b_to_32b_fit_on_one_gpu_or_more(tmp_path: Path, size: str, gpus: int, memory: int) -> None:
    facts = guide_case(tmp_path, size)
    found = smallest_fit(facts, memory=memory * GIB, tokens=8192)
    assert found is not None
    assert found.gpus == gpus


@pytest.mark.parametrize(
    ("size", "gpus", "steps", "vllm"),
    [
        ("7B", 1, 500, "when throughput matters"),
        ("32B", 4, 500, "when throughput matters"),
        ("70B", 4, 500, "avoid"),
        ("70B", 8, 500, "yes"),
        ("32B", 4, 5000, "strongly recommended"),
        ("70B", 8, 5000, "strongly recommended"),
        ("70B", 4, 5000, "avoid"),
    ],
)
def test_recommendations_agree_with_the_guide(tmp_path: Path, size: str, gpus: int, steps: int, vllm: str) -> None:
    facts = guide_case(tmp_path, size)
    advice = recommend(facts, gpus=gpus, memory=40 * GIB, capability=(8, 0), tokens=16384, steps=steps)
    assert (advice.flash_attention, advice.vllm) == ("yes", vllm)
    assert "weights" in advice.why


def test_flash_attention_is_not_recommended_below_8(tmp_path: Path) -> None:
    advice = recommend(guide_case(tmp_path, "7B"), gpus=1, memory=32 * GIB, capability=(7, 0), tokens=8192, steps=500)
    assert advice.flash_attention == "no: compute capability (7, 0) is below (8, 0)"


def test_grouped_queries_multiply_keys_and_values_by_the_kv_heads(tmp_path: Path) -> None:
    assert described(tmp_path, LLAMA_70B).kv_bytes(1) == 2 * 80 * 8 * 128 * 2


def test_latent_attention_keeps_one_latent_and_one_rotary_key(tmp_path: Path) -> None:
    facts = described(tmp_path, DEEPSEEK_7B | {"kv_lora_rank": 512, "qk_rope_head_dim": 64})
    assert facts.kv_bytes(1) == 30 * (512 + 64) * 2


def test_sliding_layers_stop_growing_at_their_window(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "linear_attention", "sliding_attention"]
    config = DEEPSEEK_7B | {"num_hidden_layers": 4, "layer_types": kinds, "sliding_window": 100}
    facts = described(tmp_path, config)
    assert [layer.window for layer in facts.layers] == [100, None, 100]
    assert facts.kv_bytes(1000) == (100 + 1000 + 100) * 2 * 32 * 128 * 2


def test_an_unused_window_is_no_window(tmp_path: Path) -> None:
    facts = described(tmp_path, DEEPSEEK_7B | {"sliding_window": 100, "use_sliding_window": False})
    assert {layer.window for layer in facts.layers} == {None}


def test_experts_and_nested_text_configs_are_read(tmp_path: Path) -> None:
    facts = described(tmp_path, {"text_config": QWEN_32B | {"num_local_experts": 32}})
    assert (facts.experts, facts.attention_heads) == (32, 64)


def test_tensor_parallel_sizes_divide_the_heads(tmp_path: Path) -> None:
    facts = described(tmp_path, DEEPSEEK_7B | {"num_attention_heads": 12, "num_key_value_heads": 12})
    assert facts.tensor_parallel_sizes(8) == [1, 2, 3, 4, 6]
    assert fit(facts, gpus=8, memory=40 * GIB, tokens=100).gpus == 6


def test_more_gpus_than_kv_heads_keep_copies_of_them(tmp_path: Path) -> None:
    facts = replace(guide_case(tmp_path, "70B"), kv_heads=2)
    two, eight = (fit(facts, gpus=n, memory=80 * GIB, tokens=1000) for n in (2, 8))
    assert two.arithmetic.split("; ")[1] != eight.arithmetic.split("; ")[1]


def test_whole_weights_are_counted_from_their_headers(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    facts = model_facts(str(tiny), None, machine())
    assert facts.parameters == model.num_parameters()
    assert facts.weight_bytes == 4 * facts.parameters


def test_packed_weights_are_not_counted_as_parameters(tmp_path: Path) -> None:
    assert described(tmp_path, LLAMA_70B | {"quantization_config": {"quant_method": "mxfp4"}}).parameters is None


def cache_with(folder: Path, name: str, revision: str = "main") -> Capabilities:
    repository = folder / f"models--{name.replace('/', '--')}"
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text("c0ffee")
    (repository / "snapshots" / "c0ffee" / "config.json").write_text(json.dumps(DEEPSEEK_7B))
    return replace(machine(), hf_cache=HFCache(path=str(folder), offline=True))


def test_a_model_is_found_in_the_cache_by_branch_and_by_commit(tmp_path: Path) -> None:
    found = cache_with(tmp_path, "org/model")
    assert locate("org/model", None, found) == locate("org/model", "c0ffee", found)


def test_a_missing_model_names_the_prefetch_line(offline: Capabilities) -> None:
    with pytest.raises(EngineUnavailable, match="run `vendomini prefetch org/model` where there is internet"):
        locate("org/model", None, offline)


def test_a_missing_folder_is_not_taken_for_a_hub_id(offline: Capabilities) -> None:
    with pytest.raises(EngineUnavailable, match=r"no folder with a config\.json"):
        locate("./models/mine", None, offline)


def test_an_unknown_size_asks_for_the_number_of_gpus(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"set engine\.gpus"):
        model_facts("org/elsewhere", None, replace(machine(), hf_cache=HFCache(path=str(tmp_path))))
    with pytest.raises(EngineUnavailable, match=r"set engine\.gpus"):
        model_facts("org/model", None, cache_with(tmp_path, "org/model"))
