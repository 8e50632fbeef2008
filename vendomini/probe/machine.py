"""The probe itself: runs every check at the same time, so that it takes only as long as the slowest."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vendomini.probe.capabilities import Capabilities, Gpus, Package
from vendomini.probe.gpu import find_gpus
from vendomini.probe.packages import DISTRIBUTIONS, find_package, try_import
from vendomini.probe.slurm import find_slurm
from vendomini.probe.storage import find_disk, find_hf_cache, hf_cache_folder

FLASH = ("flash_attn", "flash_attn_3", "flash_attn_4")


def probe(*, environ: Mapping[str, str] | None = None, deep: bool = False) -> Capabilities:
    """Inspects this machine.

    Args:
        environ: the environment to inspect; the process's own by default.
        deep: also import vLLM in a child process (seconds) instead of trusting its metadata.
    """
    environ = dict(os.environ) if environ is None else environ
    with ThreadPoolExecutor() as pool:
        slurm = pool.submit(find_slurm, environ)
        cache = pool.submit(find_hf_cache, environ)
        folders = (Path.cwd(), hf_cache_folder(environ))
        disks = [pool.submit(find_disk, folder, environ) for folder in folders]
        gpus = find_gpus(environ)
        packages = list(pool.map(lambda name: _package(name, gpus, environ, deep), DISTRIBUTIONS))
    return Capabilities(
        host=platform.node(),
        python=platform.python_version(),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
        packages={package.name: package for package in packages},
        hf_cache=cache.result(),
        disks=tuple(disk.result() for disk in disks),
        slurm=slurm.result(),
    )


def _package(name: str, gpus: Gpus, environ: Mapping[str, str], deep: bool) -> Package:
    """Flash Attention is imported where it could run; elsewhere it does not matter."""
    package = find_package(name)
    if (name in FLASH and gpus.devices) or (name == "vllm" and deep):
        return try_import(package, environ)
    return package
