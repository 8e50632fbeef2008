"""GPUs, as ``nvidia-smi`` lists them: it opens no CUDA context, so this process can still fork."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vendomini.probe.capabilities import Gpu, Gpus
from vendomini.probe.commands import ask

QUERY = "index,uuid,name,memory.total,memory.free,compute_cap,driver_version"


def find_gpus(environ: Mapping[str, str]) -> Gpus:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves to this process."""
    answer, reason = ask(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"], environ)
    if answer is None:
        return Gpus(reason=f"{reason}: no NVIDIA driver here" if "not installed" in reason else reason)
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.count(",") == 6]
    rows = [row for row in rows if row[0].isdigit()]
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    slices = _slices(rows, environ) if chosen and "MIG-" in chosen else []
    visible, reason = _visible([*rows, *slices], chosen)
    devices = tuple(_gpu(row) for row in visible)
    driver = rows[0][6] if rows else None
    return Gpus(devices, driver, _driver_cuda(environ), reason or f"nvidia-smi lists {len(rows)}")


def _slices(rows: list[list[str]], environ: Mapping[str, str]) -> list[list[str]]:
    """Instances of GPUs that are divided (MIG), in the form of the rows. Only the list of devices names them; how much
    memory one has is in its profile, ``3g.20gb``."""
    answer, _ = ask(["nvidia-smi", "-L"], environ)
    found, parent = [], None
    for line in (answer or "").splitlines():
        if whole := re.match(r"GPU (\d+):", line):
            parent = next((row for row in rows if row[0] == whole[1]), None)
        elif parent and (part := re.match(r"\s+MIG (\S*?(\d+)gb\S*)\s.*\(UUID: (MIG-[^)]+)\)", line)):
            mebibytes = str(int(part[2]) << 10)
            found.append([parent[0], part[3], f"{parent[2]} MIG {part[1]}", mebibytes, mebibytes, *parent[5:]])
    return found


def _gpu(row: list[str]) -> Gpu:
    major, _, minor = row[5].partition(".")
    capability = (int(major), int(minor or 0)) if major.isdigit() else (0, 0)
    return Gpu(int(row[0]), row[2], _mebibytes(row[3]), _mebibytes(row[4]), capability)


def _mebibytes(text: str) -> int:
    """Bytes. A device with unified memory says ``[N/A]``, which is 0 here."""
    return int(text) << 20 if text.isdigit() else 0


def _visible(rows: list[list[str]], chosen: str | None) -> tuple[list[list[str]], str]:
    """CUDA's own rule: the list ends at the first name that is not a device."""
    if chosen is None:
        return rows, ""
    found: list[list[str]] = []
    for name in (part.strip() for part in chosen.split(",")):
        row = next((row for row in rows if name and (row[0] == name or row[1].startswith(name))), None)
        if row is None or row in found:
            break
        found.append(row)
    return found, f"CUDA_VISIBLE_DEVICES={chosen} leaves {len(found)} of {len(rows)}"


def _driver_cuda(environ: Mapping[str, str]) -> str | None:
    answer, _ = ask(["nvidia-smi"], environ)
    match = re.search(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)", answer or "")
    return match.group(1) if match else None
