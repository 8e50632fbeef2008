"""Errors that shocks caused: what the warehouse promised against what it then delivered, whatever the agent expected.

An order promises its day and its quantity; its delivery settles both. A posting lag or a rise of prices that takes
effect breaks what the call itself promised. The agent's own mistakes have no part in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vendomini.records import StepRecord

Caused = dict[str, float]
"""Type of error → mean error that this step settled, of promises made before any detector went on."""


def caused_errors(steps: Iterable[StepRecord]) -> Iterator[Caused]:
    """For each step of one episode, the errors of broken and of kept promises that it settled; 0 for a kept one."""
    promised: dict[str, tuple[int, int, int]] = {}
    derailed = False
    for step in steps:
        derailed = derailed or bool(step.detectors.get("on"))
        found: dict[str, list[float]] = {}
        for claim in step.resolved:
            promise = promised.get(str(claim.get("order_id")))
            if promise is None:
                continue
            made, arrival, quantity = promise
            if claim["type"] == "temporal":
                found.setdefault("temporal", []).append(abs(claim["actual"] - arrival) / max(arrival - made, 1))
            elif claim["type"] == "quantity":
                found.setdefault("quantity", []).append(abs(claim["actual"] - quantity) / max(quantity, 1))
        if not derailed:
            _remember(step, promised)
            if step.result.get("ok"):
                struck = any(s["type"] == "causal" and s["status"] == "realised" for s in step.shocks)
                found["causal"] = [float(struck)]
        yield {kind: sum(values) / len(values) for kind, values in found.items()}


def _remember(step: StepRecord, promised: dict[str, tuple[int, int, int]]) -> None:
    """An order, or one that was expedited, which moves its day."""
    result, arguments, day = step.result, step.arguments, int(step.day or 0)
    if not result.get("ok") or result.get("eta_day") is None or not isinstance(arguments, dict):
        return
    if step.tool == "tool_order":
        promised[result["order_id"]] = (day, result["eta_day"], int(arguments["quantity"]))
    elif step.tool == "tool_expedite" and arguments.get("order_id") in promised:
        _, _, quantity = promised[arguments["order_id"]]
        promised[arguments["order_id"]] = (day, result["eta_day"], quantity)
