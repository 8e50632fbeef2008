"""Whole experiments under faults: ``python -m tests.chaos``.

A campaign deals faults from a seeded deck to experiments that run for real. Before each fault and after it the books
are checked: every step that was logged is still there, nothing is there twice, what was damaged is named. In the end
each experiment is finished in peace and must be, byte for byte, what it is without any fault.
"""
