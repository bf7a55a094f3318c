"""Packets that the peer or the kernel refuses."""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import Callable
from typing import Any

import pytest
from support.descriptors import owned, refuse_descriptors
from support.packets import raw_pair, receive, send_with
from support.processes import OTHER_UID, in_child
from support.transport import Pair, Recorder, as_root, is_watching, on_transport, queue_one
from support.waiting import comes_true

from seqrpc import SeqpacketTransport

# Peers that take no descriptors


async def test_a_peer_that_takes_no_descriptors_refuses_that_packet_only(raw: Pair, pipe: tuple[int, int]) -> None:
    refuse_descriptors(raw[1])
    transport, recorder = on_transport(raw[0])
    with owned(1) as fds, pytest.raises(PermissionError):
        transport.send_packet(b"with", fds)
    transport.send_packet(b"without")
    assert await receive(raw[1]) == b"without"
    await recorder.end()


async def _refused_in_queue(
    raw: Pair, failed: Callable[[OSError], None] | None
) -> tuple[SeqpacketTransport, Recorder, Recorder]:
    transport, recorder = on_transport(raw[0])
    refuse_descriptors(raw[1])
    queue_one(transport)
    with owned(1) as fds:
        transport.send_packet(b"with", fds, failed)
    transport.send_packet(b"without")
    return transport, recorder, on_transport(raw[1])[1]


async def test_a_queued_packet_that_is_refused_is_told_and_the_next_ones_go_on(raw: Pair) -> None:
    refused: list[OSError] = []
    _transport, recorder, there = await _refused_in_queue(raw, refused.append)
    await there.until(lambda: there.packets[-1:] == [b"without"])
    assert b"with" not in there.packets
    assert [exc.errno for exc in refused] == [errno.EPERM]
    await there.end()
    await recorder.until_told("lost")


async def test_a_queued_packet_that_is_refused_ends_the_connection_if_nobody_is_to_be_told(raw: Pair) -> None:
    _transport, recorder, there = await _refused_in_queue(raw, None)
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, PermissionError)
    await there.until_told("lost")
    assert b"without" not in there.packets


async def test_whoever_is_told_of_a_refusal_may_send_something_else(raw: Pair) -> None:
    def send_more(exc: OSError) -> None:
        transport.send_packet(b"instead")
        queue_one(transport)

    transport, recorder = on_transport(raw[0])
    refuse_descriptors(raw[1])
    queue_one(transport)
    with owned(1) as fds:
        transport.send_packet(b"with", fds, send_more)
    _other, there = on_transport(raw[1])
    await there.until(lambda: b"instead" in there.packets and not transport.get_write_buffer_packets())
    assert b"with" not in there.packets
    await there.end()
    await recorder.until_told("lost")


async def test_whoever_is_told_of_a_refusal_may_end_the_connection(raw: Pair) -> None:
    def end(exc: OSError) -> None:
        recorder.transport.abort()

    _transport, recorder, there = await _refused_in_queue(raw, end)
    await recorder.until_told("lost")
    assert recorder.reason is None
    await there.until_told("lost")


async def test_whoever_is_told_of_a_refusal_and_fails_costs_the_connection(
    raw: Pair, loop_errors: list[dict[str, Any]]
) -> None:
    def fail(exc: OSError) -> None:
        raise LookupError

    _transport, recorder, there = await _refused_in_queue(raw, fail)
    await recorder.until_told("lost")
    assert [type(context["exception"]) for context in loop_errors] == [LookupError]
    loop_errors.clear()
    await there.until_told("lost")


def _as_other_user(story: Callable[[Pair, Pair], Any]) -> Any:
    """Run a story in a child of another user who may have 80 descriptors under way, 64 of them being so already."""

    def work() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        pair, jam = raw_pair(), raw_pair()
        with owned(1) as fds:
            for _ in range(2):
                send_with(jam[0], b"x", [fds[0].fileno()] * 50)
        result = asyncio.run(story(pair, jam))
        for end in (*pair, *jam):
            end.close()
        return result

    return in_child(work, uid=OTHER_UID)


# Too many descriptors under way: a bound of the kernel for users that are not root (unix(7), ETOOMANYREFS)


@as_root
def test_a_packet_that_the_kernel_has_no_room_for_is_refused_at_once() -> None:
    async def story(pair: Pair, jam: Pair) -> str:
        transport, recorder = on_transport(pair[0])
        with owned(1) as fds:
            try:
                transport.send_packet(b"with", fds)
            except OSError as exc:
                result = errno.errorcode[exc.errno or 0]
            else:
                result = "sent"
        await recorder.end()
        return result

    assert _as_other_user(story) == "ETOOMANYREFS"


@as_root
def test_a_queued_packet_that_the_kernel_has_no_room_for_is_tried_again() -> None:
    async def story(pair: Pair, jam: Pair) -> tuple[bool, list[bytes], int]:
        transport, recorder = on_transport(pair[0])
        queue_one(transport)
        with owned(1) as fds:
            transport.send_packet(b"with", fds)
        transport.send_packet(b"after")
        _other, there = on_transport(pair[1])
        await comes_true(lambda: transport.get_write_buffer_packets() == 2 and not is_watching(transport))
        waited = b"with" not in there.packets
        jam[1].close()  # the kernel drops what was under way there
        await there.until(lambda: there.packets[-1:] == [b"after"])
        result = waited, there.packets[-2:], len(there.fds[-2])
        await there.end()
        await recorder.until_told("lost")
        return result

    assert _as_other_user(story) == (True, [b"with", b"after"], 1)


@as_root
def test_what_waits_behind_a_packet_that_is_tried_again_goes_though_one_turn_is_too_short_for_it() -> None:
    async def story(pair: Pair, jam: Pair) -> bytes:
        transport, recorder = on_transport(pair[0])
        queue_one(transport)
        with owned(1) as fds:
            transport.send_packet(b"with", fds)
        for _ in range(250):
            transport.send_packet(b"after")
        transport.send_packet(b"last")
        _other, there = on_transport(pair[1])
        await comes_true(lambda: transport.get_write_buffer_packets() == 252 and not is_watching(transport))
        jam[1].close()  # the kernel drops what was under way there
        await there.until(lambda: there.packets[-1:] == [b"last"])
        last = there.packets[-1]
        await there.end()
        await recorder.until_told("lost")
        return last

    assert _as_other_user(story) == b"last"


@as_root
def test_a_connection_may_end_while_a_packet_is_to_be_tried_again() -> None:
    async def story(pair: Pair, jam: Pair) -> list[str]:
        transport, recorder = on_transport(pair[0])
        queue_one(transport)
        with owned(1) as fds:
            transport.send_packet(b"with", fds)
        _other, there = on_transport(pair[1])
        await comes_true(lambda: transport.get_write_buffer_packets() == 1 and not is_watching(transport))
        transport.abort()
        await there.until_told("lost")
        again = asyncio.Event()
        asyncio.get_running_loop().call_later(0.03, again.set)  # after the transport's own timer
        await again.wait()
        return recorder.told

    assert _as_other_user(story) == ["made", "lost"]
