from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Self

import pytest
from support.descriptors import is_open, same_file
from support.processes import in_child
from support.sync import Notes, Raw, Thread, raw_peer
from support.waiting import PATIENCE

import seqrpc
from seqrpc.blocking import producers
from seqrpc.blocking.producers import Producer, StreamDeparture
from seqrpc.calls.departures import Source
from seqrpc.interface.scope import scope
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.limits import Limits
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import EXT_STREAM

LIMITS = Limits(max_message_bytes=200_000)


class Wrong(seqrpc.RpcError, code="blocking.producers.Wrong"):
    """An error of an application's own."""


class Produced:
    """A producer, and the raw socket at its other end."""

    def __init__(self, items: Any, fds: list[OwnedFd] | None = None) -> None:
        self.events = Notes()
        departure = StreamDeparture(
            Source(items, "m", fds),
            Encoder(LIMITS),
            rested=lambda: self.events.note("rested"),
            started=lambda _producer: self.events.note("started"),
            ended=lambda _producer: self.events.note("ended"),
            dropped=lambda: self.events.note("dropped"),
        )
        assert departure.ext_type == EXT_STREAM
        self.raw = Raw(socket.socket(fileno=os.dup(departure.fileno())))
        departure.sent()
        self.producer: Producer = departure.producer
        assert self.events.what == ["started"]

    @property
    def is_over(self) -> bool:
        return self.producer.interest() == (-1, 0)

    def to_the_end(self) -> list[Any]:
        """Work, and return all messages."""
        messages = []
        while not self.is_over:
            self.producer.work()
            self.raw.sock.setblocking(False)
            try:
                while (message := self.raw.receive()) is not None:
                    messages.append(message)
            except BlockingIOError:
                continue
        return messages

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.raw.close()
        self.producer.end("the test is over")
        assert self.is_over
        assert self.events.what.count("ended") == 1


def items_of(messages: list[Any]) -> list[Any]:
    *packets, last = messages
    assert last == [1, None]
    assert all(packet[0] == 0 for packet in packets)
    return [item for packet in packets for item in packet[1:]]


def counting(to: int, notes: Notes) -> Iterator[Any]:
    try:
        yield from range(to)
    finally:
        notes.note("finally")


# Producing


def test_items_and_the_end_are_sent_and_the_source_is_closed() -> None:
    notes = Notes()
    with Produced(counting(1000, notes)) as produced:
        assert items_of(produced.to_the_end()) == [*range(1000)]
        assert notes.what == ["finally"]
        produced.producer.work()  # does nothing any more
        produced.producer.end("again")


def test_what_comes_in_no_time_shares_packets() -> None:
    with Produced(iter(range(1000))) as produced:
        assert len(produced.to_the_end()) < 100


def test_an_iterator_without_close_and_one_that_is_false_are_streamed() -> None:
    class Falsy:
        """An iterator with a length, which is none."""

        def __init__(self) -> None:
            self.left = [1, 2]
            self.is_closed = False

        def __len__(self) -> int:
            return 0

        def __iter__(self) -> Falsy:
            return self

        def __next__(self) -> int:
            if not self.left:
                raise StopIteration
            return self.left.pop(0)

        def close(self) -> None:
            self.is_closed = True

    with Produced(iter([])) as produced:
        assert items_of(produced.to_the_end()) == []
    falsy = Falsy()
    with Produced(falsy) as produced:
        assert items_of(produced.to_the_end()) == [1, 2]
    assert falsy.is_closed


def test_items_larger_than_a_packet_are_spilled() -> None:
    large = [b"x" * 100_000, b"y" * 70_000]
    with Produced(iter(large)) as produced:
        assert items_of(produced.to_the_end()) == large


def test_descriptors_in_items_are_given_away(pipe: tuple[int, int]) -> None:
    given = OwnedFd(os.dup(pipe[0]))
    number = given.fileno()
    with Produced(iter([{"fd": given}])) as produced:
        produced.producer.work()
        message, fds = produced.raw.receive_with()
        assert message[0] == 0
        assert not is_open(number) or given.closed
        assert same_file(fds[0], pipe[0])
        close_all(fds)


def test_a_producer_waits_for_room_and_goes_on() -> None:
    notes = Notes()
    with Produced(counting(10**6, notes)) as produced:
        while produced.producer.interest()[1] == 0:
            produced.producer.work()
        number, events = produced.producer.interest()
        assert number >= 0
        assert events & 4
        produced.producer.work()  # there is no room: nothing happens
        assert produced.producer.interest()[1] == events
        assert items_of(produced.to_the_end()) == [*range(10**6)]


def test_an_error_of_the_source_reaches_the_reader_after_the_items() -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise Wrong("no", data=[2])

    with Produced(fails()) as produced:
        assert produced.to_the_end() == [[0, 1], [1, ["blocking.producers.Wrong", "no", [2]]]]


def test_what_is_no_iterable_is_an_error_of_the_producer() -> None:
    class NoIterator:
        def __iter__(self) -> Any:
            raise ValueError("none")

    with Produced(NoIterator()) as produced:
        ((kind, error),) = produced.to_the_end()
        assert (kind, error[0]) == (1, "rpc.Internal")


