"""From runs to jobs on a SLURM cluster, and back to where they stand. Loads no model.

Kept light: a job imports this package before it can heed SLURM's signals.
"""
