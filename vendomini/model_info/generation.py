"""The sampling parameters in a model's own ``generation_config.json``."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from vendomini.config import schema
from vendomini.errors import EngineUnavailable
from vendomini.model_info.facts import locate
from vendomini.probe import Capabilities


def own_sampling(model: schema.Model, capabilities: Capabilities) -> dict[str, float]:
    """Keys of ``agent.model`` that the model's file sets, and their values; empty where it has no such file.

    ``do_sample: false`` is temperature 0. A file without it is read as vLLM does: the model is sampled.

    Raises:
        EngineUnavailable: the file is damaged, or a value that the config leaves to it can't be used for sampling.
    """
    folder = locate(model.name, model.revision, capabilities)
    file = Path(folder or "") / "generation_config.json"
    if folder is None or not file.is_file():
        return {}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        values = {key: _plain(key, said[key]) for key in schema.SAMPLING if said.get(key) is not None}
        if said.get("do_sample") is False:
            values["temperature"] = 0.0
    except (OSError, ValueError, AttributeError, RecursionError) as exc:
        raise EngineUnavailable(f"{file} can't be read ({exc}): download the model again") from exc
    return {key: value for key, value in values.items() if _usable(key, value, model, file)}


def _usable(key: str, value: object, model: schema.Model, file: Path) -> bool:
    try:
        schema.Model.model_validate({key: value})
    except ValidationError as exc:
        if getattr(model, key) is None:
            wrong = exc.errors(include_url=False)[0]["msg"]
            raise EngineUnavailable(f"{file} says {key}: {value!r} ({wrong}): set agent.model.{key}") from exc
        return False
    return True


def _plain(key: str, value: float) -> float:
    """Some files write 20.0 for 20, and -1 for a top_k of all tokens."""
    if key != "top_k" or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return max(0, int(value)) if value == int(value) else value
