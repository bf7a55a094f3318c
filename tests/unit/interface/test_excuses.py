"""What is said of types that cannot be sent."""

from __future__ import annotations

import collections
import enum
import io
import socket
import typing
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import IO, Any, Literal, NoReturn

import pytest

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.excuses import way_out, why_alike
from seqrpc.interface.shapes import Wire


class Plain:
    pass


class Name(str):
    __slots__ = ()


class Table(dict[str, int]):
    pass


class Floats(enum.Enum):
    HALF = 0.5


@pytest.mark.parametrize(
    "annotation, message",
    [
        (Callable[[int], int], "pass an object of a service"),
        (Callable, "pass an object of a service"),
        (Iterator[int], r"write AsyncIterator\[...\] for a stream, or list\[...\]"),
        (Generator[int, None, None], r"write AsyncIterator\[...\]"),
        (Awaitable[int], "await it, and send what comes of it"),
        (collections.OrderedDict, r"write dict\[...\]"),
        (collections.defaultdict[str, int], r"write dict\[...\]"),
        (collections.Counter[str], r"write dict\[...\]"),
        (collections.deque[int], r"write list\[...\]"),
        (range, r"write list\[...\]"),
        (NoReturn, "write None"),
        (type, "send its name"),
        (type[int], "send its name"),
        (Literal[b"x"], "write an Enum"),
        (Floats, "write an Enum whose values are all strings, or all integers"),
        (ValueError, "raise it, as a subclass of seqrpc.RpcError"),
        (IO[str], r"write seqrpc.OwnedFd, and send seqrpc.OwnedFd.dup\(...\) of it"),
        (typing.BinaryIO, "write seqrpc.OwnedFd"),
        (io.FileIO, "write seqrpc.OwnedFd"),
        (io.TextIOWrapper, "write seqrpc.OwnedFd"),
        (socket.socket, "write seqrpc.OwnedFd"),
        (Plain, "make it a dataclass or a msgspec.Struct, or tell seqrpc.register_type"),
        (complex, "make it a dataclass"),
        (Name, r"write str \(or a typing.NewType of it\), or tell seqrpc.register_type"),
        (Table, "write dict"),
        (5, "it is no type that is known"),
        (..., "it is no type that is known"),
    ],
)
def test_what_cannot_be_sent_is_named_and_what_would_do(annotation: Any, message: str) -> None:
    text = way_out(annotation)
    with pytest.raises(TypeError, match=rf"^S\.m: x\[\]: values of type .* cannot be sent: .*{message}") as caught:
        shape_of(list[annotation], path="S.m: x")
    assert str(caught.value) == f"S.m: x[]: {text}"


def test_what_is_alike_is_named_and_what_would_do() -> None:
    assert (
        why_alike("A", "B", Wire.STREAM, have_tags=False)
        == "a stream does not say which of A and B it is: write one of them"
    )
    assert "write one of them, or a base of both" in why_alike("A", "B", Wire.CHANNEL, have_tags=False)
    assert "different tags, in the same tag_field" in why_alike("A", "B", Wire.MAP, have_tags=True)
    text = why_alike("A", "B", Wire.MAP, have_tags=False)
    assert text.startswith("A and B cannot be told apart, for both may be a map on the wire: make them msgspec.Structs")
