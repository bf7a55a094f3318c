from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from support.descriptors import is_open, same_file
from support.lines import comes_true
from support.processes import in_child
from support.scarcity import no_room
from support.sync import Notes, Raw, Thread, far
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking
from seqrpc.blocking import readers, waiting
from seqrpc.blocking.family import Family
from seqrpc.blocking.readers import StreamReader
from seqrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    DescriptorsLost,
    LocalProtocolError,
    RemoteProtocolError,
    WrongProcess,
)
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import ValueFd
from seqrpc.limits import Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader

LIMITS = Limits(max_message_bytes=200_000)


def item_reader() -> ItemReader:
    return ItemReader(Decoder(LIMITS), LIMITS.max_message_bytes)


@contextmanager
def reading(family: Family | None = None) -> Iterator[tuple[StreamReader, Raw]]:
    """Yield a reader, and the raw socket of its producer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader = StreamReader(family, ValueFd(ours.detach()), item_reader())
    with theirs:
        yield reader, Raw(theirs)
    reader.drop()


def rest_of(reader: StreamReader) -> list[Any]:
    items = []
    while True:
        try:
            items.append(reader.next())
        except StopIteration:
            return items


class Often:
    """Something that goes on, and can always."""

    def __init__(self, sock: socket.socket, works: Any = lambda: None) -> None:
        self.sock = sock
        self.count = 0
        self.works = works

    def interest(self) -> tuple[int, int]:
        return self.sock.fileno(), 0

    def work(self) -> None:
        self.count += 1
        self.works()

    def end(self, reason: str) -> None: ...

    def abandon(self) -> None: ...


# Reading


def test_items_are_read_to_the_end() -> None:
    with reading() as (reader, raw):
        raw.send(0, 1, 2)
        raw.send(0, "three")
        raw.send(1, None)
        assert rest_of(reader) == [1, 2, "three"]
        assert reader.is_over
        assert reader.is_closed
        assert rest_of(reader) == []
        assert raw.receive() is None


def test_packets_of_unknown_kinds_are_ignored() -> None:
    with reading() as (reader, raw):
        raw.send(9, "of later versions")
        raw.send(0, 1)
        assert reader.next() == 1


def test_what_is_there_is_taken_without_waiting() -> None:
    with reading() as (reader, raw):
        assert reader.take_ready() == []
        raw.send(0, 1, 2)
        raw.send(0, 3)
        assert reader.take_ready() == [1, 2, 3]
        raw.send(0, 4)
        raw.send(1, ["rpc.Internal", "no", None])
        assert reader.take_ready() == [4]
        with pytest.raises(seqrpc.Internal):
            reader.take_ready()
        assert reader.take_ready() == []
        assert reader.is_over


def test_many_items_of_one_message_are_looked_at_a_few_at_a_time() -> None:
    many = [*range(3000)]
    with reading() as (reader, raw):
        raw.send(0, *many)
        assert [reader.next() for _ in many] == many
        raw.send(0, *many)
        assert reader.take_ready() == many


def test_descriptors_of_items_are_the_readers(pipe: tuple[int, int]) -> None:
    with reading() as (reader, raw):
        raw.send(0, msgpack.ExtType(1, b"\0"), fds=[pipe[0]])
        with reader.next() as fd:
            assert same_file(fd, pipe[0])
        raw.send(0, msgpack.ExtType(1, b"\0"), fds=[pipe[0]])
        (fd,) = reader.take_ready()
        fd.close()
        raw.send(0, msgpack.ExtType(1, b"\0"), fds=[pipe[0]])  # nobody takes this one


# Ends


def test_the_error_of_the_producer_is_raised_after_the_items() -> None:
    with reading() as (reader, raw):
        raw.send(0, 1)
        raw.send(1, ["rpc.Internal", "no", None])
        assert reader.next() == 1
        with pytest.raises(seqrpc.Internal, match="no"):
            reader.next()
        assert rest_of(reader) == []


def test_a_producer_that_dies_is_unavailable() -> None:
    with reading() as (reader, raw):
        raw.close()
        with pytest.raises(seqrpc.Unavailable, match="the producer of the stream died"):
            reader.next()
        assert reader.is_closed


def test_a_producer_that_resets_is_unavailable() -> None:
    with reading() as (reader, raw):
        assert reader.fileno() >= 0
        assert reader._sock is not None
        reader._sock.send(b"what no reader sends")
        raw.close()
        with pytest.raises(seqrpc.Unavailable):
            rest_of(reader)


def test_malformed_packets_end_the_stream() -> None:
    with reading() as (reader, raw):
        raw.send_bytes(b"\xc1")
        with pytest.raises(RemoteProtocolError):
            reader.next()
        assert reader.is_over
    with reading() as (reader, raw):
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
        raw.send_bytes(b"x" * 70_000)
        with pytest.raises(RemoteProtocolError, match="a packet has at most 65536 bytes"):
            reader.next()


def test_an_item_whose_descriptors_are_lost_costs_only_its_packet(pipe: tuple[int, int]) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with reading() as (reader, raw):
        raw.send(0, msgpack.ExtType(1, b"\0"), fds=[pipe[0]])
        raw.send(0, 2)
        reader.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(DescriptorsLost):
                reader.next()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert reader.next() == 2


def test_a_producer_that_says_that_descriptors_were_lost_has_ended() -> None:
    with reading() as (reader, raw):
        raw.send(1, ["rpc.DescriptorsLost", "on the way here", None])
        with pytest.raises(DescriptorsLost, match="on the way here"):
            reader.next()
        with pytest.raises(StopIteration):
            reader.next()


# Waiting


def test_a_deadline_bounds_the_wait_and_loses_nothing() -> None:
    with reading() as (reader, raw):
        with pytest.raises(DeadlineExceeded, match="time"), seqrpc.timeout(0.01):
            reader.next()
        raw.send(0, 1)
        with seqrpc.timeout(0):
            assert reader.next() == 1


def test_what_goes_on_meanwhile_does_not_outlast_the_deadline() -> None:
    family = Family()
    ours, theirs = socket.socketpair()
    with ours, theirs, reading(family) as (reader, _raw):
        family.add(Often(ours))
        with pytest.raises(DeadlineExceeded), seqrpc.timeout(0.02):
            reader.next()


def test_what_goes_on_without_an_end_does_not_hide_items() -> None:
    family = Family()
    ours, theirs = socket.socketpair()
    with ours, theirs, reading(family) as (reader, raw):
        often = Often(ours)
        family.add(often)
        raw.send(0, 1)
        assert reader.next() == 1
        raw.send(1, None)
        assert rest_of(reader) == []
        assert often.count > 0


def test_what_goes_on_may_bring_what_is_waited_for() -> None:
    family = Family()
    ours, theirs = socket.socketpair()
    with ours, theirs, reading(family) as (reader, raw):
        often = Often(ours, lambda: raw.send(0, 7))
        family.add(often)
        family.errands.append(lambda: None)
        assert reader.next() == 7
        assert not family.errands


def test_something_that_is_added_by_another_thread_goes_on_in_one_that_waits() -> None:
    family = Family()
    ours, theirs = socket.socketpair()
    with ours, theirs, reading(family) as (reader, raw):
        waiting = Thread(reader.next)
        while not family._bells:
            pass

        def bring() -> None:
            family.discard(often)
            raw.send(0, 7)

        often = Often(ours, bring)
        family.add(often)
        assert waiting.result() == 7


def test_a_thread_that_is_alone_waits_in_the_kernel() -> None:
    with reading() as (reader, raw):
        timer = os.fork()
        if timer == 0:
            raw.send(0, 1)
            os._exit(0)
        assert reader.next() == 1
        os.waitpid(timer, 0)


def test_a_second_reader_is_refused() -> None:
    notes = Notes()
    with reading() as (reader, raw):

        def read() -> Any:
            notes.note("reads")
            return reader.next()

        waiting = Thread(read)
        while reader._busy is None:
            pass
        with pytest.raises(RuntimeError, match="another thread is reading this stream"):
            reader.next()
        with pytest.raises(RuntimeError, match="another thread is reading this stream"):
            reader.take_ready()
        with pytest.raises(LocalProtocolError, match="a stream that a thread is reading cannot be passed on"):
            reader.detach()
        raw.send(0, 1)
        assert waiting.result() == 1


def test_nobody_reads_opens_or_passes_on_what_is_being_opened() -> None:
    called, answered = threading.Event(), threading.Event()
    with reading() as (opened, raw):

        def opening() -> StreamReader:
            called.set()
            assert answered.wait(PATIENCE)
            return opened

        reader = StreamReader(opening=opening)
        first = Thread(reader.open)
        assert called.wait(PATIENCE)
        for use in (reader.open, reader.next, reader.take_ready, reader.fileno):
            with pytest.raises(RuntimeError, match="another thread is opening this stream already"):
                use()
        with pytest.raises(LocalProtocolError, match="a stream that a thread is opening cannot be passed on"):
            reader.detach()
        assert reader.is_unopened
        answered.set()
        first.result()
        reader.open()
        assert not reader.is_unopened
        raw.send(0, 1)
        assert reader.next() == 1
        reader.drop()


def test_what_is_closed_while_it_is_being_opened_is_over() -> None:
    called, closed = threading.Event(), threading.Event()
    with reading() as (opened, raw):

        def opening() -> StreamReader:
            called.set()
            assert closed.wait(PATIENCE)
            return opened

        reader = StreamReader(opening=opening)
        first = Thread(reader.open)
        assert called.wait(PATIENCE)
        reader.close()
        closed.set()
        first.result()
        assert reader.is_over
        assert raw.sock.recv(1) == b"", "the producer is told"


def test_reading_within_reading_is_refused() -> None:
    family = Family()
    ours, theirs = socket.socketpair()
    seen: list[str] = []
    with ours, theirs, reading(family) as (reader, raw):

        def read() -> None:
            family.discard(often)
            with pytest.raises(RuntimeError, match="this thread is reading this stream"):
                reader.next()
            seen.append("refused")
            raw.send(0, 1)

        often = Often(ours, read)
        family.add(often)
        assert reader.next() == 1
        assert seen == ["refused"]


# Closing


def test_closing_tells_the_producer_and_closes_what_nobody_took(pipe: tuple[int, int]) -> None:
    with reading() as (reader, raw):
        raw.send(0, 1, 2)
        assert reader.next() == 1
        reader.drop()
        assert rest_of(reader) == []
        assert raw.receive() is None
        reader.drop()
        with pytest.raises(ValueError, match="the stream is closed"):
            reader.fileno()


def test_closing_it_wakes_a_reader_that_may_not_read_yet(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_INTERVAL", 0.01)
    with reading() as (reader, raw), no_room(None):
        CLOSER.careful = True
        raw.send(0, msgpack.ExtType(1, b"\0"), fds=[pipe[0]])

        def read() -> list[Any]:
            with seqrpc.timeout(10**6):
                return rest_of(reader)

        thread = Thread(read)
        comes_true(lambda: reader._made in CLOSER._hopeful)
        reader.close()
        assert thread.result() == []


@pytest.mark.parametrize("was_used", [False, True])
def test_closing_it_in_another_thread_wakes_the_reader(was_used: bool) -> None:
    with reading() as (reader, raw):
        if was_used:
            raw.send(0, 1)
            assert reader.next() == 1
        began = threading.Event()

        def read() -> list[Any]:
            began.set()
            return rest_of(reader)

        waiting = Thread(read)
        assert began.wait(30)
        while not reader._family._bells:
            pass
        reader.close()
        assert waiting.result() == []
        assert raw.receive() is None


def test_closing_it_in_what_goes_on_meanwhile_ends_the_reading() -> None:
    family = Family()
    ours, theirs = socket.socketpair()
    with ours, theirs, reading(family) as (reader, raw):
        family.add(Often(ours, reader.close))
        assert rest_of(reader) == []
        assert raw.receive() is None


def test_a_reader_whose_producer_is_gone_can_be_closed_by_another_thread() -> None:
    with reading() as (reader, _raw):
        assert reader.fileno() >= 0
        turn = object()
        reader._busy = 1, turn  # as if a thread read
        assert reader._sock is not None
        reader._sock.shutdown(socket.SHUT_RDWR)
        reader.close()
        assert is_open(reader._sock.fileno())
        reader._rest(turn)
        assert reader._sock is None


# Opening


def opened_by(reader: StreamReader) -> StreamReader:
    return StreamReader(opening=lambda: reader)


def test_the_call_is_made_when_the_first_item_is_asked_for() -> None:
    with reading() as (made, raw):
        reader = opened_by(made)
        assert reader.is_unopened
        raw.send(0, 1)
        raw.send(1, None)
        assert reader.next() == 1
        assert not reader.is_unopened
        assert rest_of(reader) == []
        reader.open()  # does nothing


def test_the_call_is_made_when_ready_items_are_asked_for() -> None:
    with reading() as (made, raw):
        reader = opened_by(made)
        raw.send(0, 1)
        assert reader.take_ready() == [1]
        reader.drop()


def test_a_call_that_fails_ends_the_stream() -> None:
    def fail() -> StreamReader:
        raise ValueError("no")

    reader = StreamReader(opening=fail)
    with pytest.raises(ValueError, match="no"):
        reader.next()
    assert rest_of(reader) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), WrongProcess("elsewhere")])
def test_a_call_that_was_not_made_can_be_made_again(error: BaseException) -> None:
    with reading() as (made, raw):
        failures = [error]

        def opening() -> StreamReader:
            if failures:
                raise failures.pop()
            return made

        reader = StreamReader(opening=opening)
        with pytest.raises(type(error)):
            reader.next()
        raw.send(0, 1)
        assert reader.next() == 1
        reader.drop()


def test_what_is_opened_while_it_is_closed_is_closed() -> None:
    with reading() as (made, raw):

        def opening() -> StreamReader:
            reader.close()
            return made

        reader = StreamReader(opening=opening)
        assert rest_of(reader) == []
        assert raw.receive() is None

    def interrupted() -> StreamReader:
        reader.close()
        raise KeyboardInterrupt

    reader = StreamReader(opening=interrupted)
    with pytest.raises(KeyboardInterrupt):
        reader.next()
    assert not reader.is_unopened


# Passing on


@pytest.mark.parametrize("was_used", [False, True])
def test_it_can_be_passed_on_and_taken_back(was_used: bool) -> None:
    with reading() as (reader, raw):
        if was_used:
            raw.send(0, 1)
            assert reader.next() == 1
        fd = reader.detach()
        assert fd is not None
        with pytest.raises(ConnectionLost, match="passed on"):
            reader.next()
        with pytest.raises(LocalProtocolError, match="was passed on already"):
            reader.detach()
        reader.attach(fd)
        raw.send(0, 2)
        assert reader.next() == 2


def test_whoever_gets_it_may_wait_for_as_long_as_they_like() -> None:
    with reading() as (reader, raw):
        raw.send(0, 1)
        assert reader.next() == 1
        fd = reader.detach()
        assert fd is not None
        with socket.socket(fileno=os.dup(fd.fileno())) as passed_on:
            assert passed_on.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)
        fd.close()


def test_one_with_items_that_nobody_took_has_to_be_relayed() -> None:
    with reading() as (reader, raw):
        raw.send(0, 1, 2)
        assert reader.next() == 1
        assert reader.detach() is None
    assert StreamReader(opening=StreamReader).detach() is None


def test_one_that_is_over_cannot_be_passed_on() -> None:
    with reading() as (reader, raw):
        raw.send(1, None)
        assert rest_of(reader) == []
        with pytest.raises(LocalProtocolError, match="read to its end"):
            reader.detach()


# Forks


def test_a_forked_child_reads_nothing_of_it() -> None:
    with reading() as (reader, raw), reading() as (unused, _other):
        raw.send(0, 1, 2)
        assert reader.next() == 1

        def act() -> list[str]:
            seen = []
            for action in (reader.next, reader.take_ready, reader.fileno, reader.detach, unused.next, unused.open):
                try:
                    action()
                except WrongProcess:
                    seen.append("wrong process")
            reader.drop()
            return seen

        assert in_child(act) == ["wrong process"] * 6
        assert reader.next() == 2
        raw.send(0, 3)
        assert reader.next() == 3


# Over a connection


def test_objects_are_served_while_an_item_is_waited_for() -> None:
    class Source(seqrpc.Service):
        @seqrpc.method
        def numbers(self, callback: object) -> Any:
            assert isinstance(callback, blocking.Channel)
            return (callback.call("Callback.hit", number) for number in range(3))

    class Callback(seqrpc.Service):
        @seqrpc.method
        def hit(self, number: int) -> int:
            return number * 10

    with far(Source()) as (connection, _other):
        stream = connection.call("Source.numbers", Callback())
        assert list(stream) == [0, 10, 20]


def test_reading_ends_with_what_began_it() -> None:
    """A signal handler may raise between the two, and the end is then repeated."""
    with reading() as (reader, _raw):
        first, other = object(), object()
        reader._begin(first)
        reader._rest(other)
        with pytest.raises(RuntimeError, match="this thread is reading this stream already"):
            reader.next()
        reader._rest(first)
        reader._rest(first)
        reader._begin(other)
        reader._rest(other)


def test_an_interrupt_does_not_make_a_failed_stream_look_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with reading() as (reader, _raw):
        reader.items.failure = seqrpc.RpcError("it failed", code="disk.Full")

        def interrupted(_self: StreamReader) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(StreamReader, "_end", interrupted)
            with pytest.raises(KeyboardInterrupt):
                reader.next()
        with pytest.raises(seqrpc.RpcError, match="it failed"):
            reader.next()
        with pytest.raises(StopIteration):
            reader.next()


def test_what_is_ready_is_taken_in_a_bounded_number_of_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_MOST_AT_ONCE", 3)
    with reading() as (reader, raw):
        for number in range(4):
            raw.send(0, number)
        assert reader.take_ready() == [0, 1, 2]
        assert reader.take_ready() == [3]


def test_without_descriptors_for_a_bell_it_looks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_bell() -> None:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(readers, "Bell", no_bell)
    monkeypatch.setattr(readers, "LOOK_INTERVAL", 0)
    may_go = threading.Event()
    thread = Thread(lambda: may_go.wait(PATIENCE))  # else there is nobody to be woken by
    with reading() as (reader, raw):
        raw.send(0, 1)
        assert reader.next() == 1
    may_go.set()
    thread.result()
