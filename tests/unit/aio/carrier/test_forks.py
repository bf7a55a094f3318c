"""A transport in forked children of its process."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from support.descriptors import owned
from support.packets import raw_pair, receive_to_the_end
from support.processes import in_child
from support.transport import Recorder, on_transport

import seqrpc
from seqrpc import OwnedFd, SeqpacketTransport


def queue(transport: SeqpacketTransport, fds: list[OwnedFd]) -> None:
    """Send until packets wait, the last with descriptors."""
    while not transport.get_write_buffer_packets():
        transport.send_packet(b"x" * 1_000)
    transport.send_packet(b"last", fds)


def null_devices() -> int:
    """Return how many descriptors of the null device this process has, as what ``owned`` gives."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return len([link for link in links if os.path.lexists(link) and os.readlink(link) == os.devnull])


async def test_a_copy_of_it_is_closed_and_says_so() -> None:
    ours, theirs = raw_pair()
    transport, recorder = on_transport(ours)

    def use() -> list[Any]:
        told: list[Any] = []
        for data, fds in ((b"child", ()), (b"child" * 20_000, ()), (b"child", (0,))):
            try:
                transport.send_packet(data, [OwnedFd.dup(fd) for fd in fds])
            except seqrpc.WrongProcess as exc:
                told.append(str(exc).partition(" belongs")[0])
        gc.collect()
        transport.resume_reading()
        transport.pause_reading()
        transport.close()
        transport.abort()
        state = transport.is_closing(), transport.is_reading(), transport.get_write_buffer_size(), transport.detach()
        return [*told, *state, transport.get_extra_info("socket").fileno(), repr(transport).split()[1], recorder.told]

    said = in_child(use)
    assert said == [*["this transport"] * 3, True, False, 0, None, -1, "closed", ["made"]]
    transport.send_packet(b"parent")
    theirs.send(b"to the parent")
    await recorder.until_packets(1)
    assert theirs.recv(100) == b"parent"
    transport.close()
    assert await receive_to_the_end(theirs) == []
    theirs.close()
    await recorder.until_told("lost")


async def test_what_waits_in_it_is_not_sent_by_a_copy_and_its_descriptors_are_closed_there() -> None:
    ours, theirs = raw_pair()
    transport, recorder = on_transport(ours)
    before = null_devices()
    with owned(10) as fds:
        queue(transport, fds)
    waiting = transport.get_write_buffer_packets()
    assert null_devices() == before + 10, "the duplicates"
    assert in_child(null_devices) == before
    assert transport.get_write_buffer_packets() == waiting
    transport.close()
    packets = await receive_to_the_end(theirs)
    assert packets.count(b"last") == 1
    theirs.close()
    await recorder.until_told("lost")


async def be_reading(_recorder: Recorder, theirs: socket.socket) -> None:
    theirs.send(b"last")


async def be_polling(recorder: Recorder, theirs: socket.socket) -> None:
    theirs.send(b"early")
    await recorder.until_packets(1)
    theirs.send(b"last")


async def be_queued(recorder: Recorder, theirs: socket.socket) -> None:
    with owned(3) as fds:
        queue(recorder.transport, fds)
    theirs.send(b"last")


async def be_closing(recorder: Recorder, _theirs: socket.socket) -> None:
    with owned(3) as fds:
        queue(recorder.transport, fds)
    recorder.transport.close()


async def be_closed(recorder: Recorder, _theirs: socket.socket) -> None:
    recorder.transport.close()


async def be_aborted(recorder: Recorder, _theirs: socket.socket) -> None:
    recorder.transport.abort()


async def be_broken(recorder: Recorder, theirs: socket.socket) -> None:
    theirs.send(b"last")
    theirs.close()
    with pytest.raises(seqrpc.ConnectionLost):
        recorder.transport.send_packet(b"nobody reads it")


async def go_on(recorder: Recorder, theirs: socket.socket, *, receives: bool, sends: bool) -> None:
    """End what was under way as it would have ended without any child."""
    if receives:
        await recorder.until(lambda: b"last" in recorder.packets)
        recorder.transport.close()
    if sends:
        assert (await receive_to_the_end(theirs)).count(b"last") == 1
    await recorder.until_told("lost")


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "be, receives, sends",
    [
        (be_reading, True, False),
        (be_polling, True, False),
        (be_queued, True, True),
        (be_closing, False, True),
        (be_closed, False, False),
        (be_aborted, False, False),
        (be_broken, True, False),
    ],
)
def test_a_fork_that_runs_the_same_loop_hears_nothing_and_disturbs_nothing(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    be: Callable[[Recorder, socket.socket], Coroutine[Any, Any, None]],
    receives: bool,
    sends: bool,
) -> None:
    ours, theirs = raw_pair()
    recorder, errors = Recorder(), list[str]()

    async def begin() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context)))
        on_transport(ours, recorder, seqrpc.Limits(busy_poll_timeout=0.01 if be is be_polling else 0))
        await be(recorder, theirs)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(begin())

        def drive() -> tuple[list[str], list[bytes], list[str]]:
            told, packets = len(recorder.told), len(recorder.packets)
            runner.run(asyncio.sleep(0.03))  # longer than any of its timers
            return recorder.told[told:], recorder.packets[packets:], errors

        assert in_child(drive) == ([], [], [])
        runner.run(go_on(recorder, theirs, receives=receives, sends=sends))
    assert errors == []
    theirs.close()
