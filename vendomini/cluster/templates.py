"""The sbatch templates in ``slurm/``: read here, so that one file says how a job runs, by hand and through ``submit``.

Above the marker are ``#SBATCH`` lines, which become the options of a submission, and shell lines, which become the
job's setup. Below it is the command of a job started by hand; ``submit`` brings its own.
"""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vendomini.cluster.slurm import minutes
from vendomini.config.shipped import shipped
from vendomini.errors import ConfigError

MARKER = "# ---- the job itself:"
"""The line that begins so ends what ``submit`` reads."""

GPU_COUNTS = (0, 1, 2, 4, 8)
"""There is one template for each, on one node."""

_SHORT = {
    "A": "account", "C": "constraint", "G": "gpus", "J": "job-name", "L": "licenses", "N": "nodes",
    "c": "cpus-per-task", "e": "error", "n": "ntasks", "o": "output", "p": "partition", "q": "qos", "t": "time",
    "w": "nodelist", "x": "exclude",
}  # fmt: skip
_REPLACED = {"job-name", "output", "error", "open-mode"}
"""Options for a job started by hand; a submission sets its own."""

_CARRIED = {
    "account", "acctg-freq", "begin", "clusters", "comment", "constraint", "container", "container-entrypoint",
    "container-env", "container-image", "container-mount-home", "container-mounts", "container-name",
    "container-readonly", "container-remap-root", "container-save", "container-workdir", "container-writable",
    "contiguous", "core-spec",
    "cores-per-socket", "cpu-freq", "cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "distribution",
    "exclude", "exclusive", "export", "gpu-bind", "gpu-freq", "gpus-per-node", "gres", "gres-flags", "hint",
    "kill-on-invalid-dep", "licenses",
    "mail-type", "mail-user", "mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice",
    "no-container-entrypoint", "no-container-mount-home", "no-container-remap-root", "no-requeue", "nodelist",
    "oversubscribe", "partition", "prefer", "priority", "profile", "propagate", "qos",
    "requeue", "reservation", "sockets-per-node", "switches", "thread-spec", "threads-per-core", "tmp", "wckey",
}  # fmt: skip
"""Passed on to sbatch as they are."""

_OURS = {
    "array": "submit makes the arrays itself",
    "dependency": "use `vendomini submit --after`",
    "gpus": "write --gpus-per-node, so that all of a model's GPUs are in one node",
    "gpus-per-task": "write --gpus-per-node",
    "chdir": "jobs run in the folder they are submitted from",
}
_ONE = {"ntasks": "one job is one process on each node", "ntasks-per-node": "one job is one process on each node"}


@dataclass(frozen=True, slots=True)
class Template:
    """One sbatch file.

    Attributes:
        gpus: of each node of a job.
        nodes: of a job.
        minutes: its time limit.
        signal_s: seconds before the limit at which the job is told to stop.
        options: the other directives, by their long names; True where one has no value.
        setup: shell lines that run before the job's command.
    """

    path: Path
    gpus: int
    nodes: int
    minutes: int
    signal_s: int
    options: dict[str, str | bool]
    setup: tuple[str, ...]

    @property
    def gpu_kind(self) -> str:
        """The only kind of GPU that it asks for, as in ``--gpus-per-node=a100:4``; empty for any."""
        kind, colon, _ = _asked_gpus(self.options).removeprefix("gpu:").rpartition(":")
        return kind if colon else ""

    @property
    def brings_python(self) -> bool:
        """Whether its jobs run in a Python of its own, as in a container."""
        return any(re.match(r"\s*(export\s+)?VENDOMINI_PYTHON=", line) for line in self.setup)


def load_template(gpus: int, folder: Path | None = None, nodes: int = 1) -> Template:
    """The template of a GPU count.

    Args:
        nodes: of the job, each with so many GPUs.
        folder: where the templates are; by default ``slurm/`` here, then the shipped ones.

    Raises:
        ConfigError: it is missing, or says something that can't be carried over into a submission.
    """
    folders = [folder] if folder else [Path("slurm"), shipped("slurm")]
    name = f"gpu{gpus}.sbatch" if nodes == 1 else f"gpu{gpus}x{nodes}.sbatch"
    path = next((f / name for f in folders if (f / name).is_file()), None)
    if path is None:
        raise ConfigError(f"there is no template {name} in {' or '.join(map(str, folders))}")
    try:
        template = parse_template(path, path.read_bytes().decode().replace("\r\n", "\n"))
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text: {exc.reason} at byte {exc.start}") from exc
    if template.gpus != gpus:
        raise ConfigError(f"{path} asks for {template.gpus} GPUs, but its name says {gpus}: correct --gpus-per-node")
    if template.nodes != nodes:
        raise ConfigError(
            f"{path}: one job runs one model on {nodes} node{'s' * (nodes > 1)}, so --nodes must be {nodes}"
        )
    return template


