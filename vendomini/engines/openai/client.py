"""Concurrent requests to a server: the key, the deadline, and retries."""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import math
import random
import re
import time
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from vendomini.engines.openai.failure import LONGEST, PASSING, Failure, Kind, Said, kind_of, read_error, told_to_wait
from vendomini.engines.openai.key import mask, read_key
from vendomini.errors import ConfigError, EngineUnavailable, MissingExtraError

if TYPE_CHECKING:
    import ssl

    import httpx

TRIES = 10
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
CONNECT_TIMEOUT = 30.0
LARGEST, LONGEST_ERROR = 64 << 20, 64 << 10
"""Bytes read at most of an answer, and of an error."""

Told = TypeVar("Told")


class Client:
    """A server under one address.

    Args:
        base_url: with its path and, where it needs one, a query string: both stay in every request.
        timeout: seconds for one answer, all tries and pauses included.

    Raises:
        ConfigError: the address is invalid, or the key can't be sent.
        MissingExtraError: httpx is not installed.
        EngineUnavailable: the environment's proxy or certificates can't be used.
    """

    def __init__(self, base_url: str, timeout: float, environ: Mapping[str, str]) -> None:
        self.base_url, self._timeout = base_url, timeout
        self._scheme, self._host, self._path, self._query = _parts(base_url)
        self._key = read_key(environ)
        self._ssl: ssl.SSLContext | None = None
        self._connections: list[httpx.AsyncClient] = []
        self._idle = [self._connect()]

    def _connect(self) -> httpx.AsyncClient:
        """One connection. An httpx pool goes through all of its connections for every request: 64 of them in one pool
        take four times the processor time of 64 pools."""
        import httpx

        local = _is_loopback(self._host)  # no proxy for a server on this machine
        try:
            self._ssl = self._ssl or httpx.create_ssl_context(trust_env=not local)
            connection = httpx.AsyncClient(
                verify=self._ssl,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
                trust_env=not local,
                follow_redirects=True,
                event_hooks={"request": [self._sign]},
            )
        except (ImportError, OSError, ValueError) as exc:
            raise EngineUnavailable(f"the environment's proxy or certificates can't be used: {exc}") from exc
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self._connections:
            await connection.aclose()

    async def _sign(self, request: httpx.Request) -> None:
        """The key is for this server and no other, wherever a redirect leads."""
        if self._key and (request.url.scheme, request.url.netloc.decode()) == (self._scheme, self._host):
            request.headers["Authorization"] = f"Bearer {self._key}"
            if "api-version=" in self._query:  # Azure's older addresses look for the key there
                request.headers["api-key"] = self._key
        else:
            request.headers.pop("Authorization", None)
            request.headers.pop("api-key", None)

    async def ask(
        self,
        path: str,
        body: dict[str, object] | None,
        read: Callable[[object], Told],
        tries: int = TRIES,
        timeout: float = math.inf,
        passing: Set[Kind] = PASSING,
    ) -> Told:
        """Sends until there is an answer, waiting longer each time, or as long as the server says.

        Args:
            body: posted as JSON; None for a GET.
            read: extracts the wanted value from the decoded answer; raises :class:`Failure` where it is missing.
            timeout: seconds, for a request with a shorter limit than the others.
            passing: failures that are worth another try.

        Raises:
            Failure: the server refuses, can't be reached, or takes too long.
        """
        timeout = min(timeout, self._timeout)
        deadline = time.monotonic() + timeout
        last: Failure | None = None
        try:
            async with asyncio.timeout(timeout):
                for attempt in range(tries):
                    try:
                        return self._understood(await self._send(path, body), read)
                    except Failure as exc:
                        if exc.kind not in passing:
                            raise
                        last = exc
                    if attempt + 1 < tries:
                        await asyncio.sleep(self._pause(attempt, last, deadline))
        except TimeoutError as exc:
            why = f", the last time: {last}" if last else ""
            limit = " (engine.request_timeout)" if timeout == self._timeout else ""
            sentence = f"{self.base_url}{path} gave no answer within {timeout:g} s{limit}{why}"
            raise Failure(last.kind if last else "busy", sentence) from exc
        assert last is not None
        sentence = f"{self.base_url}{path} gave no answer in {tries} tries, the last time: {last}"
        raise Failure(last.kind, sentence, last.said)

    def _pause(self, attempt: int, last: Failure, deadline: float) -> float:
        """Seconds until the next try.

        Raises:
            Failure: the server asks for more time than a request has.
        """
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**attempt) * random.uniform(0.75, 1.0)
        if last.wait is None:
            return pause
        if last.wait > deadline - time.monotonic():
            sentence = f"{last}; it asks to wait {last.wait:,.0f} s, more than engine.request_timeout leaves"
            raise Failure("quota", sentence, last.said)
        return max(pause, last.wait + random.uniform(0, FIRST_PAUSE))

    async def _send(self, path: str, body: dict[str, object] | None) -> object:
        """One try.

        Raises:
            Failure: anything but a JSON object without an error.
        """
        import httpx

        url = f"{self._scheme}://{self._host}{self._path}{path}{self._query}"
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        method, headers = "GET" if body is None else "POST", {"Content-Type": "application/json"}
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            async with connection.stream(method, url, content=content, headers=headers) as response:
                data = await _read(response)
        except httpx.ConnectError as exc:
            raise Failure("unreachable", f"can't connect ({_root(exc)})") from exc
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            raise Failure("busy", f"{_words(type(exc).__name__)}: {_root(exc)}") from exc
        finally:
            self._idle.append(connection)
        return self._judge(path, response, data)

    def _judge(self, path: str, response: httpx.Response, data: bytes) -> object:
        """The answer, if it is one."""
        answer = _decode(data)
        if response.is_success and answer is not None and not _holds_error(answer):
            return answer
        said = self._said(response.status_code, answer, data[:LONGEST_ERROR].decode(errors="replace"))
        if response.is_success and answer is None:
            form = response.headers.get("Content-Type", "no type")
            raise Failure("busy", f"an answer in {form:.60}, not JSON: {said.text:.{LONGEST}}")
        wait = _retry_after(response.headers) or told_to_wait(said)
        raise Failure(kind_of(said, wait), f"{self.base_url}{path} answered {said}", said, wait)

    def _said(self, status: int, answer: object, text: str) -> Said:
        said = read_error(status, answer, text)
        parameter = said.parameter and self.without_key(said.parameter)
        return Said(said.status, self.without_key(said.text), self.without_key(said.code), parameter)

    def _understood(self, answer: object, read: Callable[[object], Told]) -> Told:
        try:
            return read(answer)
        except Failure as exc:
            raise Failure(exc.kind, self.without_key(str(exc))) from exc

    def without_key(self, text: str) -> str:
        """Removes the key: what a server says goes into summaries and reports, and some repeat all or part of the key
        that they refuse."""
        return mask(text, self._key) if self._key else text


