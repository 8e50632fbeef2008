"""The report: its content and its appearance."""
