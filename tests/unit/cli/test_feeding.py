"""Streams that this side produces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking
from seqrpc.cli.feeding import stream_of


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    with ExitStack() as keep:
        yield keep


def test_a_stream_has_what_the_iterator_yields(keep: ExitStack) -> None:
    assert [*stream_of(iter(range(100_000)), keep)] == [*range(100_000)]


def test_what_the_iterator_raises_ends_the_stream(keep: ExitStack) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise seqrpc.InvalidParams("no more")

    stream = stream_of(items(), keep)
    assert next(stream) == 1
    with pytest.raises(seqrpc.InvalidParams, match="no more"):
        next(stream)


def test_a_stream_that_is_sent_on_outlives_its_call(desk: Path, keep: ExitStack) -> None:
    with blocking.connect(desk) as connection:
        lines = (str(number) for number in range(20_000))
        with connection.call("Desk.loud", stream_of(lines, keep)) as loud:
            assert [*loud] == [str(number) for number in range(20_000)]
        assert connection.call("Desk.total", stream_of(iter(range(10)), keep)) == 45


def test_a_call_is_given_up_while_an_item_is_waited_for(desk: Path, keep: ExitStack) -> None:
    may_end = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        may_end.wait(PATIENCE)

    with blocking.connect(desk) as connection:
        stream = stream_of(items(), keep)
        with pytest.raises(seqrpc.DeadlineExceeded), blocking.timeout(0.1):
            connection.call("Desk.total", stream)
    may_end.set()
