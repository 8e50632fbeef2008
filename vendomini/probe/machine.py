"""The probe itself: runs every check at the same time, so that it takes only as long as the slowest."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
        memory=usable_memory(environ),
        bfloat16=computes_in_bfloat16(),
        gpus=gpus,
        packages={package.name: package for package in packages},
        hf_cache=cache.result(),
        disks=tuple(disk.result() for disk in disks),
        slurm=slurm.result(),
    )


def usable_memory(environ: Mapping[str, str], root: Path = Path("/")) -> int:
    """Bytes of main memory: all of the machine's, or less where SLURM or a cgroup (a job's, a container's) allows less.

    Args:
        root: of the file system.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if (asked := environ.get("SLURM_MEM_PER_NODE", "")).isdigit():  # in MiB; 0 stands for all
        limits.append(int(asked) << 20)
    for file in _limit_files(root):
        with suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(file.read_text()))
    return min(limit for limit in limits if limit > 0)


def _limit_files(root: Path) -> Iterator[Path]:
    """The files that may limit this process: of its cgroup and of all above it, in either version of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        base, name = root / "sys/fs/cgroup", "memory.max"
        if controllers:
            base, name = base / "memory", "memory.limit_in_bytes"
        if not controllers or "memory" in controllers.split(","):
            own = base / path.lstrip("/")
            yield from (folder / name for folder in (own, *own.parents) if folder.is_relative_to(base))


def computes_in_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for it, as Linux names them on x86 and ARM; true where that can't be read."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:
        return True
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _package(name: str, gpus: Gpus, environ: Mapping[str, str], deep: bool) -> Package:
    """Flash Attention is imported where it could run; elsewhere it does not matter."""
    package = find_package(name)
    if (name in FLASH and gpus.devices) or (name == "vllm" and deep):
        return try_import(package, environ)
    return package
