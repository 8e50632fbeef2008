from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vendomini.config import RunSpec, expand, load_config
from vendomini.config.load import Phase

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("VENDOMINI_USE_VLLM", None)


@pytest.fixture
def phase(tmp_path: Path) -> Callable[..., Phase]:
    """A phase from keyword sections, through the same door as a file."""

    def make(text: str = "", *overrides: str) -> Phase:
        file = tmp_path / "phase.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, overrides)

    return make


@pytest.fixture
def spec() -> Callable[..., RunSpec]:
    """One run on a control, with overrides."""

    def make(control: str = "reactive", **values: Any) -> RunSpec:
        overrides = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
        overrides += [f"agent.model.name=scripted/{control}", "experiment.replications=1"]
        return next(expand(load_config("configs/base.yaml", overrides)))

    return make
