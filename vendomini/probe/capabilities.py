"""The facts that the probe finds. Plain frozen values: build them by hand to ask "what if this were a V100?"."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Gpu:
    """One visible GPU.

    Attributes:
        memory: bytes in all.
        free: bytes not in use now.
        capability: compute capability, e.g. (8, 0).
    """

    index: int
    name: str
    memory: int
    free: int
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs this process may use.

    Attributes:
        driver: version of the NVIDIA driver.
        cuda: newest CUDA the driver supports.
    """

    devices: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    reason: str = ""

    @property
    def capability(self) -> tuple[int, int] | None:
        """The lowest compute capability among them: what a model spread over all of them can rely on."""
        return min((gpu.capability for gpu in self.devices), default=None)


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package.

    Attributes:
        version: None where it is not installed.
        works: it can be imported, as far as was tried; ``reason`` says what was tried.
        platform: what it was built for (``cpu``, ``cuda 12.8``, ``rocm``), where it says so.
    """

    name: str
    version: str | None = None
    works: bool = False
    reason: str = "not installed"
    platform: str = ""


@dataclass(frozen=True, slots=True)
class HFCache:
    """The Hugging Face cache: where it is, the repositories in it, and whether downloads are switched off."""

    path: str = ""
    models: tuple[str, ...] = ()
    offline: bool = False
    writable: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """Room for files. Bytes; ``quota_*`` are None where no quota is known."""

    path: str
    free: int | None = None
    quota_used: int | None = None
    quota_limit: int | None = None
    writable: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """A SLURM partition. ``time_limit`` and ``gres`` as sinfo prints them."""

    name: str
    default: bool
    time_limit: str
    nodes: int
    gres: str
    state: str


@dataclass(frozen=True, slots=True)
class Slurm:
    """The SLURM client on this machine.

    Attributes:
        commands: which of sbatch, srun, squeue, sinfo, scontrol, sacct are here.
        max_array_size: as the controller says; array indices must stay below it.
        job_id: of the job this process runs in.
    """

    commands: tuple[str, ...] = ()
    version: str | None = None
    partitions: tuple[Partition, ...] = ()
    max_array_size: int | None = None
    job_id: str | None = None
    reason: str = ""

    @property
    def available(self) -> bool:
        return "sbatch" in self.commands and self.version is not None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Everything the probe found.

    Attributes:
        memory: bytes of main memory that this process may use.
        bfloat16: the CPU has instructions for it.
    """

    host: str = ""
    python: str = ""
    cpus: int = 1
    memory: int = 0
    bfloat16: bool = True
    gpus: Gpus = Gpus()
    packages: dict[str, Package] = field(default_factory=dict)
    hf_cache: HFCache = HFCache()
    disks: tuple[Disk, ...] = ()
    slurm: Slurm = Slurm()

    def package(self, name: str) -> Package:
        """The package, whether installed or not."""
        return self.packages.get(name) or Package(name)

    def as_json(self) -> dict[str, object]:
        """The capabilities as plain dicts, lists and numbers."""
        return asdict(self)
