"""What is on its way out with a message."""

from __future__ import annotations

import asyncio
import os
import socket

from support.descriptors import owned
from support.packets import unwire
from support.processes import in_child
from support.producers import Given, counting
from support.waiting import happens

from seqrpc import OwnedFd
from seqrpc.aio.departures import StreamDeparture
from seqrpc.aio.producers import Producer
from seqrpc.calls.departures import MovedEnd, Source
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM


def ignore(*_values: object) -> None:
    """Hear something, and do nothing."""


def test_a_departure_that_is_not_sent_leaves_nothing() -> None:
    departure = StreamDeparture(Source(counting(1), "m"), Encoder(), ignore, ignore, dropped=ignore)
    assert departure.fileno() >= 0
    departure.unsent()


def test_a_stream_that_is_passed_on_is_closed_here_or_given_back() -> None:
    back: list[OwnedFd] = []
    with owned(2) as fds:
        sent, unsent = (MovedEnd(EXT_STREAM, fd, back.append) for fd in list(fds))
        assert sent.ext_type == EXT_STREAM
        assert [sent.fileno(), unsent.fileno()] == [fd.fileno() for fd in fds]
        sent.sent()
        unsent.unsent()
        assert [fd.closed for fd in fds] == [True, False]
        assert back == fds[1:]


def test_a_departure_that_is_not_sent_tells_whoever_made_it() -> None:
    dropped: list[bool] = []
    departure = StreamDeparture(
        Source(counting(1), "m"), Encoder(), ignore, ignore, dropped=lambda: dropped.append(True)
    )
    departure.unsent()
    assert dropped == [True]


async def test_a_departure_that_was_sent_produces() -> None:
    started: list[Producer] = []
    ended: list[Producer] = []
    news = asyncio.Event()

    def end(producer: Producer) -> None:
        ended.append(producer)
        news.set()

    departure = StreamDeparture(Source(counting(1), "m"), Encoder(), started.append, end, dropped=ignore)
    with socket.socket(fileno=os.dup(departure.fileno())) as raw:
        departure.sent()
        await happens(lambda: bool(ended), news)
        assert unwire(raw.recv(100)) == [0, 0]
        assert unwire(raw.recv(100)) == [1, None]
    assert started == ended


def test_what_is_given_up_is_closed_with_its_source() -> None:
    given = Given()
    source = Source(counting(1), "m")
    departure = StreamDeparture(source, Encoder(living=given), ignore, ignore, dropped=ignore)
    departure.given_up()
    assert given.up == [source]
    with owned(1) as fds:
        MovedEnd(EXT_CHANNEL, fds[0], ignore).given_up()
        assert fds[0].closed


def test_a_copy_in_a_forked_child_is_closed() -> None:
    departure = StreamDeparture(Source(counting(1), "m"), Encoder(), ignore, ignore, dropped=ignore)
    number = departure.fileno()

    def look() -> bool:
        try:
            os.fstat(number)
        except OSError:
            return departure.fileno() < 0
        return False

    assert in_child(look)
    departure.unsent()
