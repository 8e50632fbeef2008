"""Episodes: one agent in one world, and many of them at once on one engine."""

from vendomini.runner.progress import Counters, Progress
from vendomini.runner.run import Tally, load_key, pending, run_all, save_plan
from vendomini.runner.session import run_pending
from vendomini.runner.stop import Stop

__all__ = ["Counters", "Progress", "Stop", "Tally", "load_key", "pending", "run_all", "run_pending", "save_plan"]
