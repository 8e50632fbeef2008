"""A job's process on one of several nodes, with a small program in the place of vLLM's workers.

``python -m tests.cluster.stand_in FOLDER``, under srun. What the real thing adds is in
``vendomini/engines/vllm/nodes.py``; how processes find each other, wait for each other and end together is here.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from vendomini.cluster import nodes
from vendomini.config.schema import EngineConfig, Model

WORKER = """
import json, os, sys, time
from vendomini.engines.vllm.nodes import NodeGroup
from vendomini.probe.commands import die_with_parent
die_with_parent()
arguments = NodeGroup.of(2, os.environ).engine_args()
open(sys.argv[1] + "/worker.json", "w").write(json.dumps(arguments | {"pid": os.getpid()}))
time.sleep(600)
"""


nodes.GRACE_S = 3.0


def main(folder: Path) -> int:
    group = nodes.node_group(os.environ, 2)
    (folder / f"rank{group.rank}").write_text(str(os.getpid()))
    if group.rank:
        nodes.follower = lambda model, engine: [sys.executable, "-c", WORKER, str(folder)]  # type: ignore[assignment]
        return nodes.following(group, Model(), EngineConfig())
    with nodes.leading(group):
        while not (folder / "go").exists():
            time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
