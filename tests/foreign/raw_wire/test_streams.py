"""Streams, byte by byte; what breaks the protocol costs its own stream."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.raw_wire import MAX_MESSAGE, Case, Ext, Maker, Raw, Service, buffer, content_of, nested, packed, spilled


def echoed(make: Maker, raw: Raw) -> tuple[Raw, Raw]:
    """Return a stream to write to, and the one that gives back what is written."""
    ours, theirs = make.pair()
    raw.send(packed(0, 1, "Foreign.echo_items", [Ext(2, b"\0")]), [theirs])

    assert raw.receive() == bytes.fromhex("94 01 01 c0 d40200")
    assert len(raw.fds) == 1
    make.close(theirs)
    return ours, raw.takes_over()


# Streams


def test_items_are_the_same_bytes_in_both_directions(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)

    for item in ("05", "ff", "a161", "c0", "c3", "c4020102", "cb3ff8000000000000", "93 01 02 90", "81 a16b 80"):
        packet = bytes.fromhex(f"92 00 {item}")
        to.send(packet)
        assert back.receive() == packet


def test_several_items_in_one_packet_come_in_their_order(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)

    to.send(bytes.fromhex("96 00 01 02 a133 04 05"))

    items: list[Any] = []
    while len(items) < 5:
        kind, *more = back.message()
        assert kind == 0
        items += more
    assert items == [1, 2, "3", 4, 5]


def test_an_items_descriptors_go_with_its_packet(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    packet = bytes.fromhex("92 00 92 d40101 d40100")

    to.send(packet, [make.memfd(b"one"), make.memfd(b"two")])

    assert [back.receive(), len(back.fds)] == [bytes.fromhex("92 00 92 d40100 d40101"), 2]
    assert [content_of(fd) for fd in back.fds] == [b"two", b"one"]


def test_a_long_item_is_spilled(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    message = bytes.fromhex("92 00 db00030d40") + b"x" * 200_000
    packet = bytes.fromhex("92 04 ce00030d47")

    to.send(packet, [make.memfd(message)])

    assert [back.receive(), len(back.fds)] == [packet, 1]
    assert content_of(back.fds[0]) == message


def test_the_longest_packet_of_a_stream_has_65536_bytes_and_one_byte_more_is_spilled(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    longest = bytes.fromhex("92 00 dafffb") + b"x" * 65_531

    to.send(longest)
    assert [back.receive(), back.fds] == [longest, []]

    longer = bytes.fromhex("92 00 dafffc") + b"x" * 65_532
    to.send(bytes.fromhex("92 04 ce00010001"), [make.memfd(longer)])
    assert back.receive() == bytes.fromhex("92 04 ce00010001")
    assert content_of(back.fds[0]) == longer


@pytest.mark.parametrize(
    "end",
    ["92 01 c0", "92 01 93 a3782e59 a3776879 c0", "92 01 93 a3782e59 a0 81 a16b 9101"],
    ids=["regular", "an error", "an error with data"],
)
def test_an_end_is_the_same_bytes_in_both_directions(make: Maker, raw: Raw, end: str) -> None:
    to, back = echoed(make, raw)
    packet = bytes.fromhex(end)

    to.send(packet)

    assert back.receive() == packet
    assert back.receive() == b""
    assert to.receive() == b"", "the reader has no more use for its end"


def test_a_stream_outlives_the_connection_that_carried_it(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    raw.sock.close()

    to.send(bytes.fromhex("92 00 05"))

    assert back.receive() == bytes.fromhex("92 00 05")


def test_a_stream_within_a_stream(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    inner, theirs = make.pair()

    to.send(bytes.fromhex("92 00 d40200"), [theirs])

    assert back.receive() == bytes.fromhex("92 00 d40200")
    inner.send(b"as it is")
    assert back.takes_over().receive() == b"as it is"


def test_a_reader_that_writes_is_as_one_that_closed(make: Maker, raw: Raw) -> None:
    raw.send(packed(0, 1, "Foreign.endless", []))
    assert raw.receive() == bytes.fromhex("94 01 01 c0 d40200")
    stream = raw.takes_over()
    last = stream.receive()

    stream.send(b"hello")

    while packet := stream.receive():
        last = packet
    kind, *_items = msgpack.unpackb(last)
    assert kind == 0, "no END"


def test_unknown_kinds_of_packets_of_a_stream_are_ignored(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)

    to.send(bytes.fromhex("91 02"), [make.null()])
    to.send(bytes.fromhex("93 cd1000 c7020001ff d40109"))
    to.send(bytes.fromhex("92 00 05"))

    assert back.receive() == bytes.fromhex("92 00 05")


BROKEN_STREAMS: dict[str, Case] = {
    "no items": lambda make: (packed(0), []),
    "an end without error": lambda make: (packed(1), []),
    "an end with too much": lambda make: (packed(1, None, None), []),
    "an error that is text": lambda make: (packed(1, "why"), []),
    "an error too short": lambda make: (packed(1, ["a.B", "why"]), []),
    "an error with a number for a code": lambda make: (packed(1, [1, "why", None]), []),
    "no array": lambda make: (b"\x05", []),
    "an empty array": lambda make: (b"\x90", []),
    "text for a kind": lambda make: (packed("0", 1), []),
    "a negative kind": lambda make: (packed(-1, 1), []),
    "bytes left over": lambda make: (packed(0, 1) + b"\x01", []),
    "cut short": lambda make: (packed(0, "text")[:-1], []),
    "never used byte": lambda make: (b"\x92\x00\xc1", []),
    "too deep": lambda make: (b"\x92\x00" + nested(64), []),
    "a descriptor that is not referred to": lambda make: (packed(0, 1), [make.null()]),
    "a descriptor that did not come": lambda make: (packed(0, Ext(1, b"\0")), []),
    "a stream that is a pipe": lambda make: (packed(0, Ext(2, b"\0")), [make.pipe()]),
    "a buffer, and a descriptor that is not referred to": lambda make: (
        packed(0, buffer(0, 0, 1)),
        [make.memfd(b"x"), make.null()],
    ),
    "a packet of 65,537 bytes": lambda make: (bytes.fromhex("92 00 dafffc") + b"x" * 65_532, []),
    "spilled without a file": lambda make: (packed(4, 100), []),
    "spilled and not sealed": spilled(packed(0, 1), seals=0),
    "spilled twice": lambda make: (packed(4, 2), [make.memfd(packed(4))]),
    "spilled and malformed": spilled(b"\x91\xc1"),
    "spilled with a length too small": lambda make: (packed(4, 2), [make.memfd(packed(0, 1))]),
    "spilled with a length too great": lambda make: (packed(4, 4), [make.memfd(packed(0, 1))]),
}


def end_of_upload(make: Maker, raw: Raw, packets: list[tuple[bytes, list[int]]]) -> Any:
    """Upload a stream of an item and some packets; return what was taken, and why it ended."""
    ours, theirs = make.pair()
    ours.send(packed(0, "first"))
    for data, fds in packets:
        ours.send(data, fds)
    raw.send(packed(0, 1, "Foreign.why_it_ends", [Ext(2, b"\0")]), [theirs])
    make.close(theirs)
    kind, call_id, error, result = raw.message()
    assert [kind, call_id, error] == [1, 1, None]
    assert ours.receive() == b"", "the reader closed it"
    return result


# What ends a stream, and only that


@pytest.mark.parametrize("case", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
def test_a_malformed_packet_costs_its_stream_and_no_more(make: Maker, service: Service, raw: Raw, case: Case) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()

    assert end_of_upload(make, raw, [case(make)]) == [["first"], "malformed"]

    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)


def test_an_item_over_the_limit_ends_the_stream_with_too_large(make: Maker, raw: Raw) -> None:
    packet = packed(4, MAX_MESSAGE + 1), [make.memfd(packed(0, "small"))]

    assert end_of_upload(make, raw, [packet]) == [["first"], "rpc.TooLarge"]


def test_the_end_of_file_is_not_the_end_of_a_stream(make: Maker, raw: Raw) -> None:
    ours, theirs = make.pair()
    raw.send(packed(0, 1, "Foreign.why_it_ends", [Ext(2, b"\0")]), [theirs])
    make.close(theirs)

    ours.send(packed(0, "first", "second"))
    ours.sock.close()

    assert raw.message() == [1, 1, None, [["first", "second"], "rpc.Unavailable"]]


def test_what_comes_after_the_end_is_not_looked_at(make: Maker, raw: Raw) -> None:
    assert end_of_upload(make, raw, [(packed(1, None), []), (b"\xc1", [])]) == [["first"], "the end"]
