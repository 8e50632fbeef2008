"""The warehouse: seeded and deterministic; no input or output, no model."""
