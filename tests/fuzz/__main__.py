"""Coverage-guided fuzzing of one target with Atheris.

    make fuzz FUZZ_SECONDS=120                       all targets, one after the other
    python -m tests.fuzz http -max_total_time=60     one, with libFuzzer's own options

A finding is kept in tests/corpus/TARGET, where the next run and the suite begin with it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz import CORPUS, TARGETS


def main(name: str, options: list[str]) -> None:
    with atheris.instrument_imports(include=["vendomini"]):
        from tests.fuzz import load

        target = load(name)
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        grown, seeds, words = (Path(scratch) / part for part in ("grown", "seeds", "words"))
        grown.mkdir()
        seeds.mkdir()
        for number, seed in enumerate([*target.seeds, *(file.read_bytes() for file in target.found())]):
            (seeds / str(number)).write_bytes(seed)
        words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
        usual = [f"-dict={words}", f"-max_len={target.longest}", f"-artifact_prefix={kept}/"]
        usual += ["-seed=1", "-timeout=30", "-rss_limit_mb=4096", "-verbosity=0", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *usual, *options, str(grown), str(seeds)], target.check)
        atheris.Fuzz()


def _escaped(token: str) -> str:
    """As a dictionary of libFuzzer's wants it."""
    return "".join(f"\\x{byte:02x}" for byte in token.encode("utf-8", "surrogatepass"))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in TARGETS:
        main(sys.argv[1], sys.argv[2:])
    else:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [libFuzzer's options]")
