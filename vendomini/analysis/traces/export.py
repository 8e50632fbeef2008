"""Episodes for other tools: Inspect AI's ``.eval`` logs, and plain JSON lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec

from vendomini.analysis.tables.study import show
from vendomini.config.paths import lookup
from vendomini.config.worlds import world_of
from vendomini.errors import ConfigError, CorruptRecordError, ResultsError
from vendomini.records import Results, RunPaths, RunSummary, StepRecord, read_record, read_steps, replacing, write_error
from vendomini.worlds.conversation import user_turn

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_EPOCH = "1970-01-01T00:00:00+00:00"
_STOP_REASONS = {"stop": "stop", "length": "max_tokens"}


def export_jsonl(runs: Sequence[tuple[Results, str]], out: Path) -> Path:
    """One line a step of all runs: the record as logged, without its seal, with ``run_id`` in front.

    Raises:
        CorruptRecordError: a log is damaged, or shorter than its run's summary says.
        ResultsError: the file can't be written.
    """
    try:
        with open(out, "wb") as file:
            for results, run_id in runs:
                for step in _steps(results, run_id, results.summary(run_id)):
                    file.write(_encode({"run_id": run_id, **msgspec.to_builtins(step)}) + b"\n")
    except FileNotFoundError as exc:
        raise ResultsError(f"{exc.filename} does not exist") from exc
    except OSError as exc:
        raise write_error(out, exc) from exc
    return out


def _steps(results: Results, run_id: str, summary: RunSummary | None) -> Iterator[StepRecord]:
    """The steps of a run; of one that has ended, all of them or an error."""
    path, logged = results.run(run_id).steps, 0
    for step in read_steps(path):
        logged = step.step
        yield step
    if summary and summary.finished and summary.steps != logged:
        raise CorruptRecordError(f"{path} holds {logged} steps where the summary counts {summary.steps}")


def export_inspect(runs: Sequence[tuple[Results, str]], out: Path) -> list[Path]:
    """Logs that Inspect View opens, one a model: each run is a sample, each step a model event and a tool event.

    A model event carries only the turn that is new to the model, not the conversation before it: with the whole
    conversation a log would grow with the square of its steps.

    Args:
        runs: finished runs.
        out: folder for the ``.eval`` files; made if need be.

    Raises:
        CorruptRecordError: a record is damaged.
        ResultsError: a run has not ended, or a file can't be written.
    """
    by_model: dict[str, list[tuple[Results, RunSummary]]] = {}
    for results, run_id in runs:
        summary = results.summary(run_id)
        if summary is None:
            raise ResultsError(f"{run_id} has not ended yet: export it when it has")
        by_model.setdefault(str(summary.parameters["agent"]["model"]["name"]), []).append((results, summary))
    out.mkdir(parents=True, exist_ok=True)
    return [_write_log(model, group, out) for model, group in by_model.items()]


def _write_log(model: str, runs: Sequence[tuple[Results, RunSummary]], out: Path) -> Path:
    """Members in the order Inspect AI writes them; samples are streamed, one in memory at a time."""
    identity = hashlib.sha256("\n".join([model, *(summary.run_id for _, summary in runs)]).encode()).hexdigest()[:22]
    path = out / f"{_file_name(model)}_{identity[:8]}.eval"
    start = _start(model, [summary for _, summary in runs], identity)
    summaries = [_sample_summary(summary) for _, summary in runs]
    try:
        with replacing(path) as file, ZipFile(file, "w", ZIP_DEFLATED, compresslevel=6) as log:
            log.writestr("_journal/start.json", _encode(start))
            for results, summary in runs:
                log.writestr(f"samples/{summary.run_id}_epoch_1.json", _encode(_sample(results, summary)))
            log.writestr("summaries.json", _encode(summaries))
            log.writestr("header.json", _encode({**start, **_ending([summary for _, summary in runs])}))
    except OSError as exc:
        raise write_error(path, exc) from exc
    return path


def _file_name(model: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in model)


def _time(summary: RunSummary) -> str:
    return summary.ended_at.replace("Z", "+00:00") or _EPOCH


def _start(model: str, summaries: Sequence[RunSummary], identity: str) -> Json:
    ids = [summary.run_id for summary in summaries]
    return {
        "version": 2,
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "created": min(_time(summary) for summary in summaries),
            "task": "vendomini",
            "task_id": identity,
            "task_version": 0,
            "task_args": {},
            "dataset": {"name": "vendomini", "samples": len(ids), "sample_ids": ids, "shuffled": False},
            "model": show(model),
            "config": {"epochs": 1},
            "packages": {"vendomini": str(summaries[0].versions.get("vendomini", ""))},
            "scorers": [{"name": name} for name in ("event", "time_to_crash")],
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
    }


def _ending(summaries: Sequence[RunSummary]) -> Json:
    times = sorted(_time(summary) for summary in summaries)
    events = [float(bool(summary.event_observed)) for summary in summaries]
    metric = {"name": "mean", "value": sum(events) / len(events), "params": {}}
    return {
        "status": "success",
        "results": {
            "total_samples": len(summaries),
            "completed_samples": len(summaries),
            "scores": [{"name": "event", "scorer": "event", "params": {}, "metrics": {"mean": metric}}],
        },
        "stats": {"started_at": times[0], "completed_at": times[-1], "model_usage": _usage(summaries)},
    }


def _sample_summary(summary: RunSummary) -> Json:
    return {
        "id": summary.run_id,
        "epoch": 1,
        "input": summary.run_id,
        "target": "",
        "metadata": _metadata(summary),
        "scores": _scores(summary),
        "model_usage": _usage([summary]),
        "completed": True,
        "message_count": 1 + 2 * summary.steps,
    }


def _metadata(summary: RunSummary) -> Json:
    return {
        "ending": summary.ending,
        "crash_type": summary.crash_type,
        "severity": summary.severity,
        "seed": summary.seed,
        **_dose(summary.parameters),
    }


def _dose(parameters: Json) -> Json:
    """The dose under its own name, where the run's world is installed here."""
    try:
        path = world_of(parameters, trusted=False).dose
    except ConfigError:
        return {}
    return {path.rpartition(".")[2]: lookup(parameters, path)}


