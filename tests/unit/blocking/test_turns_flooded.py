"""A peer that sends without end keeps nobody past a deadline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.lines import End, line_end
from support.sync import Thread, raw_peer

import seqrpc
from seqrpc import blocking

NOTHING_KNOWN = 99


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


@contextmanager
def flooded(end: End, *message: Any) -> Iterator[None]:
    is_over = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not is_over.is_set():
                end.send(*message)

    thread = Thread(flood)
    try:
        yield
    finally:
        is_over.set()
        end.line.close()
        thread.result()


@pytest.mark.parametrize("message", [(NOTHING_KNOWN,), (2, "No.such", []), (1, 77, None, None), (3, 5)])
def test_a_deadline_holds_while_packets_come_that_need_no_work(end: End, message: tuple[Any, ...]) -> None:
    with flooded(end, *message), pytest.raises(seqrpc.DeadlineExceeded):
        end.caller.request("A.b", [], deadline=time.monotonic_ns() + 50_000_000)


def test_a_deadline_holds_though_a_handler_meanwhile_calls_and_is_not_answered() -> None:
    class Asks(seqrpc.Service):
        @seqrpc.method
        def changed(self) -> None:
            blocking.current_call().connection.call("Other.side")

    with raw_peer(services=Asks()) as (connection, raw):
        raw.send(0, 1, "Asks.changed", [])
        with pytest.raises(seqrpc.DeadlineExceeded), seqrpc.timeout(0.05):
            connection.call("A.b")
