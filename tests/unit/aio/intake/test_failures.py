"""Packets that are not whole, and protocols that fail."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from support.descriptors import owned
from support.packets import send_with
from support.scarcity import table_full
from support.transport import Pair, Recorder, Tolerant, on_transport, oversized

from seqrpc import Credentials, OwnedFd

# Packets that are not whole


async def test_a_protocol_may_take_an_oversized_packet_in_its_own_way(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0], tolerant := Tolerant())
    oversized(raw[1])
    raw[1].send(b"next")
    await recorder.until_packets(1)
    assert recorder.packets == [b"next"]
    assert tolerant.cut == [70_000]
    await recorder.end()


async def test_a_protocol_may_take_the_loss_of_descriptors_in_its_own_way(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0], tolerant := Tolerant())
    with owned(3) as fds:
        numbers = [fd.fileno() for fd in fds]
        send_with(raw[1], b"lost", numbers)
        with table_full():
            await recorder.until(lambda: bool(tolerant.cut))
        send_with(raw[1], b"whole", numbers)
    await recorder.until_packets(1)
    assert recorder.packets == [b"whole"]
    assert len(recorder.fds[0]) == 3
    assert tolerant.cut == [(b"lost", os.getuid())]
    await recorder.end()


# Protocols that fail


class Failing(Recorder):
    """Fails at what it is told of."""

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
        raise ValueError("no packets, please")

    def eof_received(self) -> None:
        raise ValueError("no end, please")


async def test_a_protocol_that_fails_at_a_packet_loses_its_connection_and_the_descriptors(raw: Pair) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    _transport, recorder = on_transport(raw[0], Failing())
    with owned(2) as fds:
        send_with(raw[1], b"packet", [fd.fileno() for fd in fds])
    await recorder.until_told("lost")
    (failure,) = failures
    assert (failure["message"], str(failure["exception"])) == (
        "the protocol's packet_received failed",
        "no packets, please",
    )


async def test_a_protocol_that_fails_at_the_end_loses_its_connection(raw: Pair) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    _transport, recorder = on_transport(raw[0], Failing())
    raw[1].shutdown(socket.SHUT_WR)
    await recorder.until_told("lost")
    assert [str(failure["exception"]) for failure in failures] == ["no end, please"]


async def test_a_packet_that_is_not_whole_ends_what_does_not_take_it(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    oversized(raw[1])
    await recorder.until_told("lost")
    assert "70000" in str(recorder.reason)


async def test_descriptors_that_are_lost_end_what_does_not_take_that(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    with owned(3) as fds:
        send_with(raw[1], b"lost", [fd.fileno() for fd in fds])
        with table_full():
            await recorder.until_told("lost")
    assert isinstance(recorder.reason, OSError)
    assert recorder.reason.errno == errno.EMFILE
