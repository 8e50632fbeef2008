"""How much memory a GPU has, by the name that a site's SLURM gives its type."""

from __future__ import annotations

import re

MEMORY_GB = {
    "gh200_144": 144, "gh200": 96, "gb300": 270, "gb200": 185, "b300": 270, "b200": 180, "b100": 180,
    "h200": 141, "h100_nvl": 94, "h100": 80, "h800": 80, "h20": 96, "a100": 40, "a100l": 80, "a800": 40, "a30": 24,
    "a40": 48, "a16": 16, "a10g": 24, "a10": 24, "a2": 16, "l40s": 48, "l40g": 24, "l40": 48, "l20": 48, "l4": 24,
    "l2": 24, "t4": 16, "v100s": 32, "v100": 16, "v100l": 32, "p100": 12, "p40": 24, "p4": 8, "m60": 8, "m40": 12,
    "k80": 12,
    "pro_6000": 96, "pro_5000": 48, "pro_4500": 32, "pro_4000": 24,
    "6000_ada": 48, "5880_ada": 48, "5000_ada": 32, "4500_ada": 24, "4000_ada": 20, "2000_ada": 16,
    "a6000": 48, "a5500": 24, "a5000": 24, "a4500": 20, "a4000": 16, "a2000": 6,
    "8000": 48, "6000": 24, "5000": 16, "4000": 8,
    "5090": 32, "5080": 16, "5070ti": 16, "5070": 12, "5060ti": 8, "5060": 8,
    "4090": 24, "4080": 16, "4070ti": 12, "4070": 12, "4060ti": 8, "4060": 8,
    "3090ti": 24, "3090": 24, "3080ti": 12, "3080": 10, "3070ti": 8, "3070": 8, "3060ti": 8, "3060": 12,
    "2080ti": 11, "2080": 8, "2070": 8, "2060": 6, "1080ti": 11, "1080": 8, "1070ti": 8, "1070": 8,
    "titan_rtx": 24, "titan_v": 12, "titan_xp": 12, "titan_x": 12, "titan": 12,
    "mi355x": 288, "mi350x": 288, "mi325x": 256, "mi300x": 192, "mi300a": 128, "mi300": 128, "mi250x": 64,
    "mi250": 64, "mi210": 64, "mi100": 32, "mi60": 32, "mi50": 16,
    "gaudi3": 128, "gaudi2": 96, "gaudi": 32, "max_1550": 64, "max_1100": 48, "pvc": 48,
}  # fmt: skip
"""GB of one device (of half an MI250 or Max 1550), the smaller where a type comes in two sizes."""

SIZES_GB = (11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 95, 96, 141, 144, 180, 192)
"""What a number at the end of a type, as in ``a100_80``, can mean."""


def memory_gb(name: str) -> int | None:
    """GB of one GPU of this type; None for an unknown type.

    A size in the name is trusted, as in ``nvidia_a100_80gb_pcie``, ``v100-sxm2-32gb`` and the MIG profile
    ``a100_3g.40gb``. Other names are looked up, and so is GH200, whose name counts the memory of its CPU.
    """
    text = re.sub(r"[^a-z0-9.]+", "_", name.lower())
    if "gh200" in text:
        return MEMORY_GB["gh200_144" if "144g" in text else "gh200"]
    if profile := re.search(r"(?<!\d)\dg[._]?(\d+)gb", text):
        return int(profile[1])
    if stated := re.search(r"(?<![a-z0-9.])(\d+)gb?(?![a-z0-9])", text):
        return int(stated[1])
    if (end := re.search(r"[a-z0-9]_(\d+)$", text)) and int(end[1]) in SIZES_GB:
        return int(end[1])
    return _looked_up(text)


def _looked_up(text: str) -> int | None:
    """The longest known name that it contains, whether or not ``rtx`` and the like are set apart."""
    if "titan" in text and "rtx" in text:
        return MEMORY_GB["titan_rtx"]
    plain = re.sub(r"(rtx|gtx|quadro|geforce|tesla|nvidia|instinct|amd|intel|hpu)_?", "_", text)
    plain = re.sub(r"(?<=\d)ada\b", "_ada", re.sub(r"(?<=\d)_(?=ti(?:_|$))", "", plain))
    found = [key for key in MEMORY_GB if re.search(rf"(?<![a-z0-9]){key}(?:(?:sxm|pcie|nvl)\d*)?(?![a-z0-9])", plain)]
    return MEMORY_GB[max(found, key=len)] if found else None
