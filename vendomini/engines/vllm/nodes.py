"""One model over several nodes: vLLM runs on each, and the first leads.

Tensor parallel inside a node, where GPUs are connected fast; pipeline parallel across nodes.
``python -m vendomini.engines.vllm.nodes`` is a follower; it computes for the leader until the leader is gone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from vendomini.errors import EngineUnavailable

NODES, RANK, HEAD = "VENDOMINI_NODES", "VENDOMINI_NODE_RANK", "VENDOMINI_HEAD"
"""Set by a job on several nodes: their number, which of them this is (from 0), and the first one's ``address:port``."""


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """The nodes of a job, seen from one of them."""

    nodes: int
    rank: int
    address: str
    port: int

    @classmethod
    def of(cls, nodes: int, environ: Mapping[str, str]) -> NodeGroup | None:
        """Args:
            nodes: as ``engine.nodes`` asks; None for one.

        Raises:
            EngineUnavailable: this is not a job on that many nodes.
        """
        if nodes == 1:
            return None
        if environ.get(NODES) != str(nodes):
            raise EngineUnavailable(f"engine.nodes is {nodes}, for which vLLM needs a job of vendomini submit")
        address, _, port = environ[HEAD].rpartition(":")
        return cls(nodes, int(environ[RANK]), address, int(port))

    def environ(self) -> dict[str, str]:
        return {NODES: str(self.nodes), RANK: str(self.rank), HEAD: f"{self.address}:{self.port}"}

    def engine_args(self) -> dict[str, object]:
        """Arguments of ``AsyncEngineArgs``."""
        return {
            "nnodes": self.nodes,
            "node_rank": self.rank,
            "master_addr": self.address,
            "master_port": self.port,
            "pipeline_parallel_size": self.nodes,
            "distributed_executor_backend": "mp",
        }


def follow(model: str, engine: str) -> None:
    """Args:
    model, engine: the config's sections, as JSON.
    """
    from vendomini.config.schema import EngineConfig, Model
    from vendomini.engines.vllm.settings import Settings
    from vendomini.probe import probe
    from vendomini.probe.commands import die_with_parent

    die_with_parent()
    settings = Settings(Model.model_validate_json(model), EngineConfig.model_validate_json(engine), probe(deep=True))
    os.environ.update(settings.environ(os.environ))
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    config = AsyncEngineArgs(**settings.engine_args()).create_engine_config(headless=True)
    MultiprocExecutor(config, monitor_workers=False).start_worker_monitor(inline=True)


if __name__ == "__main__":
    follow(*sys.argv[1:])
