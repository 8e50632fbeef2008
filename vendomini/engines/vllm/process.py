"""The host process seen from the parent: started, talked to, and ended together with everything it started."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from vendomini.engines.vllm.protocol import Failed, FromHost, Ready, Start, Stop, ToHost, frame, receive
from vendomini.errors import EngineUnavailable

GRACE_S = 20.0
"""Seconds allowed for an orderly end; then the process group is killed."""

PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((ERROR|WARNING|INFO|CRITICAL)\s[\d\- :]+\[[^\]]*\]\s?)?")
EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b(?::\s*\S.*)?$")
SECOND_HAND = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered an issue",
    "Worker failed with error",
    "failed to be inspected",
)
"""Exceptions that only say that another process failed."""

SPOILT = re.compile(
    r"stale file handle|errno 116\b|torch_compile_cache|torchinductor|triton.{0,40}cache|inductor.{0,40}cache|"
    r"cache.{0,40}(?:corrupt|truncated)|unpicklingerror",
    re.IGNORECASE,
)
"""Reasons for a failed start that lie in what was compiled before."""

PASSING = re.compile(
    r"address already in use|EADDRINUSE|errno 98\b|/dev/shm|bus error|shared memory|connection (?:refused|reset)|"
    r"errno 11\b|resource temporarily unavailable|device or resource busy",
    re.IGNORECASE,
)
"""Other reasons that may be gone a moment later: a port, memory that is being freed."""


class HostProcess:
    """One host and its process group.

    Args:
        environ: of the host and all that it starts; nothing leaks into ours.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self.log = process, log
        self._decoder = msgspec.msgpack.Decoder(FromHost)

    @classmethod
    async def begin(cls, environ: Mapping[str, str]) -> HostProcess:
        handle, name = tempfile.mkstemp(prefix="vendomini-vllm-", suffix=".log")
        with os.fdopen(handle, "wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "vendomini.engines.vllm.host",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
                limit=1 << 24,
            )
        return cls(process, Path(name))

    @property
    def pid(self) -> int:
        """Id of the host process, and of its process group."""
        return self._process.pid

    def send(self, message: ToHost) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(frame(message))

    async def messages(self) -> AsyncIterator[FromHost]:
        """What the host says, until it is gone."""
        assert self._process.stdout is not None
        while (message := await receive(self._process.stdout, self._decoder)) is not None:
            yield message

    async def load(self, engine_args: dict[str, object], timeout: float) -> Ready:
        """Raises:
        EngineUnavailable: vLLM failed, died or did not answer in time; says why. The group is not ended yet.
        """
        self.send(Start(engine_args))
        try:
            async with asyncio.timeout(timeout):
                first = await anext(self.messages(), None)
        except TimeoutError as exc:
            raise EngineUnavailable(f"it did not start within {timeout:g} s (engine.startup_timeout)") from exc
        if isinstance(first, Ready):
            return first
        said = first.error if isinstance(first, Failed) else f"its process ended with code {await self._process.wait()}"
        raise EngineUnavailable(f"{root_cause(said, self.log)} (log: {self.log})")

    async def end(self, *, keep_log: bool = False) -> None:
        """Ends the whole group: asks first, then kills. Calling it twice is fine."""
        if self._process.returncode is None:
            with suppress(OSError, TimeoutError, RuntimeError):
                self.send(Stop())
                async with asyncio.timeout(GRACE_S):
                    await self._process.wait()
        await self.kill()
        if not keep_log:
            self.log.unlink(missing_ok=True)

    async def kill(self) -> None:
        """Kills what is left of the group and waits until nothing is."""
        for _ in range(200):
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                break
            await asyncio.sleep(0.05)
        await self._process.wait()


def root_cause(said: str, log: Path) -> str:
    """The exception that started it. vLLM's parent process only knows that a child failed; the log has the child's own
    words."""
    if not any(phrase in said for phrase in SECOND_HAND):
        return first_sentence(said)
    lines = (PREFIX.sub("", line).strip() for line in log.read_text(errors="replace").splitlines())
    causes = [line for line in lines if EXCEPTION.match(line) and not any(phrase in line for phrase in SECOND_HAND)]
    return first_sentence(causes[-1]) if causes else "one of its processes was killed, or crashed without a word"


def may_pass(reason: str) -> bool:
    """Whether a start that failed this way is worth another try."""
    return PASSING.search(reason) is not None or spoilt_cache(reason)


def spoilt_cache(reason: str) -> bool:
    """Whether what was compiled before may be the cause."""
    return SPOILT.search(reason) is not None


def first_sentence(text: str) -> str:
    """Enough of an error to act on, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 400 else line[:397] + "…"
