"""A job on several nodes: its first process does the runs, those on the other nodes lend it their GPUs.

Each keeps a connection to the first, which sends ``done`` when it has ended well; a connection that breaks without it
means that the process is gone. A process that finds another gone exits with :data:`LOST`; then
``srun --kill-on-bad-exit`` ends the whole step, and the script requeues the job.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.vllm.nodes import NodeGroup
from vendomini.errors import ClusterError
from vendomini.probe.slurm import TIMEOUT_S, ask_slurm

LOST = 70
"""Exit code of a process that lost the others."""

FIRST_PORT, PORTS = 20_000, 10_000
"""Two ports a job, by its number: jobs that share a node do not collide."""

CONNECT_S = 300.0
"""How long to wait until the first process listens: nodes do not start a step at the same moment."""

GRACE_S = 30.0
"""How long after the end of vLLM on this node the first process may take to say that it is done."""

DONE = b"done"


def node_group(environ: Mapping[str, str], nodes: int) -> NodeGroup:
    """This process's place among its job's nodes.

    Raises:
        ClusterError: SLURM does not name them.
    """
    names, why = ask_slurm(["scontrol", "show", "hostnames", environ.get("SLURM_JOB_NODELIST", "")], TIMEOUT_S)
    if not names or not names.split():
        raise ClusterError(f"SLURM does not name this job's nodes: {why or 'no SLURM_JOB_NODELIST'}")
    port = FIRST_PORT + 2 * (int(environ["SLURM_JOB_ID"]) % PORTS)
    return NodeGroup(nodes, int(environ["SLURM_PROCID"]), _address(names.split()[0]), port)


def _address(name: str) -> str:
    """The address at which SLURM itself reaches the node."""
    text, _ = ask_slurm(["scontrol", "show", "node", name], TIMEOUT_S)
    found = re.search(r"\bNodeAddr=(\S+)", text or "")
    return found[1] if found else name


@contextmanager
def leading(group: NodeGroup) -> Iterator[None]:
    """In the first process: keep the connections, and tell the others when all is done."""
    lines: list[socket.socket] = []
    with socket.create_server(("", group.port + 1)) as server:
        threading.Thread(target=_accept, args=(server, lines), daemon=True).start()
        yield
        end = time.monotonic() + CONNECT_S
        while (
            len(lines) < group.nodes - 1 and time.monotonic() < end
        ):  # there was little to do: they are still starting
            time.sleep(0.1)
        for line in lines:
            with suppress(OSError):
                line.sendall(DONE)
        _until_closed(lines)


def _accept(server: socket.socket, lines: list[socket.socket]) -> None:
    with suppress(OSError):  # closed
        while True:
            lines.append(server.accept()[0])


def _until_closed(lines: list[socket.socket]) -> None:
    for line in lines:
        line.settimeout(GRACE_S)
        with suppress(OSError):
            line.recv(1)


def following(group: NodeGroup, model: Model, engine: EngineConfig) -> int:
    """In the other processes: run vLLM's workers of this node for as long as the first process wants them.

    Returns:
        The exit code: 0, or :data:`LOST`.
    """
    line = _connect(group)
    command = follower(model, engine)
    with subprocess.Popen(command, env=os.environ | group.environ()) as workers, line:
        try:
            return _watch(line, workers)
        finally:
            workers.kill()


def follower(model: Model, engine: EngineConfig) -> list[str]:
    """The command that lends this node's GPUs."""
    arguments = [model.model_dump_json(), engine.model_dump_json()]
    return [sys.executable, "-P", "-m", "vendomini.engines.vllm.nodes", *arguments]


def _connect(group: NodeGroup) -> socket.socket:
    end = time.monotonic() + CONNECT_S
    while True:
        try:
            line = socket.create_connection((group.address, group.port + 1), timeout=10)
        except OSError as exc:
            if time.monotonic() > end:
                raise ClusterError(f"can't reach {group.address}:{group.port + 1} from this node: {exc}") from exc
            time.sleep(0.5)
        else:
            line.settimeout(None)
            return line


def _watch(line: socket.socket, workers: subprocess.Popen[bytes]) -> int:
    left = GRACE_S
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while left > 0:
            if selector.select(0.5):
                with suppress(OSError):
                    return 0 if line.recv(len(DONE)) == DONE else LOST
                return LOST
            if workers.poll() is not None:
                left -= 0.5
    return LOST