def test_an_item_that_cannot_be_sent_ends_the_stream_and_the_source() -> None:
    notes = Notes()

    def items() -> Iterator[Any]:
        try:
            yield 1
            yield object()
            notes.note("went on")
        finally:
            notes.note("finally")

    with Produced(items()) as produced:
        first, (kind, error) = produced.to_the_end()
        assert first == [0, 1]
        assert (kind, error[0]) == (1, "rpc.Internal")
        assert notes.what == ["finally"]


def test_a_number_that_cannot_be_sent_ends_the_stream_after_those_before_it() -> None:
    with Produced(iter([1, 2, 2**70, 3])) as produced:
        *packets, (kind, error) = produced.to_the_end()
        assert [item for packet in packets for item in packet[1:]] == [1, 2]
        assert (kind, error[0]) == (1, "rpc.Internal")


def test_an_item_that_is_too_large_is_said_to_be() -> None:
    with Produced(iter([1, b"x" * 300_000])) as produced:
        first, (kind, error) = produced.to_the_end()
        assert first == [0, 1]
        assert (kind, error[0]) == (1, "rpc.TooLarge")


def test_an_item_for_which_no_memory_file_can_be_made_is_said_to_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    with Produced(iter([b"x" * 100_000])) as produced:
        ((kind, error),) = produced.to_the_end()
        assert (kind, error[0]) == (1, "rpc.Overloaded")


