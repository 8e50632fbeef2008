"""Reads parts in processes of their own: a line of JSON for each on standard input, its rows on standard output.

Plain child processes: multiprocessing would import the caller's script again, or fork a process that has threads. Each
reads one part after another, since starting takes as long as reading a thousand short runs.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from vendomini.analysis.tables.parquet_cache import Source, read_part
from vendomini.analysis.tables.rows import Row
from vendomini.errors import ResultsError
from vendomini.records import Results


def read_parts(source: Source, parts: Sequence[list[str]], workers: int) -> Iterator[list[Row]]:
    """:func:`read_part` of each, in order.

    Raises:
        ResultsError: a part can't be written, or a process was killed.
        RuntimeError: a process failed in another way, which it has printed.
    """
    command = [sys.executable, "-P", "-m", "vendomini.analysis.tables.worker"]
    command += [str(source.results.root), str(source.folder)]
    free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()

    def read(run_ids: list[str]) -> list[Row]:
        worker = free.get()
        try:
            return _ask(worker, run_ids)
        finally:
            free.put(worker)

    with ExitStack() as stack:
        for _ in range(workers):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            free.put(stack.enter_context(process))  # which ends when its input does
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from pool.map(read, parts)


def _ask(worker: subprocess.Popen[bytes], run_ids: list[str]) -> list[Row]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(msgspec.json.encode(run_ids) + b"\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
    except BrokenPipeError:
        line = b""
        with suppress(BrokenPipeError):
            worker.stdin.close()  # what it still holds can't be written, and is not tried again
    if not line and (code := worker.wait()) >= 0:
        raise RuntimeError(f"a process that reads runs ended with {code}")
    if not line:
        raise ResultsError("a process that reads runs was killed, perhaps for lack of memory: run the report again")
    answer = msgspec.json.decode(line)
    if "error" in answer:
        raise ResultsError(answer["error"])
    return list(answer["rows"])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    root, folder = sys.argv[1:]
    source = Source(Results(Path(root)), Path(folder))
    answer: dict[str, list[Row] | str]
    for line in sys.stdin.buffer:
        try:
            answer = {"rows": read_part(source, msgspec.json.decode(line))}
        except OSError as exc:
            answer = {"error": f"can't write {source.folder} ({exc.strerror}): choose another folder with --out"}
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
