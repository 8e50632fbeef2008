"""Episodes: one agent in one world, and many of them at once on one engine."""

from vendomini.runner.progress import Counters, Progress, progress_on
from vendomini.runner.run import Runner, load_key, save_plan
from vendomini.runner.stop import Stop
from vendomini.runner.tally import Tally, pending

__all__ = ["Counters", "Progress", "Runner", "Stop", "Tally", "load_key", "pending", "progress_on", "save_plan"]
