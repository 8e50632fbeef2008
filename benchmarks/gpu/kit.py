"""Everything that only a GPU can show, on a machine with one and without a network, within ten minutes.

    python -m benchmarks.gpu                       writes gpu-figures/figures.json and gpu-figures/table.md
    python -m benchmarks.gpu --only packing        a part alone; repeatable
    python -m benchmarks.gpu --device cpu --tiny   tries the kit itself, in seconds

The model has random weights and is made on the spot. Each part runs in a process of its own, so that it begins with an
empty GPU and a crash costs that part alone; what there was no time for is said in the table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu import attention, engines
from benchmarks.gpu.plan import TINY, Plan, write_model
from benchmarks.gpu.table import markdown

PARTS: dict[str, Callable[[Plan, Path], dict[str, Any]]] = {
    "machine": attention.machine,
    "attentions": attention.attentions,
    "products": attention.products,
    "packing": attention.packing,
    "prompts": attention.prompts,
    "memory": attention.memory,
    "ours": engines.ours,
    "unrecorded": engines.unrecorded,
    "continuous": engines.continuous,
    "vllm": engines.vllm,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, everything in this process")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part; repeatable")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("gpu-figures"))
    asked = parser.parse_args(arguments)
    plan = Plan(asked.device, **(TINY if asked.tiny else {}))
    wanted = asked.only or list(PARTS)
    began = time.monotonic()
    os.environ["HF_HUB_OFFLINE"] = "1"
    asked.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.gpu", *(sys.argv[1:] if arguments is None else arguments)]),
        "date": datetime.now(UTC).date().isoformat(),
        "plan": asdict(plan),
        "parts": {},
    }
    measure = _here if asked.tiny else _apart
    with tempfile.TemporaryDirectory(prefix="vendomini-gpu-") as name:
        folder = write_model(plan, Path(name)) if asked.tiny else _write_apart(plan, Path(name))
        for part in wanted:
            left = asked.minutes * 60 - (time.monotonic() - began)
            print(f"[*] {part}, {left:.0f} s left", flush=True)
            figures["parts"][part] = measure(part, plan, folder, left) if left > 0 else {"failed": "no time was left"}
            figures["seconds"] = time.monotonic() - began
            (asked.out / "figures.json").write_text(json.dumps(figures, indent=1))
            (asked.out / "table.md").write_text(markdown(figures))
    print(markdown(figures))
    return 0


def _here(part: str, plan: Plan, folder: Path, _left: float) -> dict[str, Any]:
    try:
        return PARTS[part](plan, folder)
    except Exception as exc:  # the other parts can still be measured
        return {"failed": f"{type(exc).__name__}: {exc}"}


def _write_apart(plan: Plan, folder: Path) -> Path:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(write_model, plan, folder).result()


def _apart(part: str, plan: Plan, folder: Path, left: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, part, plan, folder, left))
    process.start()
    sender.close()
    try:
        if not receiver.poll(left):
            return {"failed": f"stopped after {left:.0f} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"failed": f"its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(sender: Any, part: str, plan: Plan, folder: Path, left: float) -> None:
    sender.send(_here(part, plan, folder, left))
