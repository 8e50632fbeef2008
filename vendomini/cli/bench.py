"""``vendomini bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import AsJson


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
    as_json: AsJson = False,
) -> None:
    """Measure tokens per second of eager, SDPA, Flash Attention and vLLM on one model, here, with the roofline.

    What can't run on this machine is listed with the reason. The table is Markdown.

    Examples:

      vendomini bench --model Qwen/Qwen3-0.6B

      vendomini bench --random-weights path/to/config.json --batch 32 --json
    """
    import asyncio
    import tempfile

    from pydantic import ValidationError

    from vendomini.bench import Setting, write_random_model
    from vendomini.bench import bench as measure
    from vendomini.cli.output import console, print_json
    from vendomini.config.schema import Model
    from vendomini.errors import MissingExtraError, UsageError
    from vendomini.probe import probe

    if (model is None) == (random_weights is None):
        raise UsageError("name a model with --model, or an architecture with --random-weights")
    found = probe()
    for package in ("torch", "transformers"):
        if not found.package(package).works:
            raise MissingExtraError("vendomini bench", package, "hf")
    with tempfile.TemporaryDirectory(prefix="vendomini-bench-") as folder:
        name = model if random_weights is None else str(write_random_model(random_weights, Path(folder)))
        context = max(512, prompt_tokens + new_tokens + 1)
        try:
            chosen = Model.model_validate(
                {"name": name, "dtype": dtype, "context_length": context, "max_tokens": min(512, context // 2)}
            )
        except ValidationError as exc:
            raise UsageError(f"--dtype: {exc.errors()[0]['msg']}") from exc
        out = console(stderr=True)
        setting = Setting(batch, prompt_tokens, new_tokens)
        report = asyncio.run(measure(chosen, setting, found, out.print, title=model or str(random_weights)))
    if as_json:
        print_json(report.as_json())
    else:
        typer.echo(report.markdown())
