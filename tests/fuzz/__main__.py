"""Coverage-guided fuzzing of one target with Atheris.

    make fuzz FUZZ_SECONDS=120                       all targets, one after the other
    python -m tests.fuzz http -max_total_time=60     one, with libFuzzer's own options

A finding is kept in tests/corpus/TARGET, where the next run and the suite begin with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import CORPUS, TARGETS, load


def main(name: str, options: list[str], folder: Path) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["vendomini"]):
        target = load(name)
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    grown, seeds, words = (folder / part for part in ("grown", "seeds", "words"))
    grown.mkdir()
    seeds.mkdir()
    for number, seed in enumerate([*target.seeds, *(file.read_bytes() for file in target.found())]):
        (seeds / str(number)).write_bytes(seed)
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    usual = [f"-dict={words}", f"-max_len={target.longest}", f"-artifact_prefix={kept}/"]
    usual += ["-seed=1", "-timeout=30", "-rss_limit_mb=4096", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([name, *usual, *options, str(grown), str(seeds)], target.check)
    atheris.Fuzz()


def _escaped(token: str) -> str:
    """As a dictionary of libFuzzer's wants it."""
    return "".join(f"\\x{byte:02x}" for byte in token.encode("utf-8", "surrogatepass"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in"]:
        main(sys.argv[3], sys.argv[4:], Path(sys.argv[2]))
    elif sys.argv[1:2] and sys.argv[1] in TARGETS:
        print(f"== {sys.argv[1]}", flush=True)
        with tempfile.TemporaryDirectory() as folder:  # in a process of its own, which cleans up nothing
            inside = [sys.executable, "-m", "tests.fuzz", "--in", folder, *sys.argv[1:]]
            sys.exit(subprocess.run(inside, env={**os.environ, "TMPDIR": folder}, check=False).returncode)
    else:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [libFuzzer's options]")
