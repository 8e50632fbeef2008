"""What a job of a given size gets here: its template, the options that override it, and its partition."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vendomini.cluster.site import Cluster, Site
from vendomini.cluster.templates import Template, load_template
from vendomini.errors import UsageError

DEFAULTS = ("account", "partition", "qos", "constraint", "reservation", "clusters", "wckey")
"""Options for which a site may set ``SBATCH_ACCOUNT`` and the like in its users' shells: they apply where neither the
command line nor the template says otherwise; no other such variable does."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A template, the partition filled in, and that partition's limits."""

    template: Template
    site: Site


@dataclass(frozen=True, slots=True)
class Offers:
    """Looks up what a job would get.

    Attributes:
        find: the cluster that ``--clusters`` names; empty for the one that SLURM's commands talk to by default.
        templates: folder of the sbatch templates; by default ``slurm/`` here, then the shipped ones.
        options: sbatch options that override those of the templates.
        minutes: time limit, overriding the templates'.
        live: SLURM can be asked about jobs; false for a cluster that is only described.
    """

    find: Callable[[str], Cluster]
    templates: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    minutes: int | None = None
    live: bool = True

    def __call__(self, gpus: int, nodes: int = 1) -> Offer:
        """What a job gets with these numbers of GPUs per node and of nodes.

        Raises:
            ConfigError: there is no such template, or it is wrong.
            ClusterError: its partition does not exist, or SLURM does not answer.
            UsageError: an option has a line break in it.
        """
        template = load_template(gpus, self.templates, nodes)
        options = {**environment_defaults(), **template.options, **self.options}
        site = self.find(str(options.get("clusters", ""))).site(str(options.get("partition") or "") or None)
        if site.partition:
            options["partition"] = site.partition
        for name, value in options.items():
            printable(f"--{name}", str(value))
        return Offer(replace(template, minutes=self.minutes or template.minutes, options=options), site)


def printable(what: str, name: str) -> None:
    """sbatch reads a script by lines, whatever quotes say: a line break in a name would begin an option.

    Raises:
        UsageError: there is one, or another control character.
    """
    if not name.isprintable():
        raise UsageError(f"{what} {name!r} has a line break or another control character: choose another")


def environment_defaults() -> dict[str, str | bool]:
    """Option → value, from the ``SBATCH_*`` variables that a site sets for its users."""
    named = {option: os.environ.get(f"SBATCH_{option.upper()}", "") for option in DEFAULTS}
    named["clusters"] = named["clusters"] or os.environ.get("SLURM_CLUSTERS", "")
    return {option: value for option, value in named.items() if value}
