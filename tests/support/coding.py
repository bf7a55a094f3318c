"""What the tests of protocol/encoder, decoder, references and flattening have in common."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import pytest

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, RpcError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.pieces import Pieces
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import Departure
from support.descriptors import owned
from support.sessions import duplicates

NAMES = ("kind", "id", "error", "result")


@dataclass
class Record:
    value: Any


class Structure(msgspec.Struct):
    value: Any


def encode(value: Any, encoder: Encoder | None = None) -> bytes | memoryview:
    data, lenders = (encoder or Encoder()).encode((1, 1, None, value), NAMES)
    assert lenders == []
    assert not isinstance(data, Pieces)
    return data


def sent(value: Any) -> Any:
    """Return what arrives of a value without descriptors."""
    message, problem = Decoder().decode(encode(value), [])
    assert problem is None
    return message[3]


def refusal(value: Any, encoder: Encoder | None = None) -> str:
    """Return the reason for which a value is not sent."""
    with pytest.raises(LocalProtocolError) as caught:
        encode(value, encoder)
    return str(caught.value)


def decode_malformed(data: bytes, decoder: Decoder | None = None) -> str:
    """Return the reason for which a packet is malformed."""
    with pytest.raises(RemoteProtocolError, match=rf"^malformed packet of {len(data)} bytes: ") as caught:
        (decoder or Decoder()).decode(data, [])
    return str(caught.value).partition("bytes: ")[2]


def borrowed(lenders: Any) -> list[OwnedFd]:
    """Return lenders in the place of the descriptors that would arrive: the decoder only points at them."""
    return cast("list[OwnedFd]", list(lenders))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def problem_of(data: bytes, descriptors: int) -> str | RpcError | None:
    with owned(descriptors) as fds:
        problem = Decoder().decode(data, fds)[1]
        assert not any(fd.closed for fd in fds), "they are the caller's"
    return problem


def travel(value: Any, decoder: Decoder | None = None) -> tuple[Any, str | RpcError | None, list[OwnedFd]]:
    """Return what arrives of a value, its problem, and the descriptors that came with it."""
    data, lenders = Encoder().encode((1, 1, None, value), NAMES)
    fds = duplicates(lenders)
    message, problem = (decoder or Decoder()).decode(bytes(data), fds)
    return message[3], problem, fds


def buffer_data(index: int, offset: int, length: int) -> bytes:
    return b"\xc7\x11\x04" + struct.pack(">BQQ", index, offset, length)


class Made:
    """What a living value is here."""

    def __init__(self, ext_type: int, fd: OwnedFd) -> None:
        self.ext_type = ext_type
        self.fd = fd


class Life:
    """Makes, and remembers, living values and their departures."""

    def __init__(self, *, fails: Exception | None = None) -> None:
        self.fails = fails
        self.departures: list[Out] = []
        self.given_up: list[Any] = []

    def travels(self, value: Any) -> bool:
        return isinstance(value, Made)

    def departure_of(self, value: Any) -> Departure | None:
        if not isinstance(value, Made):
            return None
        if self.fails is not None:
            raise self.fails
        self.departures.append(Out(value))
        return self.departures[-1]

    def receive(self, ext_type: int, fd: OwnedFd) -> Made:
        if self.fails is not None:
            raise self.fails
        return Made(ext_type, fd)

    def give_up(self, value: Any) -> None:
        self.given_up.append(value)


class Out:
    """A departure that remembers what it was told."""

    def __init__(self, made: Made) -> None:
        self.ext_type = made.ext_type
        self.fileno = made.fd.fileno
        self.told: list[str] = []

    def sent(self) -> None:
        self.told.append("sent")

    def unsent(self) -> None:
        self.told.append("unsent")

    def given_up(self) -> None:
        self.told.append("given up")
