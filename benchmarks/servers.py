"""How near the engine for servers comes to the ideal: requests in flight, divided by the server's latency.

    python benchmarks/servers.py [--flight 64] [--latency 0.2] [--seconds 10]

The server answers every request after the same time, whatever else it does, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.engines.chat_server import NAME, answer
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import SamplingParams
from vendomini.engines.resolve import start_engine
from vendomini.worlds.conversation import Message

PROMPT_CHARACTERS = 8_000


def serve(latency: float, tell: Connection) -> None:
    """Speaks as much HTTP as one client needs."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):  # the client left
            while True:
                await reply(reader, writer)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if length:
            await reader.readexactly(length[0])
            await asyncio.sleep(latency)
        body = json.dumps(answer() if length else {"data": [{"id": NAME}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024)
        tell.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


class Prompt:
    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.messages = [Message(role="user", content="x" * PROMPT_CHARACTERS)]
        self.epoch = 0


async def measure(url: str, flight: int, seconds: float) -> tuple[float, float]:
    """Answers a second, from a moment when all are in flight, and this process's own time for one."""
    engine = await start_engine(Model(name=NAME), EngineConfig(backend="openai", base_url=url), None, print)
    answers, prompt = 0, Prompt()

    async def ask() -> None:
        nonlocal answers
        while True:
            await engine.generate(prompt, SamplingParams(16))
            answers += 1

    tasks = [asyncio.create_task(ask()) for _ in range(flight)]
    await asyncio.sleep(2)
    before, began, worked = answers, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    rate = (answers - before) / (time.perf_counter() - began)
    each = (time.process_time() - worked) / (answers - before)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await engine.close()
    return rate, each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flight", type=int, nargs="+", default=[6, 64, 128])
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(asked.latency, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    print(f"httpx {version('httpx')}, {asked.latency:g} s for each answer, prompts of {PROMPT_CHARACTERS:,} characters")
    for flight in asked.flight:
        (rate, each), ideal = asyncio.run(measure(url, flight, asked.seconds)), flight / asked.latency
        share = f"{rate:6.1f} answers/s of {ideal:6.1f}, {rate / ideal:.2f} of the ideal"
        print(f"{flight:4} in flight: {share}; {1000 * each:.2f} ms of processor time for each")
    server.terminate()


if __name__ == "__main__":
    main()
