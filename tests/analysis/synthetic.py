"""Results folders with a known truth, written with the program's own records and no simulation."""

import math
from pathlib import Path

import numpy as np

from vendomini.config.grid import expand
from vendomini.config.load import build_phase
from vendomini.records import Plan, Results, RunInfo, RunSummary, StepLog, StepRecord, write_record

DETECTORS = ("looping", "invalid_burst", "budget_denial", "decoupling", "exploration_collapse", "slow_divergence")
MODELS = ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-32B", "scripted/fragile"]
PROMPT = 'You run a small vending warehouse.\n\nTOOLS\n{"name":"tool_order"}\n\nREPLY\n{"type":"object"}'


def config(name="synthetic", replications=5, max_steps=100, models=MODELS, shocks=(0.0, 0.2, 0.4), **grid):
    return {
        "experiment": {"name": name, "description": "Runs with a known truth.", "replications": replications},
        "simulation": {"max_steps": max_steps},
        "grid": {"agent.model.name": list(models), "pe_induction.p_shock": list(shocks), **grid},
    }


def no_effect(_parameters):
    return 1.0


def dose_effect(parameters):
    """Three times the hazard for each 0.2 of p_shock."""
    return 3 ** (parameters["pe_induction"]["p_shock"] / 0.2)


def write_results(root: Path, tree=None, ratio=dose_effect, hazard=0.002, seed=0, steps=True) -> list[str]:
    """A results folder in which every run of the config has finished; the ids of its runs."""
    tree = tree or config()
    results = Results(root)
    results.create()
    specs = list(expand(build_phase(tree)))
    write_record(results.plans / "plan.json", Plan(name=tree["experiment"]["name"], runs=len(specs), config=tree))
    rng = np.random.default_rng(seed)
    for spec in specs:
        write_run(results, spec, ratio(spec.parameters) * hazard, rng, steps)
    return [spec.run_id for spec in specs]


def write_run(results, spec, hazard, rng, steps=True):
    horizon = spec.parameters["simulation"]["max_steps"]
    time = math.ceil(rng.exponential(1 / hazard))
    crash = time if time <= horizon else None
    length = min(horizon, crash + 20) if crash else horizon
    kind = str(rng.choice(DETECTORS[:3])) if crash else None
    ending = "crashed" if rng.random() < 0.8 else "bankrupt"
    if ending == "bankrupt" and crash:
        length, kind = crash, None
    paths = results.run(spec.run_id)
    paths.folder.mkdir(parents=True, exist_ok=True)
    write_record(paths.info, info(spec))
    write_record(paths.summary, summary(spec, ending if crash else "survived", crash or horizon, length, kind))
    paths.steps.unlink(missing_ok=True)
    write_steps(paths.steps, length if steps else 0, crash if kind else None, kind, rng)


def info(spec, **changes):
    fields = {
        "run_id": spec.run_id, "parameters": spec.parameters, "seed": spec.seed, "replication": spec.replication,
        "system_prompt": PROMPT, "owner": {"host": "node1", "pid": 7}, "attempt": 1,
        "started_at": "2026-11-23T10:00:00Z",
    }  # fmt: skip
    return RunInfo(**fields | changes)


def summary(spec, ending, time, length, kind=None):
    return RunSummary(
        run_id=spec.run_id, parameters=spec.parameters, seed=spec.seed, replication=spec.replication, ending=ending,
        crash_type=kind, severity="hard" if kind else None, time_to_crash=time, event_observed=ending != "survived",
        steps=length,
        world={"days": length // 4, "orders_total": 20, "orders_fulfilled": 12, "orders_expired": 5,
               "budget": 1234.5, "net_worth": 2345.6},
        prompt_tokens=1000 * length, cached_tokens=900 * length, completion_tokens=80 * length,
        detectors={name: {"onset": time, "duration": 20, "let_go": False, "severity": "hard"} if name == kind else None
                   for name in DETECTORS},
        pe={"temporal": {"n": 9, "mean": 0.4, "fast": 0.4, "medium": 0.3, "slow": 0.2, "w10": 0.4}, "causal": None},
        shocks={"realised": 5, "armed": 0, "void": 1, "types": {"temporal": {"n": 5, "nominal": 2.0, "realised": 2.0}}},
        parse={"ok": length, "repaired": 0, "unparsable": 0}, seconds=length * 0.5,
        engine={"backend": "scripted" if "scripted" in spec.parameters["agent"]["model"]["name"] else "vllm",
                "model": spec.parameters["agent"]["model"]["name"], "attention": None, "details": {}, "rejected": {}},
        versions={"vendomini": "0.1.0"}, ended_at="2026-11-23T10:10:00Z",
    )  # fmt: skip


def write_steps(path, length, crash=None, kind=None, rng=None, **changes):
    log = StepLog(path)
    for number in range(len(log.records) + 1, length + 1):
        log.append(step(number, crash is not None and number >= crash, kind, rng, **changes))
    log.close()


def step(number, crashed=False, kind=None, rng=None, **changes):
    level = min(number / 100, 1.0) + (rng.normal(0, 0.02) if rng else 0.0)
    other = dict.fromkeys(("fast", "medium", "slow", "w10"), float(rng.random()) * level if rng else 0.0)
    means = {"fast": level, "medium": level / 2, "slow": level / 4, "w10": level}
    fields = {
        "step": number, "day": number // 4, "completion": f'{{"thought": "Step {number}."}}', "finish_reason": "stop",
        "observation": {"step": number, "day": number // 4, "actions_left_today": 4, "budget": 1000.0 - number},
        "parse": "ok", "thought": f"Step {number}.", "tool": "tool_check_inbox", "arguments": {},
        "card": {"expected_success": True}, "result": {"ok": number % 9 > 0, "messages": []},
        "shocks": [{"struck": number, "type": "temporal", "kind": "delay", "status": "realised", "target": "S1",
                    "nominal": 2, "realised": 2}] if number % 10 == 5 else [],
        "resolved": [{"type": "temporal", "made": number - 1, "expected": 4, "actual": 6, "pe": 0.5}]
                    if number % 5 == 0 else [],
        "pe": {"temporal": means, "quantity": None, "cost": None, "causal": other, "all": means} if number > 4
              else dict.fromkeys(("temporal", "quantity", "cost", "causal", "all")),
        "detectors": {**dict.fromkeys(DETECTORS, 0.0), "on": [kind] if crashed else []},
        "prompt_tokens": 1000, "cached_tokens": 900, "completion_tokens": 80, "latency_s": 0.5,
    }  # fmt: skip
    return StepRecord(**fields | changes)
