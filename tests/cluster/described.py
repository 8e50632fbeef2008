"""Clusters that are only described: what jobs would get there."""

from __future__ import annotations

from pathlib import Path

from vendomini.cluster.offers import Offers
from vendomini.cluster.site import Cluster
from vendomini.probe import Partition


def offers(
    gres: str = "gpu:h100:8", time_limit: str = "2-00:00:00", templates: Path | None = None, **options: str
) -> Offers:
    """A cluster with one partition."""
    cluster = Cluster((Partition("gpu", True, time_limit, 9, gres, "up"),), 1001, live=False)
    return Offers(lambda _: cluster, templates, options, live=False)
