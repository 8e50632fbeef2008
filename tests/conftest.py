from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import vendomini
from vendomini.config import RunSpec, expand, load_config
from vendomini.config.load import Phase
from vendomini.errors import ConfigError

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("VENDOMINI_USE_VLLM", None)


class _Groups(LoadScopeScheduling):
    """Of several processes, one runs all that uses the cluster; any other file stays in one."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return str(file.parent if file.parent.name == "cluster" else file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the cluster comes first: one process takes longer for that than the others for the rest."""
    items.sort(key=lambda item: item.path.parent.name != "cluster")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _Groups(config, log)


@pytest.fixture(scope="session")
def core_only(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a ``python -S`` that finds VendoMini and what its core requires, and no other package."""
    site = tmp_path_factory.mktemp("core")
    (site / "vendomini").symlink_to(Path(vendomini.__file__).parent)
    todo, done = ["vendomini"], set()
    while todo:
        found = distribution(todo.pop())
        done.add(found.name.lower())
        for name in {file.parts[0] for file in found.files or () if file.parts[0] != ".."} - {"__pycache__"}:
            if not name.endswith(".pth") and not (site / name).exists():
                (site / name).symlink_to(found.locate_file(name))
        wanted = [Requirement(text) for text in found.requires or ()]
        names = {one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})}
        todo += [name for name in names if name.lower() not in done]
    return {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "120"}


@pytest.fixture
def phase(tmp_path: Path) -> Callable[..., Phase]:
    """A phase from keyword sections, through the same door as a file."""

    def make(text: str = "", *overrides: str) -> Phase:
        file = tmp_path / "phase.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, overrides)

    return make


@pytest.fixture
def refusal(phase: Callable[..., Phase]) -> Callable[..., str]:
    """The one line that says why the text of a config is refused."""

    def refuse(text: str, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            phase(text, *overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse


@pytest.fixture
def spec() -> Callable[..., RunSpec]:
    """One run on a control, with overrides."""

    def make(control: str = "reactive", **values: Any) -> RunSpec:
        overrides = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
        overrides += [f"agent.model.name=scripted/{control}", "experiment.replications=1"]
        return next(expand(load_config("configs/base.yaml", overrides)))

    return make