def test_an_error_that_cannot_be_sent_leaves_its_reader_with_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise Wrong("no", data=b"x" * 100_000)

    def fail(*_args: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    with Produced(fails()) as produced:
        assert produced.to_the_end() == [[0, 1]]


# The reader


def test_a_reader_that_goes_stops_the_source() -> None:
    notes = Notes()
    with Produced(counting(10**9, notes)) as produced:
        produced.producer.work()
        produced.raw.close()
        produced.producer.work()
        assert produced.is_over
        assert notes.what == ["finally"]


def test_a_reader_that_goes_while_the_source_runs_stops_it_at_its_next_packet() -> None:
    notes = Notes()

    def items() -> Iterator[bytes]:
        try:
            yield b"x" * 50_000
            produced.raw.close()
            yield b"x" * 50_000
            yield b"x" * 50_000
        finally:
            notes.note("finally")

    with Produced(items()) as produced:
        while not produced.is_over:
            produced.producer.work()
        assert notes.what == ["finally"]


def test_a_reader_that_writes_is_gone() -> None:
    notes = Notes()
    with Produced(counting(10**9, notes)) as produced:
        produced.raw.send_bytes(b"what a reader never does")
        produced.producer.work()
        assert produced.is_over
        with pytest.raises(ConnectionResetError):  # what it wrote is not read
            produced.raw.receive()


def test_room_is_waited_for_by_whoever_works() -> None:
    with Produced(counting(3, Notes())) as produced:
        produced.producer.writable()
        assert produced.producer.retry_at is None
        assert repr(produced.producer) == "<Producer of m>"
        assert items_of(produced.to_the_end()) == [0, 1, 2]


# Ending


def test_one_that_is_ended_tells_its_reader_and_closes_the_source() -> None:
    notes = Notes()
    with Produced(counting(10, notes)) as produced:
        produced.producer.end("enough")
        assert produced.raw.receive() == [1, ["rpc.Unavailable", "enough", None]]
        assert produced.is_over
        assert notes.what == []  # it never began

    with Produced(itertools.chain(counting(10, notes), itertools.repeat(0))) as produced:
        produced.producer.work()
        produced.producer.abandon()
        assert produced.raw.rest()[-1] == [1, ["rpc.Unavailable", "the connection of its service ended", None]]


def test_one_that_is_ended_while_its_reader_does_not_read_does_not_wait() -> None:
    notes = Notes()
    with Produced(counting(10**9, notes)) as produced:
        while produced.producer.interest()[1] == 0:
            produced.producer.work()
        produced.producer.end("enough")
        assert produced.is_over
        assert notes.what == ["finally"]


def test_descriptors_that_were_lent_to_the_source_are_closed_after_it(pipe: tuple[int, int]) -> None:
    lent = OwnedFd(os.dup(pipe[0]))

    def items() -> Iterator[bool]:
        try:
            yield not lent.closed
        finally:
            assert not lent.closed

    with Produced(items(), [lent]) as produced:
        assert items_of(produced.to_the_end()) == [True]
    assert lent.closed

    lent = OwnedFd(os.dup(pipe[0]))
    with Produced(items(), [lent]) as produced:
        produced.producer.end("enough")
        assert lent.closed


def test_a_source_that_fails_at_its_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise ValueError("at the end")

    with Produced(items()) as produced:
        produced.producer.work()
        produced.producer.end("enough")
        assert produced.is_over
    assert "closing 'm' failed, which was streamed" in caplog.text


def test_a_source_that_is_interrupted_ends_the_stream_and_raises_on(pipe: tuple[int, int]) -> None:
    lent = OwnedFd(os.dup(pipe[0]))

    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with Produced(items(), [lent]) as produced:
        with pytest.raises(KeyboardInterrupt):
            produced.producer.work()
        assert produced.is_over
        assert lent.closed
        assert produced.raw.rest() == [[0, 1], [1, ["rpc.Unavailable", "the producer was interrupted", None]]]


def test_an_interruption_at_the_end_of_a_source_leaves_nothing_open(pipe: tuple[int, int]) -> None:
    lent = OwnedFd(os.dup(pipe[0]))

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise KeyboardInterrupt

    with Produced(items(), [lent]) as produced:
        produced.producer.work()
        with pytest.raises(KeyboardInterrupt):
            produced.producer.end("enough")
        assert produced.is_over
        assert lent.closed


# Threads, and sources that come back here


def test_one_thread_works_at_a_time() -> None:
    notes = Notes()
    go_on = threading.Event()

    def items() -> Iterator[int]:
        notes.note("runs")
        assert go_on.wait(30)
        yield 1

    with Produced(items()) as produced:
        working = Thread(produced.producer.work)
        notes.wait()
        assert produced.producer.interest() == (-1, 0)
        produced.producer.work()  # the other one does
        assert notes.what == ["runs"]
        go_on.set()
        working.result()
        while "ended" not in produced.events.what:  # the source waited for longer than a turn lasts
            assert produced.events.what[-1] == "rested"
            produced.producer.work()
        assert items_of(produced.raw.rest()) == [1]


def test_others_hear_when_they_may_work_again() -> None:
    with Produced(counting(10**9, Notes())) as produced:
        produced.producer.work()
        assert produced.events.what == ["started", "rested"]


@pytest.mark.parametrize("from_another_thread", [False, True])
def test_one_that_is_ended_while_its_source_runs_ends_after_that(
    from_another_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()

    def items() -> Iterator[int]:
        try:
            if from_another_thread:
                Thread(lambda: produced.producer.end("enough")).result()
            else:
                produced.producer.end("enough")
            yield 1
            notes.note("went on")
        finally:
            notes.note("finally")

    with Produced(items()) as produced:
        produced.producer.work()
        assert produced.is_over
        assert notes.what == ["finally"]
        assert produced.raw.rest() == [[1, ["rpc.Unavailable", "enough", None]]]
    assert caplog.text == ""


def test_a_source_runs_in_the_context_that_it_was_sent_from() -> None:
    here: ContextVar[str] = ContextVar("here", default="nowhere")

    def items() -> Iterator[Any]:
        yield here.get()
        here.set("inside")
        yield scope.get().deadline_ns is not None

    token = here.set("at the caller")
    with seqrpc.timeout(1000):
        produced = Produced(items())
    here.reset(token)
    with produced:
        assert items_of(produced.to_the_end()) == ["at the caller", True]
    assert here.get() == "nowhere"


# In a forked child


def test_a_forked_child_produces_nothing_and_tells_nobody() -> None:
    notes = Notes()
    with Produced(counting(10, notes)) as produced:

        def act() -> Any:
            produced.producer.work()
            produced.producer.end("of the child")
            return produced.producer.interest(), notes.what

        assert in_child(act) == ((-1, 0), [])
        assert items_of(produced.to_the_end()) == [*range(10)]


def test_what_waits_in_a_forked_child_is_the_parents_to_send(pipe: tuple[int, int]) -> None:
    def items() -> Iterator[Any]:
        for _ in range(10_000):
            yield OwnedFd(os.dup(pipe[0]))

    with Produced(items()) as produced:
        while produced.producer.interest()[1] == 0:
            produced.producer.work()
        assert in_child(produced.producer.interest) == (-1, 0)


# Departures


def test_one_that_is_not_sent_leaves_the_source_as_it_was() -> None:
    events = Notes()

    def departure(items: Any) -> StreamDeparture:
        return StreamDeparture(
            Source(items, "m"),
            Encoder(LIMITS),
            rested=lambda: None,
            started=events.note,
            ended=events.note,
            dropped=lambda: events.note("dropped"),
        )

    items = iter([1, 2])
    unsent = departure(items)
    number = unsent.fileno()
    unsent.unsent()
    assert events.what == ["dropped"]
    assert not is_open(number)
    assert next(items) == 1
    departure(items).given_up()
    assert events.what == ["dropped", "dropped"]


def test_an_end_that_had_to_wait_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = 0
    put = Producer._put

    def counting(self: Producer, packet: Any) -> None:
        nonlocal ends
        ends += not packet.data or packet.data == b"\x91\x01" or packet is producers._TOLD
        put(self, packet)

    monkeypatch.setattr(Producer, "_put", counting)
    with raw_peer() as (connection, raw):

        def read() -> None:
            message, fds = raw.receive_with()
            with socket.socket(fileno=fds[0].detach()) as sock:
                sock.settimeout(PATIENCE)
                while sock.recv(65_536):
                    pass
            raw.send(1, message[1], None, None)

        thread = Thread(read)
        connection.call("A.b", (b"x" * 9_000 for _ in range(300)))
        thread.result()
    assert ends <= 1
