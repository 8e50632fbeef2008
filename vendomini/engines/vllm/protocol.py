"""What this process and the one that hosts vLLM say to each other: length-prefixed MessagePack over pipes."""

from __future__ import annotations

import asyncio
import struct
from array import array
from typing import Any, TypeVar

import msgspec

from vendomini.engines.base import FinishReason

HEADER = struct.Struct("<I")


class Start(msgspec.Struct, tag=True):
    """Load a model with these arguments of ``AsyncEngineArgs``."""

    engine_args: dict[str, Any]


class Generate(msgspec.Struct, tag=True):
    """Complete one prompt.

    Attributes:
        prompt: token ids as packed 32-bit integers.
        sampling, constraint: keyword arguments of vLLM's ``SamplingParams`` and ``StructuredOutputsParams``.
    """

    id: int
    prompt: bytes
    sampling: dict[str, Any]
    constraint: dict[str, Any] | None


class Abort(msgspec.Struct, tag=True):
    id: int


class Stop(msgspec.Struct, tag=True):
    """Shut down in an orderly way. (A pipe that just ends means that the parent is gone: then everything dies.)"""


class Ready(msgspec.Struct, tag=True):
    """The model is loaded; what it reports."""

    max_model_len: int
    max_num_seqs: int
    kv_tokens: int
    details: dict[str, Any]


class Failed(msgspec.Struct, tag=True):
    """The model could not be loaded."""

    error: str


class Done(msgspec.Struct, tag=True):
    id: int
    text: str
    finish_reason: FinishReason
    completion_tokens: int
    cached_tokens: int | None


class Refused(msgspec.Struct, tag=True):
    """One request failed; ``dead`` if no other can succeed either."""

    id: int
    error: str
    dead: bool


ToHost = Start | Generate | Abort | Stop
FromHost = Ready | Failed | Done | Refused
MessageT = TypeVar("MessageT")


def pack_ids(ids: list[int]) -> bytes:
    return array("I", ids).tobytes()


def unpack_ids(data: bytes) -> list[int]:
    ids = array("I")
    ids.frombytes(data)
    return ids.tolist()


def frame(message: ToHost | FromHost) -> bytes:
    body = msgspec.msgpack.encode(message)
    return HEADER.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[MessageT]) -> MessageT | None:
    """The next message, or None when the other side is gone."""
    try:
        (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
        return decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
