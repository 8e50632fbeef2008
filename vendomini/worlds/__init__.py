"""Worlds: seeded, deterministic tasks for an agent; no input or output, no model."""
