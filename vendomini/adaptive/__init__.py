"""Adaptive replications: seeds are added where the answer is open, and the tests stay valid at every look."""
