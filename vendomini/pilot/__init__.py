"""A pilot: a few short episodes of each model before the experiment is paid for, and what they say about it."""

from vendomini.pilot.derive import EPISODES, STEPS, own_models, pilot_of, reference
from vendomini.pilot.runs import pilot_runs
from vendomini.pilot.verdict import Verdict, doubts, judge

__all__ = [
    "EPISODES",
    "STEPS",
    "Verdict",
    "doubts",
    "judge",
    "own_models",
    "pilot_of",
    "pilot_runs",
    "reference",
]
