"""Where vLLM and the compilers under it keep their caches.

Jobs that start together in one folder corrupt each other's files, and on a network file system handles go stale. So
inside SLURM each job has a folder on its node, for as long as it runs. What it compiled is kept once for each (vLLM,
torch, GPU, model) on the shared file system, and copied to the node by the jobs after it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

VARIABLES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "CUDA_CACHE_PATH": "cuda",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "XDG_CACHE_HOME": "xdg",
}
"""Variable → folder in the job's own. One that the user has set stays as it is."""

KEPT = ("vllm", "triton", "inductor")
"""What later jobs can use."""


def job_cache(environ: Mapping[str, str]) -> Path | None:
    """A new folder that only this user can enter, since files in it are executed; None outside SLURM, and where the
    user has chosen a ``VLLM_CACHE_ROOT``."""
    if "SLURM_JOB_ID" not in environ or "VLLM_CACHE_ROOT" in environ:
        return None
    return Path(tempfile.mkdtemp(prefix="vendomini-vllm-cache-"))


def cache_variables(environ: Mapping[str, str], cache: Path) -> dict[str, str]:
    """Variables for the host process. The Hugging Face cache, which ``XDG_CACHE_HOME`` would move, stays in place."""
    variables = {name: str(cache / folder) for name, folder in VARIABLES.items() if name not in environ}
    if "HF_HOME" not in environ:
        home = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        variables["HF_HOME"] = os.path.join(home, "huggingface")
    return variables


def warm_cache(environ: Mapping[str, str], *what: object) -> Path:
    """The folder of the shared file system for what was compiled for these versions, GPU and model."""
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256("\n".join(map(str, what)).encode()).hexdigest()[:16]
    return home / "vendomini" / "compiled" / key


def copy_in(warm: Path, cache: Path) -> bool:
    """Gives a job what an earlier one compiled, if it is this user's and nobody else can write to it."""
    try:
        found = warm.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            return False
        shutil.copytree(warm, cache, dirs_exist_ok=True)
    except (OSError, shutil.Error):
        empty(cache)
        return False
    return True


def copy_back(cache: Path, warm: Path) -> bool:
    """Keeps what this job compiled, all of it or nothing; the first of several jobs wins. If it fails, only the time
    saved is lost."""
    if warm.exists() or not any((cache / name).is_dir() for name in KEPT):
        return False
    try:
        warm.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = Path(tempfile.mkdtemp(prefix=f".{warm.name}-", dir=warm.parent))
    except OSError:
        return False
    try:
        for name in KEPT:
            if (cache / name).is_dir():
                shutil.copytree(cache / name, fresh / name)
        os.rename(fresh, warm)
    except (OSError, shutil.Error):
        shutil.rmtree(fresh, ignore_errors=True)
        return False
    return True


def discard(warm: Path) -> None:
    """Removes a kept copy that may be damaged, in one move: another job may be copying it."""
    with suppress(OSError):
        aside = tempfile.mkdtemp(prefix=f".{warm.name}-", dir=warm.parent)
        try:
            os.rename(warm, aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def empty(cache: Path) -> None:
    """Removes caches that may be damaged."""
    for entry in cache.iterdir():
        with suppress(OSError):
            shutil.rmtree(entry, ignore_errors=True)