def parse_template(path: Path, text: str) -> Template:
    """Raises:
    ConfigError: names the line.
    """
    above, marker, _ = text.partition(f"\n{MARKER}")
    if not marker:
        raise ConfigError(f"{path} has no line that begins with {MARKER!r}: submit can't tell setup from command")
    directives, setup = _split(path, above.split("\n"))
    options: dict[str, str | bool] = {}
    own = {"time": "", "signal": "", "nodes": "1"}
    for line, (name, value) in directives.items():
        place = f"{path} line {line}"
        if name in own:
            own[name] = value or ""
        elif name in _CARRIED:
            options[name] = True if value is None else value
        elif name in _OURS:
            raise ConfigError(f"{place}: --{name} can't be used here: {_OURS[name]}")
        elif name in _ONE:
            if value != "1":
                raise ConfigError(f"{place}: --{name}={value}: {_ONE[name]}, so it must be 1")
        elif name not in _REPLACED:
            raise ConfigError(f"{place}: sbatch has no option --{name}{_near(name)}")
    nodes = int(own["nodes"]) if re.fullmatch("[0-9]{1,5}", own["nodes"]) else 0
    return Template(path, _gpus(options), nodes, _time(path, own["time"]), _signal(path, own["signal"]), options, setup)


def _split(path: Path, lines: list[str]) -> tuple[dict[int, tuple[str, str | None]], tuple[str, ...]]:
    """Directives by line number, and every line from the first command on."""
    directives: dict[int, tuple[str, str | None]] = {}
    setup: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#SBATCH"):
            if setup:
                raise ConfigError(f"{path} line {number}: sbatch ignores #SBATCH lines after a command: move it up")
            directives[number] = _directive(f"{path} line {number}", line)
        elif setup or (line.strip() and not line.startswith("#")):
            setup.append(line)
    return directives, tuple("\n".join(setup).rstrip("\n").split("\n") if setup else ())


def _directive(place: str, line: str) -> tuple[str, str | None]:
    try:
        words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
    except ValueError as exc:
        raise ConfigError(f"{place}: {exc} in {line!r}") from exc
    match = re.fullmatch(r"--([a-z-]+)(?:=(.*))?|-(\w)(.+)?", words[0]) if words else None
    if match is None or len(words) > 2:
        raise ConfigError(f"{place}: expected one option, as in #SBATCH --time=24:00:00, not {line!r}")
    long, long_value, short, short_value = match.groups()
    name = long or _SHORT.get(short, short)
    value = long_value if long_value is not None else short_value
    return name, words[1] if len(words) == 2 and value is None else value


def _near(name: str) -> str:
    known = [*_CARRIED, *_REPLACED, "time", "signal", "nodes", "ntasks-per-node"]
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean --{near[0]}?" if near else " that can be carried over into a submission"


def _gpus(options: dict[str, str | bool]) -> int:
    """The number in ``--gpus-per-node=4``, ``--gpus-per-node=a100:4`` or ``--gres=gpu:a100:4``."""
    last = _asked_gpus(options).rsplit(":", 1)[-1]
    return int(last) if re.fullmatch("[0-9]{1,9}", last) else 1


def _asked_gpus(options: dict[str, str | bool]) -> str:
    return str(options.get("gpus-per-node") or _gres_gpus(str(options.get("gres", ""))) or "0")


def _gres_gpus(gres: str) -> str:
    return next((one for one in gres.split(",") if one == "gpu" or one.startswith("gpu:")), "")


def _time(path: Path, text: str) -> int:
    limit = minutes(text)
    if not limit:
        raise ConfigError(f"{path}: it needs a time limit such as #SBATCH --time=24:00:00, not {text or 'none'!r}")
    return limit


def _signal(path: Path, text: str) -> int:
    match = re.fullmatch(r"(?:SIG)?USR2@([0-9]{1,9})", text)
    if match is None:
        raise ConfigError(
            f"{path}: it needs #SBATCH --signal=USR2@<seconds>, which tells a job to stop before its time is up, "
            f"not {text or 'none'!r}"
        )
    return int(match.group(1))
