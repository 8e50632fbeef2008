"""The probe against real programs and real package metadata, put in its way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vendomini.probe import probe
from vendomini.probe.commands import ask
from vendomini.probe.gpu import find_gpus
from vendomini.probe.machine import computes_in_bfloat16, usable_memory
from vendomini.probe.packages import find_package, try_import
from vendomini.probe.slurm import find_slurm
from vendomini.probe.storage import find_disk, find_hf_cache

A100S = "\n".join(f"{n}, GPU-{n}abc, NVIDIA A100-SXM4-40GB, 40960, {40000 - n}, 8.0, 550.54.15" for n in range(4))


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which ``name`` runs this shell script."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}


def nvidia_smi(folder: Path, rows: str, **extra: str) -> dict[str, str]:
    script = f'case "$1" in --query*) cat <<E\n{rows}\nE\n;; *) echo "| CUDA Version: 12.4 |";; esac'
    return program(folder, "nvidia-smi", script) | extra


def test_gpus_come_with_memory_capability_driver_and_cuda(tmp_path: Path) -> None:
    found = find_gpus(nvidia_smi(tmp_path, A100S))
    assert [gpu.index for gpu in found.devices] == [0, 1, 2, 3]
    assert found.devices[1].free == 39999 << 20
    assert (found.capability, found.driver, found.cuda) == ((8, 0), "550.54.15", "12.4")


@pytest.mark.parametrize(
    ("chosen", "indices"),
    [("2,0", [2, 0]), ("GPU-3a", [3]), ("", []), ("0,9,1", [0]), ("1,1", [1]), ("NoDevFiles", [])],
)
def test_only_visible_gpus_count(tmp_path: Path, chosen: str, indices: list[int]) -> None:
    found = find_gpus(nvidia_smi(tmp_path, A100S, CUDA_VISIBLE_DEVICES=chosen))
    assert [gpu.index for gpu in found.devices] == indices
    assert f"CUDA_VISIBLE_DEVICES={chosen}" in found.reason


def test_an_instance_of_a_divided_gpu_counts_with_its_own_memory(tmp_path: Path) -> None:
    listed = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0a)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-11111111-aaaa)\n"
        "  MIG 1g.10gb+me  Device  1: (UUID: MIG-22222222-bbbb)\n"
    )
    rows = f'case "$1" in -L) cat <<E\n{listed}E\n;; --query*) cat <<E\n{A100S}\nE\n;; esac'
    found = find_gpus(program(tmp_path, "nvidia-smi", rows) | {"CUDA_VISIBLE_DEVICES": "MIG-22222222-bbbb"})
    (gpu,) = found.devices
    assert (gpu.index, gpu.memory, found.capability) == (0, 10 << 30, (8, 0))
    assert gpu.name.endswith("MIG 1g.10gb+me")


@pytest.mark.parametrize("rows", ["", "[N/A], ?, ?, ?, ?, ?, ?", "0, GPU-a, GB10, [N/A], [N/A], [N/A], 580"])
def test_odd_answers_of_nvidia_smi_do_not_raise(tmp_path: Path, rows: str) -> None:
    assert find_gpus(nvidia_smi(tmp_path, rows)).capability in {None, (0, 0)}


def test_a_driver_that_fails_is_the_reason(tmp_path: Path) -> None:
    environ = program(
        tmp_path, "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
    )
    found = find_gpus(environ)
    assert found.devices == ()
    assert "version mismatch" in found.reason


def test_a_program_that_hangs_is_given_up(tmp_path: Path) -> None:
    answer, reason = ask(["sinfo"], program(tmp_path, "sinfo", "exec sleep 60"), timeout=0.2)
    assert answer is None
    assert "did not answer" in reason


def distribution(folder: Path, name: str, version: str, module: str, *requires: str) -> None:
    """An installed package: metadata and a module."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (folder / f"{name.replace('-', '_')}.py").write_text(module)


def test_flash_attn_must_be_importable_not_merely_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "flash-attn", "2.8.3", "raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    package = try_import(find_package("flash_attn"), os.environ)
    assert (package.version, package.works) == ("2.8.3", False)
    assert "undefined symbol: _ZN3c10" in package.reason


def test_flash_attn_that_imports_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "flash-attn", "2.8.3", "flash_attn_func = flash_attn_varlen_func = print")
    monkeypatch.syspath_prepend(tmp_path)
    assert try_import(find_package("flash_attn"), os.environ).works


def test_flash_attn_4_is_not_taken_for_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "flash-attn-4", "4.0.0", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_package("flash_attn").version is None
    assert find_package("flash_attn_4").version == "4.0.0"


def test_a_package_that_is_too_old_says_which_version_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "vllm", "0.2.0", "")
    monkeypatch.syspath_prepend(tmp_path)
    package = find_package("vllm")
    assert (package.works, package.reason) == (False, "is too old: 0.24 is needed")


