"""Section 6 of the protocol, as packets without a socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.departures import Told
from support.descriptors import Lender, memory_file, owned
from support.incidents import AN_INCIDENT
from support.measures import peak_bytes
from support.properties import PROPERTY, scalars, values
from support.scarcity import address_space_used_up

from seqrpc.errors import (
    DescriptorsLost,
    Execution,
    LocalProtocolError,
    Overloaded,
    PermissionDenied,
    RemoteProtocolError,
    TooLarge,
    Unavailable,
)
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import (
    PACKET_BYTES,
    PACKET_ITEMS,
    End,
    ItemReader,
    Items,
    ItemWriter,
    Outgoing,
    failure_of,
    producer_gone,
)
from seqrpc.protocol.messages import SPILLED
from seqrpc.protocol.spilled import write_spilled

MAX_BYTES = 1_000_000


@dataclass
class Record:
    value: Any


def writer(limits: Limits | None = None) -> ItemWriter:
    return ItemWriter(Encoder(limits or Limits(max_message_bytes=MAX_BYTES)))


def reader(max_bytes: int = MAX_BYTES) -> ItemReader:
    return ItemReader(Decoder(Limits(max_message_bytes=max_bytes)), max_bytes)


def packet(*message: Any) -> bytes:
    return bytes(Encoder().encode(message)[0])


def arrive(outgoing: Outgoing, *, spilled: bool = False) -> Items | End | None:
    """Return what a reader makes of a message that a writer made, and say to the writer that it was sent."""
    fds = [OwnedFd.dup(lender) for lender in outgoing.lenders]
    data = bytes(outgoing.data)
    if spilled or len(data) > MAX_PACKET:
        fds.insert(0, write_spilled(data))
        data = packet(SPILLED, len(data))
    outgoing.sent()
    return reader().receive_packet(data, fds)


def packets(items: ItemWriter) -> Iterator[Outgoing]:
    """Return all messages that wait."""
    while (outgoing := items.packet()) is not None:
        yield outgoing


def values_of(event: Items | End | None) -> list[Any]:
    assert isinstance(event, Items)
    assert event.fds == []
    return event.values


def arrive_all(items: ItemWriter) -> list[Any]:
    return [value for outgoing in packets(items) for value in values_of(arrive(outgoing))]


def malformed(data: bytes, descriptors: int = 0) -> str:
    """Check that a packet is malformed and its descriptors are closed; return the reason."""
    with owned(descriptors) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError) as caught:
            reader().receive_packet(data, fds)
        assert all(fd.closed for fd in every)
    return str(caught.value)


def test_6_1_a_packet_begins_with_0_and_has_one_item_or_more() -> None:
    items = writer()
    items.add("one")
    alone = items.packet()
    assert alone is not None
    assert alone.data == packet(0, "one")
    alone.sent()
    for item in (1, None, True, 1.5, "text", b"bytes", [1, {"a": 2}], "last"):
        items.add(item)
    assert items.count == 8
    together = items.packet()
    assert together is not None
    assert together.data == packet(0, 1, None, True, 1.5, "text", b"bytes", [1, {"a": 2}], "last")
    assert together.lenders == []
    assert (items.count, items.full, items.packet()) == (0, False, None)


def test_6_1_the_end_is_a_1_with_nil_or_an_error() -> None:
    assert writer().end(None).data == packet(1, None)
    assert writer().end(("a.B", "text", {"c": 1})).data == packet(1, ["a.B", "text", {"c": 1}])
    end = arrive(writer().end(("a.B", "text", [1])))
    assert isinstance(end, End)
    assert (end.error, end.fds) == (["a.B", "text", [1]], [])
    end = arrive(writer().end(None))
    assert isinstance(end, End)
    assert end.error is None


@pytest.mark.parametrize(
    "error, left",
    [
        (("a.B", "text", object()), ["a.B", "text", None]),
        (("a.B", "text", "x" * MAX_BYTES), ["a.B", "text", None]),
        (("a.B", "\udcff", 1), ["rpc.Internal", AN_INCIDENT, None]),
        (("a.B", "x" * MAX_BYTES, None), ["rpc.Internal", AN_INCIDENT, None]),
    ],
    ids=["object", "too large", "not UTF-8", "long"],
)
def test_what_cannot_be_sent_of_an_error_is_left_out(error: tuple[str, str, Any], left: list[Any]) -> None:
    end = arrive(writer().end(error))
    assert isinstance(end, End)
    assert end.error == left


def test_an_end_may_bring_descriptors_and_be_spilled() -> None:
    with owned(1) as fds:
        end = arrive(writer().end(("a.B", "text", [fds[0], "x" * 100_000])))
        assert isinstance(end, End)
        assert end.error is not None
        assert end.error[2][0] is end.fds[0]
        close_all(end.fds)


@PROPERTY
@given(st.lists(values() | scalars() | st.text(max_size=3_000) | st.binary(max_size=12_000), max_size=40))
def test_items_arrive_in_order_whatever_they_are(sent: list[Any]) -> None:
    items, arrived, counts = writer(), [], []
    for item in sent:
        items.add(item)
        if items.full:
            for outgoing in packets(items):
                part = values_of(arrive(outgoing))
                counts.append(len(part))
                assert len(outgoing.data) <= MAX_PACKET
                arrived += part
            assert not items.full
    arrived += arrive_all(items)
    assert arrived == sent
    assert all(count <= PACKET_ITEMS for count in counts)


@pytest.mark.parametrize(
    "item", [1, "a", None, b"x", [1], 2**64 - 1, -(2**63), "x" * 256, "\U0001f600" * 256, [[]]], ids=repr
)
def test_a_packet_is_full_at_so_many_items_or_bytes(item: Any) -> None:
    items = writer()
    count = 0
    while not items.full:
        items.add(item)
        count += 1
    assert count == items.count <= PACKET_ITEMS
    outgoing = items.packet()
    assert outgoing is not None
    assert len(outgoing.data) < 2 * PACKET_BYTES
    assert values_of(arrive(outgoing)) == [item] * count
    assert not items.full


def test_the_largest_packet_that_is_shared_fits_into_one() -> None:
    items = writer()
    while not items.full:
        items.add("\U0001f600" * 256)
    items.add(b"x" * (PACKET_BYTES - 10))
    (outgoing,) = packets(items)
    assert len(outgoing.data) <= MAX_PACKET
    assert len(values_of(arrive(outgoing))) == 9


def test_what_is_large_has_a_packet_of_its_own_after_what_waited() -> None:
    items = writer()
    items.add(1)
    items.add([2])
    items.add("x" * PACKET_BYTES)
    assert items.full
    first = items.packet()
    assert first is not None
    assert items.full, "the other still waits"
    second = items.packet()
    assert second is not None
    assert not items.full
    assert values_of(arrive(first)) == [1, [2]]
    assert values_of(arrive(second)) == ["x" * PACKET_BYTES]
    assert items.packet() is None


@pytest.mark.parametrize("size", [MAX_PACKET - 5, MAX_PACKET - 4, 500_000])
def test_6_1_what_is_longer_than_a_packet_is_spilled(size: int) -> None:
    items = writer()
    items.add(b"x" * size)
    (outgoing,) = packets(items)
    assert (len(outgoing.data) > MAX_PACKET) == (size > MAX_PACKET - 5)
    assert values_of(arrive(outgoing)) == [b"x" * size]


def test_any_message_of_a_stream_may_be_spilled() -> None:
    items = writer()
    items.add(1)
    items.add(2)
    (outgoing,) = packets(items)
    assert values_of(arrive(outgoing, spilled=True)) == [1, 2]
    end = arrive(items.end(None), spilled=True)
    assert isinstance(end, End)


def test_the_longest_item_that_is_sent_is_one_that_is_taken() -> None:
    limit = MAX_PACKET + 100
    items = writer(Limits(max_message_bytes=limit))
    longest = b"x" * (limit - 7)
    items.add(longest)
    (outgoing,) = packets(items)
    assert len(outgoing.data) == limit
    file = write_spilled(outgoing.data)
    assert values_of(reader(limit).receive_packet(packet(SPILLED, limit), [file])) == [longest]
    with pytest.raises(TooLarge, match="max_message_bytes"):
        items.add(longest + b"x")


def test_descriptors_travel_with_a_packet_of_their_own_and_are_given_away() -> None:
    items = writer()
    with owned(3) as fds:
        every = list(fds)
        items.add("before")
        items.add({"a": Record([fds[0], fds[1]])})
        first, second = packets(items)
        assert values_of(arrive(first)) == ["before"]
        event = arrive(second)
        assert isinstance(event, Items)
        assert event.values == [{"a": {"value": event.fds}}]
        assert [fd.closed for fd in every] == [True, True, False]
        close_all(event.fds)

        items.add([fds[2]])
        (outgoing,) = packets(items)
        assert not every[2].closed
        outgoing.unsent()
        assert every[2].closed


def test_5_1_as_many_descriptors_as_a_packet_takes_travel_and_one_less_with_what_is_spilled() -> None:
    encoder = Encoder()
    for size, most in ((MAX_PACKET - 2_000, MAX_DESCRIPTORS), (MAX_PACKET + 1, MAX_DESCRIPTORS - 1)):
        items = ItemWriter(encoder)
        items.add([[Lender()] * most, bytes(size)])
        (outgoing,) = packets(items)
        assert len(outgoing.lenders) == most
        with pytest.raises(LocalProtocolError, match=f"at most {most} descriptors"):
            items.add([[Lender()] * (most + 1), bytes(size)])
    # The very longest packet with 253 descriptors: a byte more, and it would have to go as a file with 252.
    items = ItemWriter(encoder)
    overhead = len(encoder.encode((0, [[Lender()] * MAX_DESCRIPTORS, bytes(60_000)]))[0]) - 60_000
    items.add([[Lender()] * MAX_DESCRIPTORS, bytes(MAX_PACKET - overhead)])
    (outgoing,) = packets(items)
    assert len(outgoing.data) == MAX_PACKET
    with pytest.raises(LocalProtocolError, match="at most 252 descriptors"):
        items.add([[Lender()] * MAX_DESCRIPTORS, bytes(MAX_PACKET - overhead + 1)])


def test_an_item_may_be_a_buffer() -> None:
    items = writer()
    items.add(Buffer.copy_of(b"content"))
    (outgoing,) = packets(items)
    event = arrive(outgoing)
    assert isinstance(event, Items)
    assert event.values[0][:] == b"content"


@pytest.mark.parametrize("bad", [object(), [2**64], {"a": "\udcff"}, bytearray(MAX_BYTES), [[[]] * 10, 1j]], ids=repr)
def test_an_item_that_cannot_be_sent_is_told_at_once_and_what_waits_still_goes(bad: Any) -> None:
    items = writer()
    with owned(1) as fds:
        fd = fds[0]
        items.add(1)
        items.add([2])
        with pytest.raises((LocalProtocolError, TooLarge)) as caught:
            items.add([fd, bad])
        assert fd.closed, "it was given away"
        assert "cannot send item" in str(caught.value) or isinstance(caught.value, TooLarge)
    assert items.failure is None
    assert arrive_all(items) == [1, [2]]


@pytest.mark.parametrize("bad", [2**64, -(2**63) - 1, "\udcff", "x" * 255 + "\ud800"], ids=ascii)
@pytest.mark.parametrize(
    "then", [[], [4, 5], [[4]], ["x" * 10_000], [Lender()]], ids=["end", "scalars", "list", "large", "fd"]
)
@pytest.mark.parametrize("before", [[], [1, "two"], [1, "two", [3]]], ids=["first", "scalars", "list"])
def test_a_scalar_that_cannot_be_sent_is_told_later_and_nothing_overtakes_it(
    before: list[Any], bad: Any, then: list[Any]
) -> None:
    items = writer()
    for item in (*before, bad):
        items.add(item)
    with suppress(LocalProtocolError):
        for item in then:
            items.add(item)
    assert arrive_all(items) == before
    assert isinstance(items.failure, LocalProtocolError)
    assert str(items.failure).startswith("cannot send item: ")


def test_scalars_that_only_together_could_not_be_encoded_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Encoder, _run: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Encoder, "encode_run", fail)
    items = writer()
    for item in (1, "two", [3.0], 4):
        items.add(item)
    assert arrive_all(items) == [1, "two", [3.0], 4]
    assert items.failure is None


def test_descriptors_of_an_item_that_comes_after_one_that_cannot_be_sent_are_closed() -> None:
    items = writer()
    items.add(2**64)
    with owned(1) as fds:
        with pytest.raises(LocalProtocolError, match="64 bits"):
            items.add([fds[0]])
        assert fds[0].closed


def test_what_waits_can_be_dropped() -> None:
    items = writer()
    with owned(1) as fds:
        fd = fds[0]
        items.add(1)
        items.add([fd])
        items.drop()
        assert fd.closed
    assert (items.count, items.full, items.packet()) == (0, False, None)
    items.add(2**64)
    items.drop()
    items.add(2)
    assert arrive_all(items) == [2]
    assert items.failure is None


@pytest.mark.parametrize("end", ["sent", "unsent", "drop"])
def test_what_is_lent_hears_whether_it_was_sent(end: str) -> None:
    departure = Told()
    items = writer()
    items.add([departure])
    if end == "drop":
        items.drop()
    else:
        (outgoing,) = packets(items)
        getattr(outgoing, end)()
    assert departure.told == ["sent" if end == "sent" else "given up"]


@pytest.mark.parametrize(
    "data, reason",
    [
        (packet(0), "one item or more, this one none"),
        (packet(1), "the end of a stream has 2 elements, got 1"),
        (packet(1, None, None), "the end of a stream has 2 elements, got 3"),
        (packet(1, 1), "an error is [code, message, data], got 1"),
        (packet(1, ["a.B", "text"]), "an error is [code, message, data], got an array of 2"),
        (packet(1, [1, "text", None]), "an error's code and message are strings"),
        (packet(), "an array with a kind was expected"),
        (packet(-1, 1), "a kind is an unsigned integer"),
        (packet(True, 1), "a kind is an unsigned integer"),
        (b"\xc0", "an array with a kind was expected"),
        (b"", "malformed packet of 0 bytes"),
        (b"\x92\x00\xc1", "malformed packet of 3 bytes"),
        (b"\x92\x00\x01\x01", "extra data"),
        (b"\x92\x00\xd4\x63\x00", "unknown extension type 99"),
        (packet(4, 0), "a positive integer"),
        (packet(4), "2 or 3 elements"),
        (packet(4, 100), "no descriptor came with it"),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else None,
)
def test_1_5_a_packet_of_the_wrong_shape_is_malformed(data: bytes, reason: str) -> None:
    assert reason in malformed(data)


def test_1_5_the_descriptors_of_a_malformed_packet_are_closed() -> None:
    assert "1 descriptors came, 0 of them" in malformed(packet(0, 1), 1)
    assert "2 descriptors came, 1 of them" in malformed(packet(0, Lender()), 2)
    assert "0 is referred to, but 0 came" in malformed(packet(0, Lender()))
    assert "1 descriptors came" in malformed(packet(1, None), 1)
    assert malformed(packet(0), 3)
    assert malformed(b"\xc1", 3)
    assert "got a file of another kind" in malformed(packet(4, 10), 2)


@pytest.mark.parametrize("kind", [2, 3, 5, 6, 2**64 - 1])
def test_1_4_packets_of_unknown_kinds_are_ignored_and_their_descriptors_closed(kind: int) -> None:
    with owned(2) as fds:
        every = list(fds)
        assert reader().receive_packet(packet(kind, Lender(), 5), fds) is None
        assert all(fd.closed for fd in every)
    assert reader().receive_packet(b"\x92\x05\xd4\x63\x00", []) is None


def spilled(*message: Any, seals: int | None = None) -> tuple[bytes, list[OwnedFd]]:
    data = packet(*message)
    return packet(SPILLED, len(data)), [memory_file(data) if seals is None else memory_file(data, seals=seals)]


def test_5_1_a_spilled_message_inside_a_spilled_message_is_malformed() -> None:
    data, fds = spilled(SPILLED, 10)
    with pytest.raises(RemoteProtocolError, match="a spilled message inside a spilled message"):
        reader().receive_packet(data, fds)
    assert fds == []


def test_5_2_a_file_that_is_not_sealed_or_lies_is_malformed() -> None:
    for data, fds in (
        spilled(0, 1, seals=0),
        spilled(0, 1, seals=0b0111),
        (packet(SPILLED, 100), spilled(0, 1)[1]),
        (packet(SPILLED, 100), [memory_file(b"\x92", size=1 << 40)]),
    ):
        with pytest.raises(RemoteProtocolError, match="malformed spilled message"):
            reader().receive_packet(data, fds)
        assert fds == []


def test_5_2_a_spilled_item_over_the_limit_is_not_read_whatever_it_is() -> None:
    for file in (memory_file(size=1 << 40), memory_file(seals=0)):
        fds = [file]
        with pytest.raises(TooLarge, match=r"at most 1000000 bytes \(max_message_bytes\), this one 1000001"):
            reader().receive_packet(packet(SPILLED, MAX_BYTES + 1), fds)
        assert file.closed


def test_a_spilled_item_that_there_is_no_room_for_is_overload() -> None:
    fds = [memory_file(size=60 << 20, whole=True)]
    with address_space_used_up(), pytest.raises(Overloaded, match="no room for a message"):
        ItemReader(Decoder(), 1 << 31).receive_packet(packet(SPILLED, 60 << 20), fds)


@pytest.mark.parametrize(
    "data", [packet(0, Lender()), packet(1, ["a.B", "", Lender()]), packet(SPILLED, 100)], ids=bytes.hex
)
def test_3_3_an_item_that_lost_its_descriptors_is_told_as_that(data: bytes) -> None:
    with pytest.raises(DescriptorsLost):
        reader().receive_packet(data, [], lost=True)


def test_an_item_with_a_value_that_is_not_taken_here_is_told_as_that() -> None:
    limited = ItemReader(Decoder(Limits(max_buffer_bytes=3)), MAX_BYTES)
    data, lenders = Encoder().encode((0, Buffer.copy_of(b"1234")))
    fds = [OwnedFd.dup(lender) for lender in lenders]
    with pytest.raises(TooLarge, match="max_buffer_bytes"):
        limited.receive_packet(bytes(data), fds)
    assert fds == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"\x91" * MAX_PACKET,
        lambda: (b"\xdc\x00\x64\x00" + b"\xdd\x00\x00\xff\x00" * 62).ljust(MAX_PACKET, b"\xc0"),
        lambda: b"\xdd\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"),
        lambda: b"\xdd\x00\x00\xff\xfb\x00".ljust(MAX_PACKET, b"\xc0"),
    ],
    ids=["deep", "lies", "long", "many"],
)
def test_the_nastiest_packets_cost_little_memory(make: Callable[[], bytes]) -> None:
    data = make()

    def receive() -> None:
        try:
            reader().receive_packet(data, [])
        except RemoteProtocolError:
            return

    assert peak_bytes(receive) < 24 * MAX_PACKET


@PROPERTY
@given(
    st.binary(max_size=100)
    | st.builds(packet, st.sampled_from([0, 0, 1, 4, 5]), values() | st.builds(Lender))
    | st.builds(lambda rest: packet(0, *rest), st.lists(values() | st.builds(Lender), max_size=4)),
    st.integers(0, 3),
    st.booleans(),
)
def test_any_packet_is_something_or_malformed_and_never_leaks(data: bytes, descriptors: int, lost: bool) -> None:
    with owned(0 if lost else descriptors) as fds:
        every = list(fds)
        event: Any = None
        reason = ""
        try:
            event = reader().receive_packet(data, fds, lost=lost)
        except (RemoteProtocolError, DescriptorsLost, TooLarge) as exc:
            reason = str(exc)
        assert len(reason) < 500
        assert not lost or event is None
        held = [] if event is None else event.fds
        assert [fd.closed for fd in every] == [not held] * len(every)


def test_a_descriptor_belongs_to_the_packet_that_brought_it(pipe: tuple[int, int]) -> None:
    fds = [OwnedFd.dup(pipe[1])]
    event = reader().receive_packet(packet(0, {"w": Lender()}), fds)
    assert isinstance(event, Items)
    assert event.values == [{"w": fds[0]}]
    assert event.fds is fds
    os.write(event.fds[0].fileno(), b"through")
    assert os.read(pipe[0], 10) == b"through"
    close_all(event.fds)


def test_an_item_with_a_closed_descriptor_is_told_by_the_path_to_that_and_given_up() -> None:
    items = writer()
    items.add(1)
    with owned(2) as (opened, closed):
        closed.close()
        told = r"^the item\['a'\]\[1\]: the descriptor is closed; what is yielded is given away: "
        with pytest.raises(ValueError, match=told):
            items.add({"a": [opened, closed]})
        assert opened.closed
    assert arrive_all(items) == [1]


def test_what_ends_a_stream_does_not_say_that_nothing_ran() -> None:
    ended = failure_of(End(["rpc.PermissionDenied", "no", None], []))
    assert (type(ended), ended.execution) == (PermissionDenied, Execution.MAY_HAVE_RUN)
    assert failure_of(End(["items.Own", "no", None], [])).execution is Execution.RAN
    gone = producer_gone("it died")
    assert (type(gone), gone.execution) == (Unavailable, Execution.MAY_HAVE_RUN)
