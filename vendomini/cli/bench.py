"""``vendomini bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson

if TYPE_CHECKING:
    from vendomini.config.schema import Model

STEPS = 6
"""How many of each recorded episode's steps are measured, the last ones."""


def bench(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Hugging Face id or local folder.")] = None,
    random_weights: Annotated[
        Path | None,
        typer.Option("--random-weights", help="A config.json: build this architecture with random weights."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=2, help="Conversations at once in the second column.")] = 16,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", min=8, help="Length of each prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=8, help="Length of each completion.")] = 64,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, bfloat16, float16 or float32.")] = "auto",
    recorded: Annotated[
        Path | None,
        typer.Option("--tune", help="A results folder: which of vLLM's arguments make these episodes faster?"),
    ] = None,
    to: Annotated[
        Path, typer.Option("--out", help="With --tune: the file for the best of them, which a phase can inherit.")
    ] = Path("tuned.yaml"),
    as_json: AsJson = False,
) -> None:
    """Measure tokens per second of eager, SDPA, Flash Attention and vLLM on one model, here, with the roofline.

    What can't run on this machine is listed with the reason. The table is Markdown. With --tune, vLLM alone
    is measured, with one argument after the other, on the prompts of recorded episodes (of a pilot, say).

    Examples:

      vendomini bench --model Qwen/Qwen3-0.6B

      vendomini bench --random-weights path/to/config.json --batch 32 --json

      vendomini bench --tune results/phase1_small_models/pilot --out tuned.yaml
    """
    from vendomini.errors import UsageError

    if recorded is not None:
        _tune(recorded, model, batch, to, as_json)
    elif (model is None) == (random_weights is None):
        raise UsageError("name a model with --model, or an architecture with --random-weights")
    else:
        _measure(model, random_weights, (batch, prompt_tokens, new_tokens), dtype, as_json)


def _measure(
    model: str | None, random_weights: Path | None, size: tuple[int, int, int], dtype: str, as_json: bool
) -> None:
    """Every engine that can run here.

    Args:
        size: conversations, and the tokens of each prompt and completion.
    """
    import asyncio
    import tempfile

    from vendomini.bench import Setting, bench, write_random_model
    from vendomini.cli.output import console, print_json
    from vendomini.errors import MissingExtraError
    from vendomini.probe import probe

    found = probe()
    for package in ("torch", "transformers"):
        if not found.package(package).works:
            raise MissingExtraError("vendomini bench", package, "hf")
    setting = Setting(*size)
    with tempfile.TemporaryDirectory(prefix="vendomini-bench-") as folder:
        name = model if random_weights is None else str(write_random_model(random_weights, Path(folder)))
        chosen = _as_configured(name, dtype, max(512, setting.prompt_tokens + setting.new_tokens + 1))
        say = console(stderr=True).print
        report = asyncio.run(bench(chosen, setting, found, say, title=model or str(random_weights)))
    if as_json:
        print_json(report.as_json())
    else:
        typer.echo(report.markdown())


def _as_configured(name: str | None, dtype: str, context: int) -> Model:
    from pydantic import ValidationError

    from vendomini.config.schema import Model
    from vendomini.errors import UsageError

    settings = {"name": name, "dtype": dtype, "context_length": context, "max_tokens": min(512, context // 2)}
    try:
        return Model.model_validate(settings)
    except ValidationError as exc:
        raise UsageError(f"--dtype: {exc.errors()[0]['msg']}") from exc


def _tune(folder: Path, model: str | None, batch: int, out: Path, as_json: bool) -> None:
    import asyncio
    from dataclasses import asdict

    from vendomini import tune
    from vendomini.cli.output import console, print_json
    from vendomini.errors import MissingExtraError
    from vendomini.probe import probe
    from vendomini.records import Results

    found = probe()
    if not found.package("vllm").works:
        raise MissingExtraError("vendomini bench --tune", "vllm", "vllm")
    say = console(stderr=True).print
    chosen, conversations = tune.recorded(Results(folder), model, batch, STEPS)
    trials = asyncio.run(tune.tune(chosen, conversations, found, say))
    if as_json:
        print_json({"model": chosen.name, "trials": [asdict(trial) for trial in trials]})
    else:
        typer.echo(tune.markdown(trials))
    winner = tune.best(trials)
    if winner is None:
        say("Nothing makes these episodes faster than vLLM's own settings do: no file was written.")
        return
    out.write_text(tune.as_yaml(chosen, winner, tune.gain(trials, winner), str(folder), found))
    say(f"{out} has the best: a phase uses it with `inherit: {out.name}`.")