def _scores(summary: RunSummary) -> Json:
    told = summary.ending if summary.ending != "crashed" else f"crashed: {summary.crash_type}"
    how = (
        f"{told}, at step {summary.time_to_crash}" if summary.event_observed else
        f"no event in {summary.time_to_crash} steps: right-censored there"
    )  # fmt: skip
    return {
        "event": {
            "value": float(bool(summary.event_observed)),
            "answer": told,
            "explanation": f"1 for an event: {how}.",
        },
        "time_to_crash": {
            "value": float(summary.time_to_crash or 0),
            "answer": told,
            "explanation": f"Steps to the first event, or to the end without one: {how}.",
        },
    }


def _usage(summaries: Sequence[RunSummary]) -> Json:
    """Tokens of one model over some of its runs, as Inspect AI counts them."""
    prompt, completion = (sum(getattr(s, name) for s in summaries) for name in ("prompt_tokens", "completion_tokens"))
    usage: Json = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
    cached = [summary.cached_tokens for summary in summaries if summary.cached_tokens is not None]
    if cached:
        usage["input_tokens_cache_read"] = sum(cached)
    return {show(summaries[0].parameters["agent"]["model"]["name"]): usage}


def _sample(results: Results, summary: RunSummary) -> Json:
    model = show(summary.parameters["agent"]["model"]["name"])
    begun = datetime.fromisoformat(_time(summary)) - timedelta(seconds=summary.seconds)
    system = _system_prompt(results.run(summary.run_id))
    messages, events = [system] if system else [], []
    for user, assistant, step in _turns(_steps(results, summary.run_id, summary)):
        messages += [user, assistant]
        events += _events(model, user, assistant, step, begun)
    return {
        "id": summary.run_id,
        "epoch": 1,
        "input": messages[:2],
        "target": "",
        "messages": messages,
        "output": {"model": model, "choices": []},
        "scores": _scores(summary),
        "metadata": {
            **_metadata(summary),
            "parameters": summary.parameters,
            "model": summary.parameters["agent"]["model"],
        },
        "store": {},
        "events": events,
        "model_usage": _usage([summary]),
        "attachments": {},
    }


def _system_prompt(paths: RunPaths) -> Json | None:
    from vendomini.records import RunInfo

    try:
        content = read_record(paths.info, RunInfo).system_prompt
    except FileNotFoundError:
        return None
    return {"id": "system", "role": "system", "content": content}


def _turns(steps: Iterator[StepRecord]) -> Iterator[tuple[Json, Json, StepRecord]]:
    before: StepRecord | None = None
    for step in steps:
        user = {"id": f"u{step.step}", "role": "user", "content": user_turn(step.observation, before and before.result)}
        yield user, {"id": f"a{step.step}", "role": "assistant", "content": step.completion, "source": "generate"}, step
        before = step


def _events(model: str, user: Json, assistant: Json, step: StepRecord, begun: datetime) -> list[Json]:
    """The completion, the call it was read as, and what the measures made of it."""
    seconds = step.latency_s or 0.0
    stamp = {"timestamp": (begun + timedelta(seconds=step.step)).isoformat(), "working_start": float(step.step)}
    usage = {
        "input_tokens": step.prompt_tokens,
        "output_tokens": step.completion_tokens,
        "total_tokens": step.prompt_tokens + step.completion_tokens,
        "input_tokens_cache_read": step.cached_tokens,
    }
    choice = {"message": assistant, "stop_reason": _STOP_REASONS.get(step.finish_reason, "unknown")}
    output = {"model": model, "choices": [choice], "usage": usage, "time": seconds}
    measured = {
        name: getattr(step, name) for name in ("step", "parse", "card", "shocks", "resolved", "pe", "detectors")
    }
    return [
        {**stamp, "event": "model", "uuid": f"m{step.step}", "model": model, "input": [user], "tools": [],
         "tool_choice": "none", "config": {}, "output": output},
        {**stamp, "event": "tool", "uuid": f"t{step.step}", "type": "function", "id": f"c{step.step}",
         "function": step.tool or "unparsable", "arguments": _mapping(step.arguments),
         "result": _encode(step.result).decode(), "events": [], **_failure(step)},
        {**stamp, "event": "info", "uuid": f"i{step.step}", "source": "vendomini", "data": measured},
    ]  # fmt: skip


def _failure(step: StepRecord) -> Json:
    """Marks the result of a call that failed, in one of Inspect AI's own kinds."""
    error = step.result.get("error")
    if step.result.get("ok") or not isinstance(error, dict):
        return {}
    kind = "parsing" if error.get("code") in {"unparsable", "invalid_arguments", "unknown_tool"} else "unknown"
    return {"error": {"type": kind, "message": f"{error.get('code')}: {error.get('message')}"}, "failed": True}


def _mapping(arguments: object) -> Json:
    """Inspect AI wants a mapping, and an agent may have sent anything."""
    return arguments if isinstance(arguments, dict) else {"sent": arguments}
