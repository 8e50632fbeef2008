"""Reads one part in a process of its own: a request as JSON on standard input, its rows on standard output.

A plain child process: multiprocessing would import the caller's script again, or fork a process that has threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vendomini.analysis.tables.parquet_cache import Source, read_part
from vendomini.analysis.tables.rows import Row
from vendomini.errors import ResultsError
from vendomini.records import Results


def read_part_apart(source: Source, run_ids: Sequence[str]) -> list[Row]:
    """Like :func:`read_part`, in a child process.

    Raises:
        ResultsError: the part can't be written.
    """
    request = json.dumps({"root": str(source.results.root), "folder": str(source.folder), "run_ids": run_ids})
    command = [sys.executable, "-P", "-m", "vendomini.analysis.tables.worker"]
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ResultsError(answer["error"])
    return list(answer["rows"])


def main() -> None:
    request = json.load(sys.stdin)
    source = Source(Results(Path(request["root"])), Path(request["folder"]))
    answer: dict[str, list[Row] | str]
    try:
        answer = {"rows": read_part(source, request["run_ids"])}
    except OSError as exc:
        answer = {"error": f"can't write {source.folder} ({exc.strerror}): choose another folder with --out"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
