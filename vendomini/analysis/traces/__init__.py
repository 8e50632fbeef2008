"""Viewing episodes step by step, and exporting them."""
