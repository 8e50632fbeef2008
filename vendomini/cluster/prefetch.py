"""Brings models to the login node's cache, where the compute nodes, which have no internet, will find them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vendomini.config import expand, load_config
from vendomini.config.schema import SCRIPTED_PREFIX, Model
from vendomini.config.shipped import find_phase
from vendomini.errors import EngineUnavailable, MissingExtraError, VendoMiniError
from vendomini.model_info import hub
from vendomini.probe.storage import hf_cache_folder

WEIGHTS = ("*.safetensors", "*.bin")
WANTED = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.py")
"""What an engine reads beside the weights."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model: where it is, or what is wrong."""

    model: str
    folder: str
    problem: str


def models_named(names: Iterable[str], overrides: Sequence[str] = ()) -> list[Model]:
    """The models that phases load, and those named by themselves (``organisation/name``).

    Raises:
        ConfigError: a name stands for nothing.
    """
    found: dict[str, Model] = {}
    for name in names:
        if "/" in name and not name.endswith((".yaml", ".yml")):
            found[name] = Model(name=name)
            continue
        for path in find_phase(name):
            for spec in expand(load_config(path, overrides)):
                if spec.model not in found and not spec.model.startswith(SCRIPTED_PREFIX):
                    found[spec.model] = spec.config().agent.model
    return list(found.values())


def fetch_all(models: Iterable[Model], check_only: bool) -> Iterator[Outcome]:
    """Fetches one model after another; a failure does not stop the rest."""
    for model in models:
        try:
            problem = missing(model)
            if problem and not check_only:
                prefetch(model)
                problem = None
        except MissingExtraError:  # all would say the same
            raise
        except VendoMiniError as exc:
            problem = str(exc)
        yield Outcome(model.name, "" if problem else str(_folder(model)), problem or "")


def missing(model: Model) -> str | None:
    """Why a compute node could not load it from what is here; None if it could.

    A repository counts as complete when it has a config, a tokenizer and every file its weights' index names.
    """
    try:
        folder = _folder(model)
        needed = _needed(folder) if folder is not None else []
    except EngineUnavailable as exc:
        return str(exc)
    if folder is None:
        return (
            f"{model.name} is not in the Hugging Face cache ({hf_cache_folder(os.environ)}): "
            f"vendomini prefetch {model.name}"
        )
    lacks = [name for name in needed if not (folder / name).is_file()]
    if not lacks:
        return None
    again = "" if Path(model.name).exists() else f": vendomini prefetch {model.name}"
    return f"{model.name} is incomplete in {folder}, it lacks {', '.join(lacks[:3])}{' …' * (len(lacks) > 3)}{again}"


def prefetch(model: Model) -> Path:
    """Downloads what is missing, and checks that nothing is missing then.

    Returns:
        The folder with the files.

    Raises:
        VendoMiniError: it can't be downloaded, or is still incomplete.
    """
    local = Path(model.name).expanduser()
    if not local.is_dir():
        local = _download(model)
    problem = missing(model)
    if problem:
        raise VendoMiniError(problem)
    return local


def _download(model: Model) -> Path:
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as exc:
        raise MissingExtraError("vendomini prefetch", "huggingface_hub", None) from exc
    if problem := hub.refusal(model.name, model.revision):
        raise VendoMiniError(problem)
    try:
        files = HfApi().list_repo_files(model.name, revision=model.revision)
        weights = WEIGHTS[0] if any(name.endswith(".safetensors") for name in files) else WEIGHTS[1]
        return Path(snapshot_download(model.name, revision=model.revision, allow_patterns=[weights, *WANTED]))
    except Exception as exc:  # the hub's client has changed its HTTP library, and with it its errors, twice
        raise VendoMiniError(hub.why(model.name, model.revision, exc)) from exc


def _folder(model: Model) -> Path | None:
    """Its files, by the same rules as the engines."""
    from vendomini.model_info import locate
    from vendomini.probe import Capabilities, HFCache

    cache = HFCache(path=str(hf_cache_folder(os.environ)))
    return locate(model.name, model.revision, Capabilities(hf_cache=cache))


def _needed(folder: Path) -> list[str]:
    names = ["config.json"]
    index = next(iter(folder.glob("*.index.json")), None)
    if index is not None:
        names += _indexed(index)
    elif not any(folder.glob(pattern) for pattern in WEIGHTS):
        names.append("model.safetensors")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        names.append("tokenizer.json")
    return names


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _indexed(index: Path) -> list[str]:
    """The files of the weights. A repository may hold anything under this name."""
    try:
        return sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as exc:
        raise EngineUnavailable(f"{index} does not say which files hold the weights ({exc})") from exc
