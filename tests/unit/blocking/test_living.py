from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.descriptors import is_open
from support.sync import Notes, Raw, Thread, raw_peer, readable
from support.waiting import PATIENCE

import seqrpc
from seqrpc.blocking.channels import Channel, ChannelEnd, Surroundings
from seqrpc.blocking.family import Family
from seqrpc.blocking.interceptors import NO_INTERCEPTION
from seqrpc.blocking.living import LivingValues
from seqrpc.blocking.proxy import proxy_class
from seqrpc.blocking.streams import Stream
from seqrpc.blocking.watch import Watch
from seqrpc.calls.departures import MovedEnd, Source
from seqrpc.errors import LocalProtocolError, Overloaded
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.interrupts import release
from seqrpc.limits import Limits
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM


class Object(seqrpc.Service):
    def __init__(self) -> None:
        self.notes = Notes()

    @seqrpc.method
    def hit(self) -> None: ...

    def close(self) -> None:  # type: ignore[override]
        self.notes.note("close")


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    """Put back the handlers of signals, as whoever sends does after a message is made."""
    yield
    release()


def new_living(**limits: Any) -> tuple[LivingValues, Family]:
    family = Family()
    return LivingValues(Limits(**limits), family, NO_INTERCEPTION), family


def seqpacket() -> tuple[OwnedFd, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return OwnedFd(ours.detach()), theirs


def new_channel(living: LivingValues) -> tuple[Channel, socket.socket]:
    fd, theirs = seqpacket()
    channel = living.receive(EXT_CHANNEL, fd)
    assert isinstance(channel, Channel)
    return channel, theirs


def new_stream(living: LivingValues) -> tuple[Stream[Any], socket.socket]:
    fd, theirs = seqpacket()
    stream = living.receive(EXT_STREAM, fd)
    assert isinstance(stream, Stream)
    return stream, theirs


async def counting() -> AsyncIterator[int]:
    yield 1


def test_it_is_known_what_travels() -> None:
    living, _family = new_living()
    with open(os.devnull) as file:
        assert not living.travels(file)  # an iterator with a descriptor is sent as that
    assert living.travels(iter([]))
    assert living.travels(Object())
    assert living.travels(Source([], "m"))
    assert not living.travels([1])
    assert living.departure_of(3) is None


def test_what_needs_a_loop_is_said_to() -> None:
    living, _family = new_living()
    with pytest.raises(LocalProtocolError, match="a value of type async_generator yields needs an event loop"):
        living.departure_of(counting())


def test_connections_and_their_proxies_cannot_be_sent() -> None:
    with raw_peer() as (connection, _raw):
        with pytest.raises(LocalProtocolError, match="only the proxy of a channel can be sent"):
            connection.call("Other.take", connection.proxy(Object))
        with pytest.raises(LocalProtocolError, match="a connection cannot be sent"):
            connection.call("Other.take", connection)


def test_what_leaves_is_counted() -> None:
    living, family = new_living(max_living_values=2)
    stream, channel = living.departure_of(iter([])), living.departure_of(Object())
    assert stream is not None
    assert channel is not None
    assert (stream.ext_type, channel.ext_type) == (EXT_STREAM, EXT_CHANNEL)
    assert family.alive == 2
    with pytest.raises(Overloaded, match="2 streams and channels already"):
        living.departure_of(iter([]))
    stream.unsent()
    channel.unsent()
    assert family.alive == 0
    sent = living.departure_of(iter([]))
    assert sent is not None
    sent.sent()
    (producer,) = family.pumps
    producer.end("enough")
    assert family.alive == 0
    assert not family.pumps


def test_a_stream_that_another_thread_rested_is_watched_again() -> None:
    living, family = new_living()
    began, may_go_on = threading.Event(), threading.Event()

    def items() -> Iterator[bytes]:
        began.set()
        assert may_go_on.wait(PATIENCE)
        yield from itertools.repeat(b"x")

    departure = living.departure_of(items())
    assert departure is not None
    raw = Raw(socket.socket(fileno=os.dup(departure.fileno())))
    departure.sent()
    (producer,) = family.pumps
    watch = Watch(family, lambda: list(family.pumps))
    with raw.sock, contextlib.closing(watch):
        thread = Thread(lambda: family.turn(producer))
        assert began.wait(PATIENCE)
        with watch:  # as a loop does that was woken by something else meanwhile
            pass
        assert not readable(watch.fileno())
        may_go_on.set()
        thread.result()
        while readable(raw.sock.fileno()):
            raw.receive()
        assert readable(watch.fileno())
        producer.end("enough")


def test_no_more_leave_than_descriptors_allow() -> None:
    living, family = new_living()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (70, hard))
    try:
        family.alive = 17
        with pytest.raises(Overloaded, match="half of RLIMIT_NOFILE"):
            living.departure_of(iter([]))
        family.alive = 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with pytest.raises(Overloaded, match="no socket pair for a stream or a channel"):
            living.departure_of(iter([]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert family.alive == 0


def test_other_failures_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    living, family = new_living()

    def fail(*_args: Any) -> Any:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(socket, "socketpair", fail)
    with pytest.raises(PermissionError):
        living.departure_of(iter([]))
    assert family.alive == 0


# What was received


def test_what_is_no_socket_of_ours_is_refused(pipe: tuple[int, int]) -> None:
    living, _family = new_living()
    for ext_type, what in ((EXT_STREAM, "stream"), (EXT_CHANNEL, "channel")):
        with (
            OwnedFd(os.dup(pipe[0])) as fd,
            pytest.raises(ValueError, match=f"the descriptor of a {what} is no connected SOCK_SEQPACKET socket"),
        ):
            living.receive(ext_type, fd)


def test_received_ends_move_on() -> None:
    living, _family = new_living()
    channel, theirs = new_channel(living)
    stream, producer = new_stream(living)
    with theirs, producer:
        for value in (channel, stream):
            departure = living.departure_of(value)
            assert isinstance(departure, MovedEnd)
            departure.unsent()
        proxy = proxy_class(Object)(channel._callee)
        departure = living.departure_of(proxy)
        assert isinstance(departure, MovedEnd)
        departure.sent()
        assert channel.closed
        assert theirs.recv(10) == b""
        living.give_up(stream)
        assert producer.recv(10) == b""


def test_a_stream_that_was_not_opened_is_relayed() -> None:
    living, family = new_living()
    stream: Stream[Any] = Stream(opening=lambda: made)
    made, producer = new_stream(living)
    departure = living.departure_of(stream)
    assert departure is not None
    assert family.alive == 1
    departure.given_up()
    assert family.alive == 0
    assert stream.closed
    with producer:
        made.close()


def test_a_channel_is_not_sent_over_itself() -> None:
    family = Family()
    fd, theirs = seqpacket()
    made: list[LivingValues] = []

    def living_of(own: ChannelEnd | None) -> LivingValues:
        made.append(LivingValues(Limits(), family, NO_INTERCEPTION, own))
        return made[-1]

    channel = Channel(ChannelEnd(fd, Surroundings(Limits(), family, NO_INTERCEPTION, living_of)))
    with theirs, channel:
        with pytest.raises(LocalProtocolError, match="a channel cannot be sent over itself"):
            channel.call("O.m", channel)
        made[0].give_up(channel)  # whoever called over it has it
        assert not channel.closed


# Giving up


def test_what_nobody_gets_is_let_go(pipe: tuple[int, int]) -> None:
    living, family = new_living()
    notes = Notes()

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            notes.note("finally")

    begun = items()
    next(begun)
    living.give_up(begun)
    assert notes.what == [], "code of the application's runs where no lock is held"
    family.run_errands()
    assert notes.what == ["finally"]

    fd = OwnedFd(os.dup(pipe[0]))
    begun = items()
    next(begun)
    living.give_up(Source(begun, "m", [fd]))
    assert fd.closed
    family.run_errands()
    assert notes.what == ["finally"] * 2

    service = Object()
    living.give_up(service)
    family.run_errands()
    assert service.notes.what == ["close"]

    channel, theirs = new_channel(living)
    living.give_up(channel)
    assert channel.closed
    theirs.close()
    living.give_up(3)
    living.give_up(iter([]))


def test_giving_up_what_runs_raises_nothing() -> None:
    living, _family = new_living()

    def items() -> Iterator[int]:
        living.give_up(running)
        yield 1

    running = items()
    assert next(running) == 1


def test_a_number_is_closed_once() -> None:
    living, _family = new_living()
    departure = living.departure_of(iter([]))
    assert departure is not None
    number = departure.fileno()
    departure.unsent()
    assert not is_open(number)
