"""``vendomini doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vendomini.cli.options import AsJson, Override, complete

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.config.schema import EngineConfig, Model
    from vendomini.engines.doctor import Advice, Verdict
    from vendomini.probe import Capabilities

USUAL_STEPS = 500
"""Length of the episodes that a model named by itself is judged for, as in phase 1."""

MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]--[/]", "no": "[red]no[/]"}


def doctor(
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="Recommend an engine for each of its models.", autocompletion=complete),
    ] = None,
    override: Override = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Check whether this model fits here; repeatable.")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at a compute node instead, through a small job.")
    ] = False,
    partition: Annotated[
        str | None, typer.Option("--partition", "-p", help="With --cluster.", show_default="the cluster's own")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what this machine can do, why, and the command that installs or fixes what is missing.

    Examples:

      vendomini doctor

      vendomini doctor --model Qwen/Qwen3-8B

      vendomini doctor --config phase1_large -o agent.model.name=Qwen/Qwen3-8B

      vendomini doctor --cluster --partition gpu
    """
    import os
    from dataclasses import asdict

    from vendomini.cli.output import print_json
    from vendomini.engines.doctor import next_command, verdicts
    from vendomini.errors import UsageError
    from vendomini.probe import probe

    if cluster:
        _on_a_node(partition, as_json)
        return
    if partition:
        raise UsageError("--partition goes with --cluster")
    if override and not config:
        raise UsageError("-o goes with --config")
    advice_for = _models(config, override or ()) if config else []
    found = probe(deep=True)
    judged = verdicts(found, os.environ)
    advice = [*_advice(advice_for, found), *(_alone(name, found) for name in model or ())]
    if as_json:
        print_json(
            {
                "verdicts": [asdict(verdict) for verdict in judged],
                "advice": [asdict(entry) for entry in advice],
                "next": next_command(found),
                "capabilities": found.as_json(),
            }
        )
        return
    _print(judged, advice, next_command(found))


def _on_a_node(partition: str | None, as_json: bool) -> None:
    from vendomini.cli.output import print_json
    from vendomini.cluster.probe_job import probe_job
    from vendomini.engines.doctor import Verdict

    report = probe_job(partition)
    if as_json:
        print_json(report)
    else:
        _print([Verdict(**verdict) for verdict in report["verdicts"]], [], report["next"])


class Asked(NamedTuple):
    """A model to give advice on: the longest episode it runs, its own settings and its engine's."""

    model: Model
    steps: int
    settings: dict[str, object]
    engine: EngineConfig


def _models(config: str, overrides: Sequence[str]) -> list[Asked]:
    """Each model of the phase."""
    from vendomini.config import expand
    from vendomini.config.experiments import load_phase
    from vendomini.config.models import model_section
    from vendomini.config.schema import Model

    phase = load_phase(config, overrides)
    longest = max(spec.horizon for spec in expand(phase) if spec.replication == 0)
    own = phase.own_settings()
    return [
        Asked(
            Model.model_validate(model_section(base)),
            longest,
            own.get(name, {}),
            phase.engines.get(name, phase.config.engine),
        )
        for name, base in phase.bases.items()
    ]


def _advice(models: list[Asked], found: Capabilities) -> list[Advice]:
    from vendomini.engines.doctor import advise
    from vendomini.engines.foresee import foresee

    return [
        replace(
            _sized(advise(asked.model, asked.steps, found)),
            settings=asked.settings,
            runs_on=foresee(asked.model, asked.engine, found),
            reading=_reading(asked.model, asked.engine, found),
        )
        for asked in models
    ]


def _sized(advice: Advice) -> Advice:
    """With the size that the model's name gives, if its files don't."""
    from vendomini.cluster.throughput import billions

    size = billions(advice.model) if advice.gpus == "unknown" else None
    named = f"; by its name it has {size:g}B parameters, {2 * size:g} GB of 16-bit weights" if size else ""
    return replace(advice, why=advice.why + named)


def _alone(name: str, found: Capabilities) -> Advice:
    """Advice on a model with the settings of the base config. If it is not here, the Hub describes it."""
    import tempfile

    from vendomini.config.schema import EngineConfig, Model
    from vendomini.engines.doctor import Advice
    from vendomini.errors import EngineUnavailable
    from vendomini.model_info import hub, locate

    with tempfile.TemporaryDirectory(prefix="vendomini-doctor-") as folder:
        try:
            files = locate(name, None, found)
            if files is None:
                hub.describe(name, None, Path(folder))
        except EngineUnavailable as exc:
            return _sized(Advice(name, "unknown", "–", "–", str(exc)))
        asked = Asked(Model(name=str(files or folder)), USUAL_STEPS, {}, EngineConfig())
        advice = _advice([asked], found)[0]
        return replace(advice, model=name, reading=advice.reading if files else "")


def _reading(model: Model, engine: EngineConfig, found: Capabilities) -> str:
    """How its replies will be read, or why that can't be told yet; empty for a control."""
    from vendomini.agent import how_read
    from vendomini.engines.hf.model import load_tokenizer
    from vendomini.errors import VendoMiniError
    from vendomini.model_info import locate

    if model.name.startswith("scripted/"):
        return ""
    if engine.backend == "openai":
        return "the server's own division into thought and answer, else by the markers of all families"
    try:
        if locate(model.name, model.revision, found) is None:
            return f"what its chat template says, once its files are here: vendomini prefetch {model.name}"
        return how_read(load_tokenizer(model), model)
    except VendoMiniError as exc:
        return f"nothing that can be told now: {exc}"


def _print(judged: list[Verdict], advice: list[Advice], command: str) -> None:
    from rich.text import Text

    from vendomini.cli.output import Rows, console

    out = console()
    features = Rows(["", "feature", "what was found"], words=2, prose=True)
    for verdict in judged:
        fix = f"\n→ {verdict.fix}" if verdict.fix else ""
        features.add(Text.from_markup(MARKS[verdict.status]), verdict.feature, verdict.reason + fix)
    out.print(features)
    for entry in advice:
        _print_advice(entry, out)
    out.print(f"\nnext: {command}", markup=False)


def _print_advice(entry: Advice, out: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from vendomini.config.paths import as_text
    from vendomini.errors import harmless

    lines = {
        "GPUs": entry.gpus,
        "Flash Attention": entry.flash_attention,
        "vLLM": entry.vllm,
        "why": entry.why,
        "would run here on": entry.runs_on,
        "is read by": entry.reading,
        "settings of its own": ", ".join(
            f"{path.removeprefix('agent.model.')} {as_text(value)}" for path, value in entry.settings.items()
        ),
    }
    out.print(f"\n{entry.model}", style="bold", markup=False)
    for name, told in lines.items():
        if told not in {"", "–"}:
            out.print(Padding(Text(harmless(f"{name}: {told}")), (0, 0, 0, 2), expand=False))
