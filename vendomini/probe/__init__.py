"""What this machine can do, with a reason for each value. Decides nothing, changes nothing, never raises."""

from vendomini.probe.capabilities import Capabilities, Disk, Gpu, Gpus, HFCache, Package, Partition, Slurm
from vendomini.probe.machine import probe

__all__ = ["Capabilities", "Disk", "Gpu", "Gpus", "HFCache", "Package", "Partition", "Slurm", "probe"]
