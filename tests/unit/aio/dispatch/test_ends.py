"""Calls whose deadline passes, or that are cancelled."""

from __future__ import annotations

import asyncio

from support.daemons import descriptor, raw_client
from support.dispatch import Everything, in_milliseconds, open_count

import seqrpc


async def test_a_cancelled_call_is_still_answered() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            await client.send(0, 7, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await client.send(3, 7)
            assert await client.receive() == [1, 7, ["rpc.Cancelled", "the work was cancelled", None], None]
            await client.send(3, 7)
            await client.send(0, 8, "Everything.stubborn", [])
            await service.stage.wait("stubborn began")
            await client.send(3, 8)
            assert await client.receive() == [1, 8, None, "not now"]


async def test_a_deadline_ends_the_handler_and_is_told() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            for milliseconds in (50, 1_000, 10_000):  # a busy machine may need longer to begin
                await client.send(0, 1, "Everything.wait", ["a"], {"deadline": in_milliseconds(milliseconds)})
                code, message, _data = (await client.receive())[2]
                if service.stage.reached:
                    break
            assert (code, message) == ("rpc.DeadlineExceeded", "the deadline passed while the call ran")
            assert service.stage.reached[-1] == "a ended"
            await client.send(0, 2, "Everything.add", [1], {"deadline": in_milliseconds(60_000)})
            assert await client.receive() == [1, 2, None, 111]
            await client.send(0, 3, "Everything.add", [1], {"deadline": 2**64 - 1})
            assert await client.receive() == [1, 3, None, 111]


async def test_a_call_whose_deadline_has_passed_never_begins(pipe: tuple[int, int]) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], {"deadline": 5}, fds=[pipe[0]])
            code, message, _data = (await client.receive())[2]
            assert (code, message) == ("rpc.DeadlineExceeded", "the deadline passed before the call began")
            assert open_count() == before
    assert service.stage.reached == []


async def test_a_deadline_that_comes_after_its_end_does_no_harm() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            for milliseconds in (20, 1_000, 10_000):  # a busy machine may need longer to answer
                await client.send(0, 1, "Everything.add", [1], {"deadline": in_milliseconds(milliseconds)})
                answer = await client.receive()
                if answer[2] is None:
                    break
            assert answer == [1, 1, None, 111]
            await client.send(0, 2, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await asyncio.sleep(milliseconds / 1_000)  # now it passes
            service.stage.reach("a may go on")
            assert await client.receive() == [1, 2, None, "a"]
