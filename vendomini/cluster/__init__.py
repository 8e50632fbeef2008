"""Plans runs as SLURM jobs, submits them and follows them. Loads no model.

Kept light: a job imports this package before it can handle SLURM's signals.
"""
