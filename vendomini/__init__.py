"""VendoMini: long-horizon LLM-agent episodes on a SLURM cluster, from phase YAML to survival curves."""

__version__ = "0.1.0"
