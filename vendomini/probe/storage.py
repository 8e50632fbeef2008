"""The Hugging Face cache, free space and quotas."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from vendomini.errors import counted
from vendomini.probe.capabilities import Disk, HFCache
from vendomini.probe.commands import ask

TRUE = {"1", "ON", "YES", "TRUE"}


def hf_cache_folder(environ: Mapping[str, str]) -> Path:
    """The folder in which the Hugging Face libraries look, by their own rules."""
    home = Path(environ.get("HOME", "~")).expanduser()
    caches = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hf_home = Path(environ.get("HF_HOME") or caches / "huggingface")
    chosen = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or hf_home / "hub"
    return Path(chosen).expanduser()


def find_hf_cache(environ: Mapping[str, str]) -> HFCache:
    """The models in the cache. A repository without a snapshot was never completed and does not count."""
    folder = hf_cache_folder(environ)
    offline = any(environ.get(name, "").upper() in TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith("models--"))
    except OSError as exc:
        nearest = _nearest(folder)
        return HFCache(str(folder), (), offline, os.access(nearest, os.W_OK), f"empty ({exc.strerror})")
    models = tuple(
        name[8:].replace("--", "/") for name in names if any((folder / name).glob("snapshots/*/config.json"))
    )
    return HFCache(str(folder), models, offline, os.access(folder, os.W_OK), counted(len(models), "model"))


def find_disk(path: Path, environ: Mapping[str, str]) -> Disk:
    """Free space where ``path`` is or would be, and this user's quota there if the system reports one."""
    nearest = _nearest(path)
    try:
        free = shutil.disk_usage(nearest).free
    except OSError as exc:
        return Disk(str(path), reason=f"can't be asked: {exc.strerror}")
    used, limit, reason = _quota(nearest, environ)
    return Disk(str(path), free, used, limit, os.access(nearest, os.W_OK), reason)


def _nearest(path: Path) -> Path:
    """The deepest folder of ``path`` that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _quota(folder: Path, environ: Mapping[str, str]) -> tuple[int | None, int | None, str]:
    """Used and allowed bytes of this user on the file system of ``folder``."""
    if shutil.which("quota", path=environ.get("PATH", "")) is None:
        return None, None, "no quota command here"
    answer, reason = ask(["quota", "--no-wrap", "--show-mntpoint", "--hide-device", "--raw-grace"], environ, timeout=5)
    mounts = [
        match.groups() for match in re.finditer(r"^\s*(/\S*)\s+(\d+)\*?\s+(\d+)\s+(\d+)", answer or "", re.MULTILINE)
    ]
    ours = [mount for mount in mounts if folder.is_relative_to(mount[0])]
    if not ours:
        return None, None, reason or "no quota on this file system"
    _, used, soft, hard = max(ours, key=lambda mount: len(mount[0]))
    limit = int(soft) or int(hard)
    return int(used) << 10, (limit << 10) or None, "quota"
