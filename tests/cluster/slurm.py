"""A real Slurm on this machine: controller, accounting, two nodes of eight GPUs each; ports and folders of its own.

The nodes are simulated by Slurm itself (several ``slurmd`` on one host) and so are the GPUs (character devices that
behave like ``/dev/null``); everything else is the real thing. Nothing outside the given folder is touched, and only
processes started here are stopped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "sbatch", "sacctmgr", "mariadbd", "mariadb-install-db")
NODES = ("n1", "n2")
os.environ["PATH"] += os.pathsep + "/usr/sbin"


def why_not() -> str:
    """Why Slurm can't be brought up here; empty when it can."""
    if os.geteuid() != 0:
        return "a Slurm of our own needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@dataclass(frozen=True)
class Settings:
    """How a site runs its cluster.

    Attributes:
        name: of the cluster.
        accounting: with slurmdbd and MariaDB, or switched off.
        max_array_size: array indices stay below it.
        private_data: what users can't see of each other, such as ``jobs``.
        grace_s: seconds that partition ``grace`` gives a job before it is preempted.
    """

    name: str = "tiny"
    accounting: bool = True
    max_array_size: int = 10
    private_data: str = "none"
    grace_s: int = 8


class Slurm:
    """A cluster in one folder.

    Partitions: ``gpu`` (default); ``short`` (two minutes); ``hidden``; and those whose jobs ``gpu`` preempts: ``spare``
    requeues them, ``grace`` warns them before, ``doomed`` cancels them.

    Args:
        folder: private to it; its path must be short enough for a socket's name (about 90 characters).
        beside: another cluster, whose accounting this one shares.
    """

    def __init__(self, folder: Path, settings: Settings = Settings(), beside: Slurm | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self.accounting = settings.accounting
        self._beside = beside
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._held: dict[str, float] = {}
        self.conf = folder / "slurm.conf"
        self.environ = {"SLURM_CONF": str(self.conf)}

    # ------------------------------------------------------------------------------------------ up and down

    def start(self) -> None:
        for name in ("state", "log", "munge", "db", "dev", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.ports = _free_ports(6)
        if self._beside:
            self.ports[3] = self._beside.ports[3]
        self._write_configuration()
        if self._beside is None:
            self._start_munge()
            if self.accounting:
                self._start_accounting()
        if self.accounting:
            self._add_users()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self._until(
            "both nodes are idle", lambda: self.call("sinfo", "-h", "-p", "gpu", "-o", "%D %t").strip() == "2 idle"
        )

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", "--user", "root", check=False)
            self._until("no job is left", lambda: not self.call("squeue", "-h", check=False).strip(), seconds=15)
        for name in reversed(list(self.processes)):
            self.kill(name, signal.SIGTERM)

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self._until("slurmctld answers", lambda: "UP" in self.call("scontrol", "ping", check=False))

    def start_node(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-f", str(self.conf), "-N", node)

    @contextlib.contextmanager
    def changed(self, **settings: str | int) -> Iterator[None]:
        """With other settings for a while; running jobs live on."""
        before = self.settings
        self.settings = replace(before, **settings)
        self._configure()
        try:
            yield
        finally:
            self.settings = before
            self._configure()

    def _configure(self) -> None:
        self._write_conf()
        self.kill("slurmctld", signal.SIGTERM)
        self.start_controller()
        up = ("sinfo", "-h", "-p", "gpu", "-t", "idle,mix,alloc", "-o", "%D")
        self._until("the nodes are back", lambda: sum(map(int, self.call(*up).split())) == len(NODES))

    @contextlib.contextmanager
    def slow_epilog(self, seconds: float) -> Iterator[None]:
        """Ended jobs stay in COMPLETING for so long."""
        (self.folder / "epilog_s").write_text(str(seconds))
        try:
            yield
        finally:
            (self.folder / "epilog_s").unlink()

    @contextlib.contextmanager
    def limited(self, **limits: int) -> Iterator[None]:
        """With association limits for root, such as ``MaxSubmitJobs=3``."""

        def modify(values: dict[str, int]) -> None:
            self.call("sacctmgr", "-i", "modify", "user", "root", "set", *(f"{k}={v}" for k, v in values.items()))
            time.sleep(0.5)  # the controller hears of it a moment later

        modify(limits)
        try:
            yield
        finally:
            modify(dict.fromkeys(limits, -1))

    def kill(self, name: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Ends one daemon, which we started, and its process group's jobs with it."""
        process = self.processes.pop(name)
        process.send_signal(signum)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # ---------------------------------------------------------------------------------------------- clients

    def call(self, *command: str, check: bool = True, **environ: str) -> str:
        done = subprocess.run(
            command, env=os.environ | self.environ | environ, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
        return done.stdout

    def jobs(self) -> list[list[str]]:
        """Each live job or array task: array job id, task, state, name."""
        lines = self.call("squeue", "-r", "-h", "-o", "%F|%K|%T|%j").splitlines()
        return [line.split("|") for line in lines]

    def wait_for_jobs(self, seconds: float = 120) -> None:
        """Until the queue is empty; a requeued job is let go after seconds instead of two minutes."""
        self._until("the queue is empty", lambda: not self.hurry(), seconds)

    def wait_for_accounting(self, folder: Path, seconds: float = 120) -> None:
        """Until accounting, which is some seconds behind the queue, has heard how each job of this folder ended."""
        self.wait_for_jobs(seconds)
        rest: list[str] = []

        def all_ended() -> bool:
            rest[:] = self._unaccounted(folder)
            return not rest

        self._until("accounting knows every end", all_ended, seconds, rest)

    def _unaccounted(self, folder: Path) -> list[str]:
        """Jobs of this folder which the controller remembers and accounting has not, or as live ones."""
        remembered = self.call("squeue", "-a", "-r", "-h", "-t", "all", "-o", "%i|%T|%Z").splitlines()
        known = [line.split("|") for line in remembered]
        rows = self.call("sacct", "-a", "-n", "-P", "-X", "-S", "now-1hour", "-o", "JobID,State,WorkDir").splitlines()
        states = {job: state for job, state, where in (row.split("|") for row in rows) if where == str(folder)}
        began = {job for job, state, where in known if where == str(folder) and state != "CANCELLED"}
        live = [f"{job} {state}" for job, state in states.items() if state in ("PENDING", "RUNNING", "REQUEUED")]
        return sorted(began - set(states)) + live  # cancelled tasks that never ran may share a row

    def hurry(self) -> int:
        """Lets requeued jobs go after five seconds; at once would be too soon, their nodes still refuse them then.

        Returns:
            How many jobs the queue has, the tasks of an array that wait counted as one.
        """
        lines = self.call("squeue", "-h", "-o", "%A|%r").splitlines()
        for job, reason in (line.split("|") for line in lines):
            if reason == "BeginTime" and time.monotonic() - self._held.setdefault(job, time.monotonic()) > 5:
                self.call("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
                del self._held[job]
        return len(lines)

    def until(self, what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        self._until(what, condition, seconds)

    # ---------------------------------------------------------------------------------------------- pieces

    def _write_configuration(self) -> None:
        for i in range(8):
            os.mknod(self.folder / "dev" / f"nvidia{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(
            f"NodeName=n[1-2] Name=gpu Type=h200 File={self.folder}/dev/nvidia[0-7] Flags=nvidia_gpu_env\n"
        )
        epilog = self.folder / "epilog"
        epilog.write_text(f"#!/bin/sh\ntest -e {self.folder}/epilog_s && sleep $(cat {self.folder}/epilog_s)\nexit 0\n")
        epilog.chmod(0o755)
        (self.folder / "job_submit.lua").write_text(JOB_SUBMIT)
        self.folder.chmod(0o755)
        self._write_conf()

    def _write_conf(self) -> None:
        ctld, node1, node2, dbd, _, _ = self.ports
        munge = (self._beside or self).folder / "munge" / "socket"
        accounting = (
            f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={dbd}\nAccountingStorageEnforce=associations,limits,qos\n"
            f"AccountingStoragePass={munge}\n"
            if self.accounting
            else "AccountingStorageType=accounting_storage/none\n"
        )
        ports = dict(zip(NODES, (node1, node2), strict=True))
        each = "NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=32 RealMemory=500000 Gres=gpu:h200:8"
        nodes = "\n".join(f"NodeName={node} Port={port} {each}" for node, port in ports.items())
        conf = CONF.format(folder=self.folder, munge=munge, port=ctld, nodes=nodes, settings=self.settings)
        self.conf.write_text(conf + accounting)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        arguments = [f"--{name}={folder / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._spawn("munged", "munged", "--foreground", "--force", f"--key-file={key}", *arguments)
        self._until("munge answers", (folder / "socket").exists)

    def _start_accounting(self) -> None:
        data, sock, port = self.folder / "db" / "data", self.folder / "db" / "s", str(self.ports[4])
        install = ("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--user=root")
        self.call(*install, f"--datadir={data}", "--skip-test-db")
        self._spawn(
            "mariadbd",
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}", f"--port={port}"),
            *("--bind-address=127.0.0.1", f"--pid-file={data}.pid", "--innodb-lock-wait-timeout=900"),
        )
        ping = ("mariadb-admin", "--no-defaults", f"--socket={sock}", "--user=root", "ping")
        self._until("MariaDB answers", lambda: "alive" in self.call(*ping, check=False))
        conf = self.folder / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(DBD_CONF.format(folder=self.folder, port=self.ports[3], db_port=port))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._until("slurmdbd answers", lambda: "Cluster" in self.call("sacctmgr", "show", "cluster", check=False))

    def _add_users(self) -> None:
        name = self.settings.name
        self.call("sacctmgr", "-i", "add", "cluster", name)
        self.call("sacctmgr", "-i", "add", "account", "lab", "other", f"cluster={name}")
        self.call("sacctmgr", "-i", "add", "user", "root", "nobody", f"cluster={name}", "account=lab")
        self.call("sacctmgr", "-i", "add", "user", "root", f"cluster={name}", "account=other")

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / "log" / name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.environ, start_new_session=True
            )

    def _until(self, what: str, condition: Callable[[], bool], seconds: float = 60, detail: Sequence[str] = ()) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                queue = self.call("squeue", check=False)
                raise AssertionError("\n".join([f"waited {seconds:.0f} s in vain until {what}", queue, *detail]))
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


CONF = """\
ClusterName={settings.name}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
MaxArraySize={settings.max_array_size}
PrivateData={settings.private_data}
Epilog={folder}/epilog
JobSubmitPlugins=lua
MinJobAge=300
KillWait=5
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_min_interval=100000,sched_interval=2,bf_interval=2,batch_sched_delay=1
{nodes}
PartitionName=gpu Nodes=n[1-2] Default=YES MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP PriorityTier=2
PartitionName=short Nodes=n[1-2] MaxTime=00:02:00 State=UP PriorityTier=2
PartitionName=spare Nodes=n[1-2] MaxTime=1-00:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=grace Nodes=n[1-2] MaxTime=1-00:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime={settings.grace_s}
PartitionName=doomed Nodes=n[1-2] MaxTime=1-00:00:00 PriorityTier=1 PreemptMode=CANCEL
PartitionName=hidden Nodes=n[1-2] MaxTime=1-00:00:00 PriorityTier=2 Hidden=YES
"""

JOB_SUBMIT = """\
function slurm_job_submit(job, partitions, uid)
  if job.comment == "refuse" then
    slurm.log_user("Please name your project with --comment=PROJECT; see the site's handbook.")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, uid)
  return slurm.SUCCESS
end
"""

DBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={db_port}
StorageUser=root
StorageLoc=slurm
"""
