"""How large a model's weights are: from the headers of its safetensors, their index, or the sizes of other files."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import TypedDict

from vendomini.model_info.layers import Config

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of an element of a safetensors data type; the 8-bit floats have names of their own, all of one byte."""

MAX_HEADER = 100_000_000
"""Bytes that safetensors itself allows. A file of another kind (a Git LFS pointer, say) appears to have more."""

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}


class _Tensor(TypedDict):
    """An entry of a safetensors header, as far as it is read."""

    dtype: str
    shape: list[int]


def weights(folder: Path, config: Config) -> tuple[int, int | None]:
    """Bytes and number of all weights.

    For weights that are not here, and for those in PyTorch's own format, the number follows from the bytes and the
    configuration's data type; None where it has none.

    Raises:
        ValueError: no weights are here, and no index of them.
    """
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    files = [file for file in files if not file.name.startswith("consolidated")] or files  # Mistral's second copy
    if index.is_file():
        described = json.loads(index.read_text())
        files = [folder / name for name in sorted(set(described["weight_map"].values()))]
        if not all(file.is_file() for file in files):
            size = int(described["metadata"]["total_size"])
            return size, described["metadata"].get("total_parameters") or _count(size, config)
    if files:
        return _measured(files)
    size = _pytorch_bytes(folder)
    return size, _count(size, config)


def _measured(files: list[Path]) -> tuple[int, int]:
    tensors = [tensor for file in files for tensor in _header(file)]
    counts = [math.prod(tensor["shape"]) for tensor in tensors]
    sizes = [count * BYTES.get(tensor["dtype"], 1) for count, tensor in zip(counts, tensors, strict=True)]
    return sum(sizes), sum(counts)


def _header(file: Path) -> list[_Tensor]:
    """The tensors a safetensors file holds: 8 bytes of length, then JSON."""
    with open(file, "rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > MAX_HEADER:
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(opened.read(length))
    return [entry for name, entry in header.items() if name != "__metadata__"]


def _pytorch_bytes(folder: Path) -> int:
    """Bytes by the index, else by the files themselves, which are weights apart from a few kilobytes."""
    index = folder / "pytorch_model.bin.index.json"
    if index.is_file():
        return int(json.loads(index.read_text())["metadata"]["total_size"])
    size = sum(file.stat().st_size for file in folder.glob("pytorch_model*.bin"))
    if size == 0:
        raise ValueError("no weights are here")
    return size


def _count(size: int, config: Config) -> int | None:
    text = config.get("text_config")
    nested = text if isinstance(text, dict) else {}
    dtype = next((c[key] for c in (config, nested) for key in ("dtype", "torch_dtype") if c.get(key)), None)
    return size // DTYPES[dtype] if dtype in DTYPES else None
