"""The JSON Schema of a phase file, for editors; ``configs/phase.schema.json`` is a copy of it."""

from __future__ import annotations

from vendomini.config.models import settable
from vendomini.config.paths import leaf_paths
from vendomini.config.schema import BACKEND_SCHEMA, DEFAULT_WORLD
from vendomini.config.worlds import find_world, phase_config


def json_schema(world: str = DEFAULT_WORLD) -> dict[str, object]:
    """JSON Schema of a file as written: with ``inherit``, and the names that ``grid`` and ``fixed`` may use.

    Args:
        world: the file's ``experiment.world``.

    Raises:
        ConfigError: there is no such world.
    """
    found = find_world(world)
    schema = phase_config(found.config).model_json_schema()
    properties = schema["properties"]
    properties["inherit"] = {"type": "string", "description": "A file whose keys this one extends, from its folder."}
    properties["engine"] = {"anyOf": [properties["engine"], *BACKEND_SCHEMA["anyOf"]]}
    properties["breaker"] = {"anyOf": [properties["breaker"], {"const": "off"}]}
    paths = leaf_paths(found.config)
    for section, value in (("grid", {"type": "array", "minItems": 1}), ("fixed", {})):
        properties[section] |= {"properties": dict.fromkeys(paths, value), "additionalProperties": False}
    own = {"type": "object", "properties": {key: {} for key in settable()}, "additionalProperties": False}
    properties["models"]["additionalProperties"] = own
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "VendoMini phase"}
