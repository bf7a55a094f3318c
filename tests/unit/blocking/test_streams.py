from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.processes import in_child
from support.sync import Notes, Raw

from seqrpc.blocking.streams import Stream, reader_of
from seqrpc.errors import WrongProcess
from seqrpc.interface.streams import checked
from seqrpc.kernel.descriptors import ValueFd
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader


def new_stream() -> tuple[Stream[Any], Raw]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Stream(None, ValueFd(ours.detach()), ItemReader(Decoder(), 100_000)), Raw(theirs)


@contextmanager
def streaming() -> Iterator[tuple[Stream[Any], Raw]]:
    """Yield a stream, and the raw socket of its producer."""
    stream, raw = new_stream()
    yield stream, raw
    stream.close()
    raw.close()


def test_items_are_iterated_over_to_the_end() -> None:
    with streaming() as (stream, raw):
        assert repr(stream) == "<Stream open>"
        raw.send(0, 1, 2, 3)
        raw.send(1, None)
        assert next(stream) == 1
        assert not stream.closed
        assert [*stream] == [2, 3]
        assert stream.closed
        assert repr(stream) == "<Stream closed>"
        assert [*stream] == []


def test_the_block_closes_it() -> None:
    with streaming() as (stream, raw):
        raw.send(0, 1, 2, 3)
        with stream as same:
            assert same is stream
            assert next(stream) == 1
        assert [*stream] == []
        assert raw.receive() is None


def test_one_that_is_dropped_stops_its_producer() -> None:
    stream, raw = new_stream()
    for_loop = iter(stream)
    raw.send(0, 1)
    assert next(for_loop) == 1
    del stream, for_loop
    gc.collect()
    assert raw.receive() is None
    raw.close()


def test_one_that_was_never_made_is_dropped_in_silence() -> None:
    Stream.__new__(Stream).__del__()


def test_gui_loops_take_what_is_there() -> None:
    with streaming() as (stream, raw):
        number = stream.fileno()
        assert stream.take_ready() == []
        raw.send(0, 1, 2)
        assert stream.fileno() == number
        assert stream.take_ready() == [1, 2]


def test_items_are_converted_by_a_check() -> None:
    with streaming() as (stream, raw):
        assert checked(stream, lambda items: [str(item) for item in items]) is stream
        raw.send(0, 1, 2)
        raw.send(1, None)
        assert [*stream] == ["1", "2"]


def test_one_that_begins_with_a_call_makes_it_once() -> None:
    notes = Notes()
    made, raw = new_stream()

    def opening() -> Stream[Any]:
        notes.note("called")
        return made

    stream: Stream[Any] = Stream(opening=opening)
    assert repr(stream) == "<Stream unopened>"
    assert not stream.closed
    assert stream.open() is stream
    assert stream.open() is stream
    assert notes.what == ["called"]
    assert not reader_of(stream).is_unopened
    raw.send(0, 1)
    assert next(stream) == 1
    stream.close()
    raw.close()


def test_one_that_was_never_opened_makes_no_call() -> None:
    notes = Notes()

    def opening() -> Stream[Any]:
        notes.note("called")
        return Stream()

    unopened: Stream[Any] = Stream(opening=opening)
    with unopened as stream:
        assert not stream.closed
    assert stream.closed
    assert [*stream] == []
    assert notes.what == []


def test_in_a_forked_child_it_is_the_parents() -> None:
    with streaming() as (stream, raw):
        raw.send(0, 1, 2)
        assert next(stream) == 1

        def act() -> Any:
            with pytest.raises(WrongProcess):
                next(stream)
            stream.close()
            return stream.closed

        assert in_child(act)
        assert next(stream) == 2
        raw.send(1, None)
        assert [*stream] == []
