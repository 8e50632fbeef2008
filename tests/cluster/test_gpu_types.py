"""What sites call their GPUs."""

from __future__ import annotations

import pytest

from vendomini.cluster.gpu_types import memory_gb

KNOWN = {
    11: "2080ti geforce_rtx_2080_ti nvidia_geforce_rtx_2080_ti gtx1080ti nvidia_geforce_gtx_1080_ti",
    12: "nvidia_titan_v nvidia_h100_mig_1g.12gb",
    5: "nvidia_a100_1g.5gb",
    10: "1g.10gb mig-1g.10gb 1g.10gb+me nvidia_h100_80gb_hbm3_1g.10gb",
    16: "v100 v100-sxm2 tesla_v100-sxm2-16gb t4 tesla_t4",
    20: "h100_1g.20gb a100_4g.20gb",
    24: "nvidia_geforce_rtx_3090 rtx3090 3090 rtx_4090 titan_rtx titanrtx a10g l4 a30 quadro_rtx_6000 m40_24gb a5000",
    32: "v100-sxm2-32gb tesla_v100-pcie-32gb v100_32g v100l v100s rtx5090",
    40: "a100 A100-SXM4-40GB a100_3g.40gb nvidia_a100_80gb_pcie_3g.40gb a100-40",
    48: "l40s nvidia_l40s a6000 rtx_a6000 nvidia_rtx_a6000 rtx_6000_ada rtx6000ada nvidia_rtx_6000_ada_generation a40",
    80: "nvidia_h100_80gb_hbm3 nvidia_a100_80gb_pcie a100-sxm4-80gb a100_80 a100l h100 nvidia_h100_pcie h100sxm",
    94: "nvidia_h100_nvl",
    96: "gh200_480gb nvidia_gh200_480gb rtx_pro_6000 nvidia_rtx_pro_6000_blackwell_server_edition h100-96",
    141: "nvidia_h200 h200 nvidia_h200_nvl h200_141",
    144: "nvidia_gh200_144g_hbm3e",
    180: "nvidia_b200",
    185: "gb200 nvidia_gb200",
    192: "mi300x amd_instinct_mi300x",
    64: "mi250x mi210",
    128: "mi300a",
}


@pytest.mark.parametrize(("name", "memory"), [(name, gb) for gb, names in KNOWN.items() for name in names.split()])
def test_memory_by_type(name: str, memory: int) -> None:
    assert memory_gb(name) == memory


@pytest.mark.parametrize("name", ["", "gpu", "tesla", "kepler", "ampere", "hopper", "h100x9"])
def test_a_name_that_says_nothing(name: str) -> None:
    assert memory_gb(name) is None
