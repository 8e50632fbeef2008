"""Survival statistics over the tables."""