def test_a_build_for_another_torch_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "torch", "2.9.0", "raise SystemExit")
    distribution(tmp_path, "vllm", "0.31.0", "raise SystemExit", "torch==2.8.0")
    monkeypatch.syspath_prepend(tmp_path)
    package = find_package("vllm")
    assert (package.works, package.reason) == (False, "was built for torch 2.8.0, but torch 2.9.0 is installed")


@pytest.mark.parametrize(
    ("line", "platform"),
    [("cuda: Optional[str] = '12.8'", "cuda 12.8"), ("hip: Optional[str] = '6.4'", "hip 6.4"), ("cuda = None", "cpu")],
)
def test_torch_says_itself_what_it_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, platform: str
) -> None:
    distribution(tmp_path, "torch", "2.9.0", "raise SystemExit")
    (tmp_path / "version.py").write_text(f"__version__ = '2.9.0'\n{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert find_package("torch").platform == platform


def test_what_can_not_be_run_is_a_reason(tmp_path: Path) -> None:
    environ = program(tmp_path, "sinfo", "")
    (tmp_path / "sinfo").chmod(0o755)
    (tmp_path / "sinfo").write_bytes(b"\x7fELF, for another machine")
    assert ask([str(tmp_path / "sinfo")], environ) == (None, f"{tmp_path}/sinfo can't be run: Exec format error")


def test_slurm_tells_its_partitions_and_limits(tmp_path: Path) -> None:
    program(tmp_path, "sbatch", "echo slurm 24.11.3")
    program(tmp_path, "sinfo", "echo 'gpu*|2-00:00:00|12|gpu:a100:4|up'; echo 'cpu|1:00|3|(null)|down'")
    environ = program(tmp_path, "scontrol", "echo 'MaxArraySize            = 1001'")
    slurm = find_slurm(environ | {"SLURM_JOB_ID": "77"})
    assert (slurm.available, slurm.version, slurm.max_array_size, slurm.job_id) == (True, "24.11.3", 1001, "77")
    gpu, cpu = slurm.partitions
    assert (gpu.name, gpu.default, gpu.time_limit, gpu.nodes, gpu.gres) == ("gpu", True, "2-00:00:00", 12, "gpu:a100:4")
    assert (cpu.name, cpu.default, cpu.state) == ("cpu", False, "down")


def test_without_slurm_there_is_a_reason() -> None:
    slurm = find_slurm({"PATH": "/nonexistent"})
    assert not slurm.available
    assert "sbatch is not installed" in slurm.reason


def test_only_complete_models_are_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "models--org--whole" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "models--org--whole" / "snapshots" / "abc" / "config.json").write_text("{}")
    (tmp_path / "models--org--torn" / "blobs").mkdir(parents=True)
    cache = find_hf_cache({"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    assert (cache.models, cache.offline, cache.writable) == (("org/whole",), True, True)


def test_a_quota_bounds_the_room(tmp_path: Path) -> None:
    environ = program(
        tmp_path, "quota", "echo '  Filesystem  space  quota  limit'; echo '  /  1024*  4096  8192  0  5 0 0 0'"
    )
    disk = find_disk(tmp_path / "results", environ)
    assert (disk.quota_used, disk.quota_limit) == (1024 << 10, 4096 << 10)
    assert disk.free is not None


def test_the_probe_survives_an_empty_environment() -> None:
    found = probe(environ={})
    assert found.gpus.devices == ()
    assert found.slurm.reason
    assert found.package("torch").works


def test_the_probe_imports_nothing_heavy() -> None:
    script = (
        "import sys; from vendomini.probe import probe; found = probe(); import json; json.dumps(found.as_json());"
        "print([m for m in ('torch', 'transformers', 'vllm', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("files", "environ", "gib"),
    [
        ({}, {}, None),
        ({"proc/self/cgroup": "0::/job_7\n", "sys/fs/cgroup/job_7/memory.max": "max\n"}, {}, None),
        ({"proc/self/cgroup": "0::/job_7/step_0\n", "sys/fs/cgroup/job_7/memory.max": "1073741824\n"}, {}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, {}, 1),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n2:memory:/slurm/uid_1\n",
                "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": "1073741824\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            {},
            1,
        ),
        ({}, {"SLURM_MEM_PER_NODE": "1024"}, 1),
        ({"proc/self/cgroup": "nothing of this kind\n"}, {"SLURM_MEM_PER_NODE": "0"}, None),
    ],
)
def test_memory_is_what_a_job_may_use(
    tmp_path: Path, files: dict[str, str], environ: dict[str, str], gib: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_memory(environ, tmp_path) == (gib << 30 if gib else whole)


def test_whether_a_cpu_has_instructions_for_bfloat16(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert computes_in_bfloat16(cpuinfo)  # unknown
    for flags, has in {
        "flags\t\t: fpu avx512f avx512_bf16 amx_tile": True,
        "Features\t: fp asimd i8mm bf16 dgh": True,
        "flags\t\t: fpu avx2 avx512f avx512_vnni": False,
    }.items():
        cpuinfo.write_text(f"processor\t: 0\n{flags}\n")
        assert computes_in_bfloat16(cpuinfo) is has