def _parts(base_url: str) -> tuple[str, str, str, str]:
    """Scheme, host with port, path and query of an address."""
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"engine.base_url must begin with http:// or https://, not {base_url!r}")
    try:
        import httpx

        parts, url = urlsplit(base_url), httpx.URL(base_url)
        parts.port  # noqa: B018 - reading it checks it
    except ImportError as exc:
        raise MissingExtraError("a server as an engine", "httpx", "server") from exc
    except (ValueError, httpx.InvalidURL) as exc:
        raise ConfigError(f"engine.base_url {base_url!r} is no address: {exc}") from exc
    if not url.host:
        raise ConfigError(f"engine.base_url {base_url!r} names no host")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return url.scheme, url.netloc.decode(), path, f"?{parts.query}" if parts.query else ""


def _is_loopback(host: str) -> bool:
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


async def _read(response: httpx.Response) -> bytes:
    """The body, decompressed.

    Raises:
        ValueError: there is no end to it.
    """
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > LARGEST:
            raise ValueError(f"an answer of more than {LARGEST >> 20} MiB")
    return bytes(data)


def _decode(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _holds_error(answer: object) -> bool:
    if not isinstance(answer, dict) or answer.get("choices"):
        return False
    return bool(answer.get("error")) or answer.get("object") == "error"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from the forms in which servers say so: a number, milliseconds, a date."""
    if (milliseconds := headers.get("retry-after-ms", "")).isdecimal():
        return int(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _root(exc: BaseException) -> str:
    """The innermost reason that says something, or the system's: outer ones of a client are often empty."""
    said = str(exc)
    while (inner := exc.__cause__ or exc.__context__) is not None and not getattr(exc, "errno", None):
        exc = inner
        said = str(getattr(exc, "strerror", None) or exc) or said
    return said or type(exc).__name__


def _words(name: str) -> str:
    """``RemoteProtocolError`` → ``remote protocol error``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
