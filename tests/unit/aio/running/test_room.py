"""What requests may keep in memory while they are worked on."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from support.accounts import new_account
from support.daemons import Stage, on_a_pair
from support.descriptors import owned

import seqrpc
from seqrpc.aio.current import HandledCall
from seqrpc.aio.registry import Registry
from seqrpc.aio.running import RunningCalls
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import value_fd
from seqrpc.protocol.messages import NO_OPTIONS, Request


class Heavy(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def hold(self, content: bytes, name: str) -> int:
        self.stage.reach(f"{name} began")
        await self.stage.wait(f"{name} may end")
        return len(content)


# Large requests


async def test_large_requests_that_are_worked_on_at_once_are_bounded_and_one_is_always_taken() -> None:
    heavy = Heavy()
    async with on_a_pair(heavy, limits=seqrpc.Limits(max_held_bytes=150_000)) as connection:
        first = asyncio.ensure_future(connection.call("Heavy.hold", bytes(200_000), "a"))
        await heavy.stage.wait("a began")
        with pytest.raises(seqrpc.Overloaded, match="max_held_bytes"):
            await connection.call("Heavy.hold", bytes(100_000), "b")
        heavy.stage.reach("c may end")
        assert await connection.call("Heavy.hold", bytes(100), "c") == 100
        heavy.stage.reach("a may end")
        assert await first == 200_000
        heavy.stage.reach("b may end")
        assert await connection.call("Heavy.hold", bytes(100_000), "b") == 100_000


def call_of(registry: Registry, call_id: int | None, held_bytes: int) -> HandledCall:
    request = Request(call_id, "Heavy.hold", [], NO_OPTIONS, [], held_bytes)
    # What answers it, and on what connection, is nobody's business here.
    nobody: Any = None
    caller = Credentials(pid=1, uid=2, gid=3)
    entry = registry.entries["Heavy.hold"]
    return HandledCall(request=request, caller=caller, connection=nobody, dispatcher=nobody, entry=entry)


async def test_what_requests_hold_is_counted_until_they_end_and_one_alone_always_fits() -> None:
    registry = Registry([Heavy()], limits=seqrpc.Limits(max_held_bytes=100))
    requests: dict[int, HandledCall | None] = {}
    running = RunningCalls(registry, requests, new_account())
    assert running.lack_of_room(1_000) is None
    first, second, oneway = call_of(registry, 1, 60), call_of(registry, 2, 40), call_of(registry, None, 30)
    running.add(first)
    assert running.lack_of_room(40) is None
    assert running.lack_of_room(41) == "60 bytes of large requests are being worked on already (max_held_bytes)"
    running.add(second)
    assert running.lack_of_room(1) is not None
    running.end(first)
    running.add(oneway)
    assert running.lack_of_room(30) is None
    assert running.lack_of_room(31) == "70 bytes of large requests are being worked on already (max_held_bytes)"
    assert (running.number, requests, running.is_idle) == (2, {2: second}, False)
    running.end(oneway)
    running.end(second)
    assert running.lack_of_room(1_000) is None
    assert (running.number, requests, running.is_idle) == (0, {}, True)


async def test_the_end_of_a_call_leaves_alone_the_next_one_of_its_id() -> None:
    registry = Registry([Heavy()])
    requests: dict[int, HandledCall | None] = {}
    running = RunningCalls(registry, requests, new_account())
    answered, following = call_of(registry, 1, 0), call_of(registry, 1, 0)
    running.add(answered)
    del requests[1]  # its answer is sent, and it goes on
    running.add(following)
    running.end(answered)
    assert requests == {1: following}
    running.end(following)
    assert requests == {}


async def test_descriptors_that_nobody_took_are_closed_with_their_call_but_not_what_belongs_to_values() -> None:
    registry = Registry([Heavy()])
    running = RunningCalls(registry, {}, new_account())
    call = call_of(registry, 1, 0)
    with owned(1) as fds:
        (fd,) = fds
        call.request.fds = [fd, value := value_fd(os.dup(0))]
        running.add(call)
        assert call.request.fds == [fd]
        running.end(call)
        assert fd.closed
        assert not value.closed
        value.close()
