"""What lends descriptors to a message: files, buffers, streams and channels."""

from __future__ import annotations

import enum
import gc
import io
import mmap
import os
import socket
import struct
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import attrs
import pytest
from support.coding import NAMES, Life, Made, Record, Structure, borrowed, buffer_data, nested, refusal, travel
from support.descriptors import Lender, memory_file, owned
from support.sessions import duplicates

from seqrpc.errors import LocalProtocolError, Overloaded, TooLarge
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import ValueFd
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.lenders import tell_sent
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM, BareValue


@attrs.define
class Opened:
    file: Any


@dataclass
class Numbered:
    fileno: int


class Named(enum.Enum):
    fileno = 1
    OTHER = 2


def test_3_1_descriptors_are_numbered_in_the_order_of_the_message() -> None:
    lenders = [Lender(), Lender(), Lender()]

    encoded, order = Encoder().encode((1, 1, None, [lenders[0], {"a": lenders[1]}, Record([lenders[2]])]), NAMES)

    data = bytes(encoded)
    assert order == lenders
    assert [data[data.index(b"\xd4\x01" + bytes((index,))) :][:2] for index in range(3)] == [b"\xd4\x01"] * 3


@dataclass
class Files:
    file: Any
    more: dict[str, Any] = field(default_factory=dict)


def test_files_sockets_and_owned_descriptors_are_lent_at_any_depth() -> None:
    with owned(2) as fds, tempfile.TemporaryFile() as file, socket.socket(socket.AF_UNIX) as sock:
        value = [
            file,
            {"s": sock},
            Files(fds[0], {"f": [file, Structure((sock, fds[1]))]}),
            {fds[1]},
            {"d": {1: fds[0]}},
        ]
        data, lenders = Encoder().encode((1, 1, None, value), NAMES)

        assert lenders == [file, sock, fds[0], file, sock, fds[1], fds[1], fds[0]]
        message, problem = Decoder().decode(bytes(data), borrowed(lenders))
        assert problem is None
        assert message[3] == [
            file,
            {"s": sock},
            {"file": fds[0], "more": {"f": [file, {"value": [sock, fds[1]]}]}},
            [fds[1]],
            {"d": {1: fds[0]}},
        ]
        assert not any(fd.closed for fd in fds)


def test_3_1_the_same_descriptor_twice_is_sent_twice() -> None:
    lender = Lender()
    data, lenders = Encoder().encode((1, 1, None, [lender, lender]), NAMES)
    assert lenders == [lender, lender]
    assert bytes(data).endswith(b"\xd4\x01\x00\xd4\x01\x01")


@pytest.mark.parametrize("around", [list, Record, lambda lenders: [Record(lender) for lender in lenders]])
def test_3_1_253_descriptors_are_sent_and_254_are_not(around: Callable[[list[Lender]], Any]) -> None:
    encoder, decoder = Encoder(), Decoder()
    lenders = [Lender() for _ in range(MAX_DESCRIPTORS)]
    data, order = encoder.encode((1, 1, None, around(lenders)), NAMES)
    assert order == lenders
    assert decoder.decode(bytes(data), borrowed(order))[1] is None

    with pytest.raises(LocalProtocolError, match="at most 253 descriptors"):
        encoder.encode((1, 1, None, around([*lenders, Lender()])), NAMES)
    assert encoder.encode((1, Lender()))[0] == b"\x92\x01\xd4\x01\x00"


@pytest.mark.parametrize("beside", [None, object(), "x" * MAX_PACKET, [[[[]]]]], ids=["sent", "bad", "large", "deep"])
def test_lenders_are_not_kept_after_the_message_is_gone(beside: Any) -> None:
    encoder = Encoder(Limits(max_depth=4, max_message_bytes=MAX_PACKET))
    with owned(1) as fds:
        alive = weakref.ref(fds[0])
        with suppress(LocalProtocolError, TooLarge):
            encoder.encode((1, 1, None, [fds[0], beside]), NAMES)
        fds.pop().close()
    gc.collect()

    assert alive() is None


def test_what_encode_returned_stays_as_it_is_when_the_next_is_encoded() -> None:
    encoder = Encoder()
    none = encoder.encode((1,))[1]
    one = encoder.encode((1, Lender()))[1]
    encoder.encode((1, Lender(), Lender()))
    assert (len(none), len(one)) == (0, 1)


def test_a_text_file_is_lent_though_it_can_be_read() -> None:
    with io.TextIOWrapper(tempfile.TemporaryFile()) as file:
        assert Encoder().encode((1, Record(file)))[1] == [file]


def test_4_buffers_travel_at_any_depth_and_are_sealed() -> None:
    first, second = Buffer.copy_of(b"first"), Buffer.copy_of(b"second")
    received, problem, fds = travel([first, {"a": Record({"b": second})}, first])
    assert problem is None
    one, two, again = received[0], received[1]["a"]["value"]["b"], received[2]
    assert (one[:], two[:], again[:]) == (b"first", b"second", b"first")
    assert all(type(buffer) is Buffer for buffer in (one, two, again))
    assert first.sealed
    assert [buffer.fileno() for buffer in (one, two, again)] == [fd.fileno() for fd in fds]


def test_4_the_bytes_of_a_buffer_are_index_offset_and_length() -> None:
    with Buffer.copy_of(b"content") as buffer, owned(1) as fds:
        data, lenders = Encoder().encode((fds[0], buffer))
        assert data == b"\x92\xd4\x01\x00\xc7\x11\x04" + struct.pack(">BQQ", 1, 0, 7)
        assert lenders == [fds[0], buffer]


