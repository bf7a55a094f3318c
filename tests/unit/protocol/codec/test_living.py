"""Values that live: streams, channels and whatever else the owner of a codec makes and sends."""

from __future__ import annotations

import os

import pytest
from support.codec import Life, Made, Record, nested, refusal, travel
from support.descriptors import Lender, owned
from support.sessions import duplicates

from seqrpc.errors import LocalProtocolError, Overloaded, TooLarge
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import ValueFd, close_all
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.lenders import tell_sent
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM, Handle


@pytest.mark.parametrize("ext_type", [EXT_STREAM, EXT_CHANNEL])
def test_4_streams_and_channels_travel_as_whoever_owns_the_codec_says(ext_type: int) -> None:
    life = Life()
    codec = Codec(living=life)
    with owned(1) as (fd,):
        data, lenders = codec.encode((1, {"a": Record([Made(ext_type, fd)])}))
        assert data == b"\x92\x01\x81\xa1a\x81\xa5value\x91\xd4" + bytes((ext_type, 0))
        assert lenders == life.exports
        fds = duplicates(lenders)
        tell_sent(lenders)
        assert [export.told for export in life.exports] == [["sent"]]

        message, problem = codec.decode(bytes(data), fds)

        assert problem is None
        made = message[1]["a"]["value"][0]
        assert (type(made), made.ext_type) == (Made, ext_type)
        assert made.fd is fds[0]
        assert os.path.sameopenfile(made.fd.fileno(), fd.fileno())
    assert isinstance(fds[0], ValueFd), "it goes with its value"


def test_4_the_plain_codec_leaves_streams_and_channels_as_handles() -> None:
    with owned(2) as (stream, channel):
        received, problem, fds = travel([Handle(EXT_STREAM, stream), {"c": Handle(EXT_CHANNEL, channel)}])
        assert problem is None
        assert [received[0].ext_type, received[1]["c"].ext_type] == [EXT_STREAM, EXT_CHANNEL]
        assert [received[0].fd, received[1]["c"].fd] == fds


def test_exports_of_a_message_that_is_not_sent_hear_of_it_once() -> None:
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
                Codec(limits, life).encode((1, value))
            assert [export.told for export in life.exports] == [["unsent"]] * len(life.exports)
            assert life.exports


@pytest.mark.parametrize("error", [Overloaded("too many"), LocalProtocolError("not this one")])
def test_what_hinders_an_export_is_told_as_it_is(error: Exception) -> None:
    with owned(1) as (fd,), pytest.raises(type(error)) as caught:
        Codec(living=Life(fails=error)).encode((1, Made(EXT_STREAM, fd)))
    assert caught.value is error


def test_another_failure_of_an_export_is_told_without_a_place() -> None:
    with owned(1) as (fd,):
        codec = Codec(living=Life(fails=OSError(24, "Too many open files")))
        assert "Too many open files" in refusal([Made(EXT_STREAM, fd)], codec)
        assert refusal([Made(EXT_STREAM, fd), object()], Codec(living=Life())).startswith("cannot send result[1]: ")


def test_what_cannot_be_made_of_what_came_in_is_a_problem() -> None:
    fds = duplicates([Lender()])
    value, problem = Codec(living=Life(fails=ValueError("no socket"))).decode(b"\xd4\x02\x00", fds)
    assert (value, problem) == (None, "no socket")
    assert isinstance(fds[0], ValueFd)


def test_living_values_in_and_beside_keys_that_are_arrays_arrive() -> None:
    """Such a message is read twice."""
    with owned(1) as (fd,), Buffer.copy_of(b"content") as buffer:
        value = {(1, 2): [Handle(EXT_STREAM, fd), buffer], "more": {(): buffer}}
        received, problem, fds = travel(value)
    assert problem is None
    handle, first = received[(1, 2)]
    second = received["more"][()]
    assert (first[:], second[:]) == (b"content", b"content")
    assert [handle.fd, first._memfd, second._memfd] == fds
    assert not any(fd.closed for fd in fds)


def test_what_refers_to_a_closed_descriptor_closes_nothing_twice() -> None:
    received, _problem, fds = travel([Buffer.copy_of(b"content")])
    received[0].close()
    assert fds[0].closed
    close_all(fds)


@pytest.mark.parametrize("in_pieces", [False, True])
def test_exports_of_a_message_that_was_given_away_are_given_up_if_it_is_not_sent(in_pieces: bool) -> None:
    with owned(2) as (fd, lent):
        life = Life()
        codec = Codec(living=life)
        long = (bytes(MAX_PACKET + 1),) if in_pieces else ()
        with pytest.raises(LocalProtocolError):
            codec.encode((1, [Made(EXT_STREAM, fd), lent, object(), Made(EXT_STREAM, fd)]), values=long, given=True)
        assert [export.told for export in life.exports] == [["given up"]], "the second was not reached"
        assert lent.closed
        assert not fd.closed


def test_what_was_given_away_is_given_up_in_what_it_is_in() -> None:
    with owned(2) as (fd, alone):
        life = Life()
        made = Made(EXT_STREAM, fd)
        Codec(living=life).give_up({"a": [made, alone]})
        assert life.given_up == [made]
        assert alone.closed
