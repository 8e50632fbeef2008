"""Episodes: one agent in one world, and many of them at once on one engine."""

from vendomini.runner.progress import Counters, Progress, progress_on
from vendomini.runner.run import Runner, Tally, load_key, pending, save_plan
from vendomini.runner.stop import Stop

__all__ = ["Counters", "Progress", "Runner", "Stop", "Tally", "load_key", "pending", "progress_on", "save_plan"]
