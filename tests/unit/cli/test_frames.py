"""What two ends of a tunnel send each other."""

from __future__ import annotations

import io
import os
from typing import Any

import msgpack
import pytest

from seqrpc.cli.frames import (
    MOST_BYTES,
    BrokenTunnel,
    Frame,
    Instead,
    Kind,
    Memory,
    Socket,
    framed,
    instead_of,
    is_spilled,
    packed,
    read_frame,
    reader_of,
    streams_in,
    unpacked,
    with_clock,
)

Ext = msgpack.ExtType


def message(*parts: Any) -> bytes:
    data: bytes = msgpack.packb(parts)
    return data


def test_frames_come_as_they_went() -> None:
    pipe = io.BytesIO(framed(Kind.PACKET, 7, b"content") + framed(Kind.END))
    assert read_frame(pipe.read) == Frame(Kind.PACKET, 7, b"content")
    assert read_frame(pipe.read) == Frame(Kind.END, 0, b"")
    assert read_frame(pipe.read) is None


@pytest.mark.parametrize(
    "data, text",
    [
        (b"Welcome to this machine", "is no frame"),
        (framed(Kind.END)[:3], "in the midst"),
        (framed(Kind.PACKET, 1, b"content")[:-1], "in the midst"),
        (b"\x02" + b"\0\0\0\0" + (MOST_BYTES + 1).to_bytes(4, "big"), "is no frame"),
    ],
)
def test_what_is_no_frame_is_told(data: bytes, text: str) -> None:
    with pytest.raises(BrokenTunnel, match=text):
        read_frame(io.BytesIO(data).read)


def test_a_pipe_is_read_until_there_is_enough(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"abc")
    pid = os.fork()
    if pid == 0:
        os.write(pipe[1], b"def")
        os._exit(0)
    assert reader_of(pipe[0])(6) == b"abcdef"
    os.waitpid(pid, 0)
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.close(writer)
    assert reader_of(reader)(6) == b"x"
    os.close(reader)


def test_packets_come_with_what_stands_for_their_descriptors() -> None:
    brought: list[Any] = [Socket(3), Memory(b"content"), Memory(b"")]
    assert unpacked(packed(b"message", brought)) == (b"message", brought)
    assert unpacked(packed(b"m", [])) == (b"m", [])


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\1", b"\1S\0", b"\1X", b"\1M" + b"\0" * 7, b"\1M" + b"\0" * 7 + b"\5abc", b"\1S\0\0\0\1"]
)
def test_what_is_no_packet_is_told(content: bytes) -> None:
    with pytest.raises(BrokenTunnel):
        unpacked(content)


def test_a_packet_has_no_more_descriptors_than_packets_have() -> None:
    with pytest.raises(BrokenTunnel):
        unpacked(packed(b"m", [Socket(1)] * 254))


def test_streams_are_told_from_objects() -> None:
    assert streams_in(message(1, 1, None, [Ext(2, b"\0"), Ext(3, b"\1"), {"a": Ext(2, b"\2")}])) == {0, 2}
    assert streams_in(message(1, 1, None, {})) == set()
    assert streams_in(b"\xc1") == set()
    assert streams_in(b"\x91" * 100_000) == set()


def test_spilled_messages_are_known() -> None:
    assert is_spilled(message(4, 100_000))
    assert is_spilled(message(4, 100_000, 1))
    assert not is_spilled(message(3, 4))
    assert not is_spilled(message(0, 4, "x", []))


ERROR = ["rpc.DescriptorsLost", "a descriptor cannot cross ssh: only data, streams, objects and buffers can", None]


@pytest.mark.parametrize(
    "given, is_stream, onwards, back",
    [
        (message(0, 7, "A.b", [Ext(1, b"\0")]), False, None, [1, 7, ERROR, None]),
        (message(1, 7, None, Ext(1, b"\0")), False, [1, 7, ERROR, None], None),
        (message(2, "A.b", [Ext(1, b"\0")]), False, None, None),
        (message(0, Ext(1, b"\0")), True, [1, ["rpc.Unavailable", *ERROR[1:]]], None),
        (b"\xc1", False, None, None),
        (message(), False, None, None),
    ],
)
def test_what_cannot_cross_is_an_error_of_its_call(given: bytes, is_stream: bool, onwards: Any, back: Any) -> None:
    instead = instead_of(given, is_stream=is_stream)
    assert [None if each is None else msgpack.unpackb(each) for each in instead] == [onwards, back]
    assert isinstance(instead, Instead)


NOW = 10**15


@pytest.mark.parametrize(
    "parts, changed",
    [
        ((0, 1, "A.b", [], {"deadline": NOW}), True),
        ((0, 1, "A.b", [], {"deadline": NOW, "meta": {"a": "b"}}), True),
        ((2, "A.b", [], {"deadline": NOW}), True),
        ((0, 1, "A.b", [{"deadline": NOW}]), False),
        ((0, 1, "A.b", [{"deadline": NOW}], {"meta": {"a": "b"}}), False),
        ((0, 1, "A.b", [{"deadline": NOW}], {"deadline": 5}), False),
        ((1, 1, None, {"deadline": NOW}), False),
        ((0, 1, "A.b", []), False),
    ],
)
def test_deadlines_are_told_by_the_other_clock(parts: tuple[Any, ...], changed: bool) -> None:
    moved = msgpack.unpackb(with_clock(message(*parts), 1_000))
    if changed:
        assert moved[-1].pop("deadline") == NOW + 1_000
        assert [*moved[:-1]] == [*parts[:-1]]
    else:
        assert moved == [*parts]


def test_a_deadline_stays_a_number_of_the_wire() -> None:
    given = message(0, 1, "A.b", [], {"deadline": NOW})
    assert msgpack.unpackb(with_clock(given, -(2**62)))[4]["deadline"] == 0
    assert msgpack.unpackb(with_clock(given, 2**63))[4]["deadline"] == 2**63 - 1
    assert with_clock(b"\xc1\xa8deadline\xcf" + b"\0" * 8, 5) == b"\xc1\xa8deadline\xcf" + b"\0" * 8
