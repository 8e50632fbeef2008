"""What a model needs, from its own files: weights, keys and values, heads, and on how many GPUs that fits."""

from __future__ import annotations

from pathlib import Path

from vendomini.errors import EngineUnavailable
from vendomini.probe import Capabilities


def locate(name: str, revision: str | None, capabilities: Capabilities) -> Path | None:
    """The folder with the model's files, or None if they are still to be downloaded.

    Raises:
        EngineUnavailable: they are not here and downloads are switched off.
    """
    local = Path(name).expanduser()
    if (local / "config.json").is_file():
        return local
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EngineUnavailable(f"{name} is no folder with a config.json: name a model folder or a Hugging Face id")
    repository = Path(capabilities.hf_cache.path) / f"models--{name.replace('/', '--')}"
    snapshot = _snapshot(repository, revision or "main")
    if snapshot is None and capabilities.hf_cache.offline:
        raise EngineUnavailable(
            f"{name} is not in the Hugging Face cache ({capabilities.hf_cache.path}) and downloads are off "
            f"(HF_HUB_OFFLINE): run `vendomini prefetch {name}` where there is internet"
        )
    return snapshot


def _snapshot(repository: Path, revision: str) -> Path | None:
    """The folder of one revision: a branch or tag by its ref, a commit by itself."""
    ref = repository / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = repository / "snapshots" / commit
    return folder if (folder / "config.json").is_file() else None
