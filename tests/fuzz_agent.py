"""Coverage-guided fuzzing of what an agent can say: completion → parser → world → log.

    make fuzz                                    100,000 completions
    python tests/fuzz_agent.py -runs=1000000     libFuzzer's own options

Begins with the corpus of ugly completions. Nothing may raise, and every step must fit into a log.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"

with atheris.instrument_imports(include=["vendomini.agent", "vendomini.simulation"]):
    import msgspec

    from vendomini.agent import parse_completion
    from vendomini.config import RunConfig
    from vendomini.simulation import Environment

CONFIG = RunConfig.model_validate(
    {
        "simulation": {"complexity_level": 2},
        "pe_induction": {"p_shock": 0.5},
        "agent": {"interface": {"memory_tools": "full", "recovery_tools": "all", "prediction_format": "rich"}},
    }
)


class World:
    """An episode that begins again when it ends."""

    def __init__(self) -> None:
        self.environment, self.seed, self.over = Environment(CONFIG), 0, True

    def step(self, data: bytes) -> None:
        if self.over:
            self.environment.reset(seed=self.seed)
            self.seed += 1
        action = parse_completion(data.decode("utf-8", "replace"))
        outcome = self.environment.step(action)
        msgspec.json.encode([action.arguments, action.card, action.thought, outcome.result, outcome.observation])
        assert action.parse != "unparsable" or outcome.result["error"]["code"] == "unparsable"
        self.over = outcome.ending is not None


def seeds(folder: Path) -> str:
    """The corpus' completions, without the line that says what is expected of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in CORPUS.glob("*.txt"):
        (folder / file.stem).write_text(file.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    return str(folder)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        options = ["-runs=100000", "-max_len=4096", *sys.argv[1:]]
        atheris.Setup([sys.argv[0], *options, seeds(Path(scratch))], World().step)
        atheris.Fuzz()
