"""VendoMini: long-horizon LLM-agent episodes on a SLURM cluster, from phase YAML to survival curves."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vendomini.api import Run, Tables, load_results, open_run, run

__version__ = "0.1.0"

__all__ = ["Run", "Tables", "__version__", "load_results", "open_run", "run"]


def __getattr__(name: str) -> object:
    """The names of ``vendomini.api`` are imported on first use: every command imports this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vendomini import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
