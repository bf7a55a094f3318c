"""How the streams end that threads produce: when there is no room, when nothing may pass, and when others end them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import msgpack
from support.descriptors import refuse_descriptors
from support.lines import interrupting
from support.sync import Raw, Thread

import seqrpc
from seqrpc.blocking.producers import Producer, StreamDeparture
from seqrpc.blocking.waiting import READ, WRITE
from seqrpc.calls.departures import Source
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.protocol.encoder import Encoder


class Ended(seqrpc.RpcError, code="blocking.producers.Ended"):
    """An error of an application's own."""


class Produced:
    """A producer, and the raw socket at its other end."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.ended = 0
        departure = StreamDeparture(
            Source(items, "m", None),
            Encoder(DEFAULT_LIMITS),
            rested=lambda: None,
            started=lambda _producer: None,
            ended=self._note,
            dropped=lambda: None,
        )
        self.raw = Raw(socket.socket(fileno=os.dup(departure.fileno())))
        departure.sent()
        self.producer: Producer = departure.producer

    def _note(self, _producer: Producer) -> None:
        self.ended += 1

    @property
    def is_over(self) -> bool:
        return self.producer.interest() == (-1, 0)

    def fill(self) -> None:
        """Leave no room for what is produced."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.producer._sock.send(msgpack.packb("fill"), socket.MSG_DONTWAIT)

    def drain(self) -> list[Any]:
        """Return what has come, but for what filled the socket."""
        messages = []
        self.raw.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while (message := self.raw.receive()) is not None:
                messages.append(message)
        return [message for message in messages if message != "fill"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.raw.close()
        self.producer.end("the test is over")
        assert self.is_over
        assert self.ended == 1


def test_an_end_for_which_there_is_no_room_is_sent_later() -> None:
    def source() -> Iterator[int]:
        yield 1
        produced.fill()
        raise Ended("over")

    with Produced(source()) as produced:
        produced.producer.work()
        produced.producer.work()  # there is no room yet
        assert produced.producer.interest()[1] == READ | WRITE
        assert produced.drain() == [[0, 1]]
        produced.producer.work()
        assert produced.is_over
        (last,) = produced.drain()
        assert last[0] == 1
        assert last[1][:2] == ["blocking.producers.Ended", "over"]


def test_an_item_that_waited_and_may_not_pass_then_is_why_the_stream_ends(pipe: tuple[int, int]) -> None:
    def source() -> Iterator[Any]:
        yield 1
        produced.fill()
        yield {"fd": OwnedFd.dup(pipe[0])}
        raise AssertionError("nothing is sent after it")

    with Produced(source()) as produced:
        produced.producer.work()
        refuse_descriptors(produced.raw.sock)
        assert produced.drain() == [[0, 1]]
        while not produced.is_over:
            produced.producer.work()
        (last,) = produced.drain()
        assert last[0] == 1
        assert last[1] is not None


def test_a_source_that_ends_the_stream_and_itself_has_ended_it_once() -> None:
    def source() -> Iterator[int]:
        yield 1
        produced.producer.end("it ends itself")

    with Produced(source()) as produced:
        while not produced.is_over:
            produced.producer.work()
        assert produced.drain() == [[0, 1], [1, None]]


def test_one_that_is_ended_at_the_last_moment_of_its_turn_ends() -> None:
    """Another thread finds it running, and nobody looks any more whether it was ended."""

    def source() -> Iterator[int]:
        yield 1
        produced.fill()
        yield 2
        raise AssertionError("it was ended before")

    def about_to_rest(frame: FrameType, event: str, what: Any) -> bool:
        return event == "c_call" and frame.f_code.co_name == "_run" and what.__name__ == "release"

    def end_elsewhere() -> None:
        Thread(lambda: produced.producer.end("it is ended elsewhere")).result()

    with Produced(source()) as produced:
        with interrupting(about_to_rest, end_elsewhere) as came:
            produced.producer.work()
        assert came
        assert produced.is_over
