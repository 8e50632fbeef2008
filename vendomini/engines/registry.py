"""The available engines: how each is made, and what it needs.

An engine is its own file and one entry in ``BUILT_IN``. Another package adds one through the entry point group
``vendomini.engines``: the entry's name is what ``engine.backend`` says, and it loads a :class:`Backend`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vendomini.config.schema import EngineConfig, Model, engine_entry_points
from vendomini.engines.base import Engine
from vendomini.errors import ConfigError
from vendomini.probe import Capabilities

Say = Callable[[str], None]
Factory = Callable[[Model, EngineConfig, Capabilities, Say], Engine]
"""Model, settings, machine, and a function that prints a line of the log → an engine, not yet started."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One engine.

    Attributes:
        name: as in ``engine.backend``.
        make: the engine, not yet started. Imports what is heavy only when it is called.
        title: in sentences.
        packages: packages that must work here, by their names in ``probe.packages``.
        extra: of this distribution, to install these packages.
        capability: lowest compute capability of a GPU, where the first of the packages is built for CUDA.
        gpus: whether its jobs want GPUs.
        model_files: whether the model's files have to be here.
    """

    name: str
    make: Factory
    title: str
    packages: tuple[str, ...] = ()
    extra: str | None = None
    capability: tuple[int, int] | None = None
    gpus: bool = True
    model_files: bool = True

    def obstacle(self, found: Capabilities) -> str | None:
        """Why it can't run on this machine; None if nothing prevents it."""
        for name in self.packages:
            package = found.package(name)
            label = self.title if name == self.name else name
            if not package.works:
                if package.version is None and self.extra is not None:
                    return f'{label} is {package.reason}: pip install "vendomini[{self.extra}]"'
                return f"{label} {package.version or 'is'} {package.reason}"
        return self._gpu_obstacle(found)

    def _gpu_obstacle(self, found: Capabilities) -> str | None:
        if self.capability is None or found.package(self.packages[0]).platform != "cuda":
            return None
        here = found.gpus.capability
        if here is None:
            version = found.package(self.packages[0]).version
            return f"{self.title} {version} is built for CUDA and there is no GPU ({found.gpus.reason})"
        if here < self.capability:
            return f"{self.title} needs GPU compute capability >= {self.capability}, this is {here}"
        return None


def _scripted(model: Model, _engine: EngineConfig, _found: Capabilities, _say: Say) -> Engine:
    from vendomini.engines.scripted import ScriptedEngine

    return ScriptedEngine(model.name)


def _vllm(model: Model, engine: EngineConfig, found: Capabilities, say: Say) -> Engine:
    from vendomini.engines.vllm.engine import VllmEngine

    return VllmEngine(model, engine, found, say)


def _hugging_face(model: Model, engine: EngineConfig, found: Capabilities, say: Say) -> Engine:
    from vendomini.engines.hf.engine import HuggingFaceEngine

    return HuggingFaceEngine(model, engine, found, say)


def _openai(model: Model, engine: EngineConfig, _found: Capabilities, say: Say) -> Engine:
    from vendomini.engines.openai.engine import OpenAICompatibleEngine

    return OpenAICompatibleEngine(model, engine, say)


BUILT_IN = {
    backend.name: backend
    for backend in (
        Backend("scripted", _scripted, "the scripted engine", gpus=False, model_files=False),
        Backend("vllm", _vllm, "vLLM", packages=("vllm",), extra="vllm", capability=(7, 0)),
        Backend("hf", _hugging_face, "Hugging Face Transformers", packages=("torch", "transformers"), extra="hf"),
        Backend("openai", _openai, "a server", gpus=False, model_files=False),
    )
}


def find_backend(name: str) -> Backend:
    """The engine that ``engine.backend`` names.

    Raises:
        ConfigError: there is none, or the package that should provide it does not.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    for entry in engine_entry_points():
        if entry.name == name:
            try:
                found = entry.load()
            except (ImportError, AttributeError) as exc:
                raise ConfigError(f"engine.backend {name} ({entry.value}) can't be imported: {exc}") from exc
            if not isinstance(found, Backend):
                raise ConfigError(f"engine.backend {name} ({entry.value}) must be a vendomini.engines.registry.Backend")
            return found
    raise ConfigError(f"engine.backend is {name!r}: there are auto, {', '.join(BUILT_IN)}")
