"""The warehouse: seeded and deterministic; no input or output, no model."""

from vendomini.worlds.vending.environment import Vending as WORLD

__all__ = ["WORLD"]
