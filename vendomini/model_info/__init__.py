"""What a model needs, from its own files, and how many GPUs it takes.

Nothing is guessed from a model's name. A model whose files are not here is unknown, and ``engine.gpus`` must give the
number of GPUs.
"""

from vendomini.model_info.facts import ModelFacts, locate, model_facts
from vendomini.model_info.fit import GIB, Fit, Recommendation, fit, gib, recommend, smallest_fit
from vendomini.model_info.generation import own_sampling

__all__ = [
    "GIB",
    "Fit",
    "ModelFacts",
    "Recommendation",
    "fit",
    "gib",
    "locate",
    "model_facts",
    "own_sampling",
    "recommend",
    "smallest_fit",
]