def test_4_a_received_part_is_handed_on_as_that_part() -> None:
    content = bytes(range(256)) * 64
    with memory_file(content) as file:
        parts, problem = Decoder().decode(buffer_data(0, 4096, 100), [file])
        assert problem is None
    data, lenders = Encoder().encode(parts)
    assert data == buffer_data(0, 4096, 100)
    again, problem = Decoder().decode(data, duplicates(lenders))
    assert problem is None
    assert again[:] == content[4096:4196]


def test_4_a_buffer_that_cannot_be_sealed_is_not_sent() -> None:
    with Buffer.allocate(10) as buffer, mmap.mmap(buffer.fileno(), 10):
        assert "busy" in refusal([buffer])
        buffer[0] = 5
        assert os.pread(buffer.fileno(), 1, 0) == b"\x05"


def test_4_a_closed_buffer_is_not_sent() -> None:
    buffer = Buffer.allocate(10)
    buffer.close()
    assert "closed" in refusal([buffer])


@pytest.mark.parametrize("ext_type", [EXT_STREAM, EXT_CHANNEL])
def test_4_streams_and_channels_travel_as_whoever_owns_the_encoder_says(ext_type: int) -> None:
    life = Life()
    encoder, decoder = Encoder(living=life), Decoder(living=life)
    with owned(1) as (fd,):
        data, lenders = encoder.encode((1, {"a": Record([Made(ext_type, fd)])}))
        assert data == b"\x92\x01\x81\xa1a\x81\xa5value\x91\xd4" + bytes((ext_type, 0))
        assert lenders == life.departures
        fds = duplicates(lenders)
        tell_sent(lenders)
        assert [departure.told for departure in life.departures] == [["sent"]]

        message, problem = decoder.decode(bytes(data), fds)

        assert problem is None
        made = message[1]["a"]["value"][0]
        assert (type(made), made.ext_type) == (Made, ext_type)
        assert made.fd is fds[0]
        assert os.path.sameopenfile(made.fd.fileno(), fd.fileno())
    assert isinstance(fds[0], ValueFd), "it goes with its value"


def test_4_the_plain_living_leaves_streams_and_channels_bare() -> None:
    with owned(2) as (stream, channel):
        received, problem, fds = travel([BareValue(EXT_STREAM, stream), {"c": BareValue(EXT_CHANNEL, channel)}])
        assert problem is None
        assert [received[0].ext_type, received[1]["c"].ext_type] == [EXT_STREAM, EXT_CHANNEL]
        assert [received[0].fd, received[1]["c"].fd] == fds


def test_departures_of_a_message_that_is_not_sent_hear_of_it_once() -> None:
    with owned(1) as (fd,):
        made = Made(EXT_STREAM, fd)
        for value, limits in (
            ([made, object()], Limits()),
            ([made, Made(EXT_STREAM, fd), 2**64], Limits()),
            ([made, b"x" * MAX_PACKET], Limits(max_message_bytes=MAX_PACKET)),
            ([made, [made] * 300], Limits()),
            ([made, [made] * 252, b"x" * MAX_PACKET], Limits()),
            ([made, nested(70)], Limits()),
        ):
            life = Life()
            with pytest.raises((LocalProtocolError, TooLarge)):
                Encoder(limits, life).encode((1, value))
            assert [departure.told for departure in life.departures] == [["unsent"]] * len(life.departures)
            assert life.departures


@pytest.mark.parametrize("error", [Overloaded("too many"), LocalProtocolError("not this one")])
def test_what_hinders_a_departure_is_told_as_it_is(error: Exception) -> None:
    with owned(1) as (fd,), pytest.raises(type(error)) as caught:
        Encoder(living=Life(fails=error)).encode((1, Made(EXT_STREAM, fd)))
    assert caught.value is error


def test_another_failure_of_a_departure_is_told_without_a_place() -> None:
    with owned(1) as (fd,):
        encoder = Encoder(living=Life(fails=OSError(24, "Too many open files")))
        assert "Too many open files" in refusal([Made(EXT_STREAM, fd)], encoder)
        assert refusal([Made(EXT_STREAM, fd), object()], Encoder(living=Life())).startswith("cannot send result[1]: ")


@pytest.mark.parametrize("in_pieces", [False, True])
def test_departures_of_a_message_that_was_given_away_are_given_up_if_it_is_not_sent(in_pieces: bool) -> None:
    with owned(2) as (fd, lent):
        life = Life()
        encoder = Encoder(living=life)
        long = (bytes(MAX_PACKET + 1),) if in_pieces else ()
        with pytest.raises(LocalProtocolError):
            encoder.encode((1, [Made(EXT_STREAM, fd), lent, object(), Made(EXT_STREAM, fd)]), values=long, given=True)
        assert [departure.told for departure in life.departures] == [["given up"]], "the second was not reached"
        assert lent.closed
        assert not fd.closed


def test_what_was_given_away_is_given_up_in_what_it_is_in() -> None:
    with owned(2) as (fd, alone):
        life = Life()
        made = Made(EXT_STREAM, fd)
        Encoder(living=life).give_up({"a": [made, alone]})
        assert life.given_up == [made]
        assert alone.closed


def test_what_lends_a_descriptor_is_found_in_any_kind_of_object() -> None:
    for hold in (Structure, lambda held: Structure([Record(held)]), Opened, lambda held: Opened([held])):
        lender = Lender()
        assert Encoder().encode((1, 1, None, hold(lender)), NAMES)[1] == [lender]


def test_data_with_a_field_of_that_name_is_data() -> None:
    for value, wire in ((Numbered(3), {"fileno": 3}), (Named.fileno, 1), (Named.OTHER, 2)):
        assert travel([value]) == ([wire], None, [])
