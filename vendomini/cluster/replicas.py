"""Several engines in one job: a child process for each, with its part of the GPUs and of the runs.

For sites that give whole nodes only: a model that needs one GPU of eight would leave seven idle.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from vendomini.probe.commands import die_with_parent

VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""How a process is told which GPUs are its own."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def part_of_the_gpus(environ: Mapping[str, str], replica: int, replicas: int, gpus: int) -> dict[str, str]:
    """The variable that gives one engine its GPUs.

    Args:
        gpus: of the job, where its environment does not list them.
    """
    name = next((name for name in VISIBLE if environ.get(name)), VISIBLE[0])
    devices = environ.get(name, ",".join(map(str, range(gpus)))).split(",")
    each = max(len(devices) // replicas, 1)
    return {name: ",".join(devices[replica * each : (replica + 1) * each])}


def gpus_of_this_process(environ: Mapping[str, str]) -> str:
    return next((environ[name] for name in VISIBLE if environ.get(name)), "(all)")


@dataclass(slots=True)
class Replicas:
    """The children. They do not act on SLURM's own signals, which reach some or all of them depending on how a site
    tracks processes; this process signals each of them once.

    Attributes:
        stopped: the first signal that came.
    """

    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped: str | None = None

    def run(self, arguments: Sequence[str], replicas: int, gpus: int) -> list[int]:
        """Starts ``python -m vendomini.cluster.job`` for each and waits for all.

        Returns:
            Their exit codes.
        """
        before = {number: signal.signal(number, self._tell) for number in SIGNALS}
        try:
            for replica in range(replicas):
                command = [sys.executable, "-P", "-u", "-m", "vendomini.cluster.job", *arguments, str(replica)]
                environ = os.environ | part_of_the_gpus(os.environ, replica, replicas, gpus)
                self._begin(command, environ)
            return [child.wait() for child in self.children]
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _begin(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """The signals are blocked meanwhile, which the child inherits."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.children.append(subprocess.Popen(command, env=environ))
            if self.stopped:
                self.children[-1].send_signal(signal.SIGINT)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _tell(self, number: int, _: FrameType | None) -> None:
        if self.stopped is None:
            self.stopped = signal.Signals(number).name
            for child in self.children:
                child.send_signal(signal.SIGINT)


def as_a_child() -> None:
    """Prepare a child: it dies with its parent, and a signal to stop before work begins ends it."""
    die_with_parent()
    signal.signal(signal.SIGINT, lambda *_: sys.exit(1))
