from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.sync import Notes, Raw, Thread, far, raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.errors import DeadlineExceeded


class Wrong(seqrpc.RpcError, code="blocking.arguments.Wrong"):
    """An error of an application's own."""


def counting(to: int, notes: Notes) -> Iterator[Any]:
    try:
        yield from range(to)
    finally:
        notes.note("finally")


def test_a_generator_is_produced_while_its_call_waits_and_closed_at_its_end() -> None:
    class Summing(seqrpc.Service):
        @seqrpc.method
        def sum(self, numbers: object) -> int:
            assert isinstance(numbers, blocking.Stream)
            with numbers:
                return sum(itertools.islice(numbers, 5))

    notes = Notes()
    with far(Summing()) as (connection, _other):
        assert connection.call("Summing.sum", counting(5, notes)) == 10
        assert notes.what == ["finally"]
        assert connection.call("Summing.sum", counting(10**9, notes)) == 10
        assert notes.what == ["finally", "finally"]


def test_a_generator_that_nobody_reads_ends_with_its_call() -> None:
    notes = Notes()
    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, "answer")
        assert connection.call("S.take", counting(10**9, notes)) == "answer"
        _message, end = raw.receive_end()
        last = end.rest()
        assert last[-1][1][1] == "the call that it was given to has ended"
        end.close()
    assert notes.what in ([], ["finally"])


def test_an_endless_generator_does_not_outlast_the_deadline() -> None:
    with raw_peer() as (connection, raw):

        def read() -> None:
            _message, end = raw.receive_end()
            end.rest()
            end.close()

        reading = Thread(read)
        with pytest.raises(DeadlineExceeded), seqrpc.timeout(0.05):
            connection.call("S.take", itertools.count())
        reading.result()


def test_an_endless_generator_does_not_hide_the_answer() -> None:
    with raw_peer() as (connection, raw):

        def read() -> None:
            _message, end = raw.receive_end()
            end.receive()
            raw.send(1, 0, None, 7)
            end.rest()
            end.close()

        reading = Thread(read)
        assert connection.call("S.take", itertools.count()) == 7
        reading.result()


def test_a_generator_may_call_over_the_connection() -> None:
    class Doubling(seqrpc.Service):
        @seqrpc.method
        def double(self, number: int) -> int:
            return 2 * number

        @seqrpc.method
        def sum(self, numbers: object) -> int:
            assert isinstance(numbers, blocking.Stream)
            return sum(numbers)

    with far(Doubling()) as (connection, _other):
        doubled = (connection.call("Doubling.double", number) for number in range(4))
        assert connection.call("Doubling.sum", doubled) == 12


def test_the_error_of_a_generator_reaches_the_handler_and_is_not_raised_here() -> None:
    class Reading(seqrpc.Service):
        @seqrpc.method
        def read(self, numbers: object) -> str:
            assert isinstance(numbers, blocking.Stream)
            try:
                return repr(list(numbers))
            except Wrong as exc:
                return f"{exc.code} {exc.data}"

    def fails() -> Iterator[int]:
        yield 1
        raise Wrong("no", data=3)

    with far(Reading()) as (connection, _other):
        assert connection.call("Reading.read", fails()) == "blocking.arguments.Wrong 3"


def test_all_generators_of_a_call_are_ended_whatever_one_does_at_its_end() -> None:
    notes = Notes()

    def stubborn() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise KeyboardInterrupt

    with raw_peer() as (connection, raw):

        def answer() -> list[Raw]:
            _message, fds = raw.receive_with()
            ends = [Raw(socket.socket(fileno=fd.detach())) for fd in fds]
            for end in ends:
                end.receive()
            raw.send(1, 0, None, None)
            return ends

        answering = Thread(answer)
        with pytest.raises(KeyboardInterrupt):
            connection.call("S.take", counting(10**9, notes), stubborn())
        assert notes.what == ["finally"]
        for end in answering.result():
            end.rest()  # it has an end
            end.close()
