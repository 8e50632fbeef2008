"""Episodes to read, step by step, and to export."""
