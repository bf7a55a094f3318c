"""Calls that are cancelled, late or left alone by their connection, and those that a stop waits for."""

from __future__ import annotations

import asyncio

import pytest
from support.daemons import descriptor, on_a_pair, raw_client
from support.dispatch import Everything, in_milliseconds, open_count, settle
from support.waiting import PATIENCE

import seqrpc


async def test_cancelling_a_call_reaches_its_handler_and_its_finally_runs() -> None:
    service = Everything()
    async with on_a_pair(service) as connection:
        call = asyncio.ensure_future(connection.call("Everything.wait", "a"))
        await service.stage.wait("a began")
        call.cancel()
        await service.stage.wait("a ended")
        assert service.stage.reached == ["a began", "a cancelled", "a ended"]
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await connection.call("Everything.add", 1) == 111


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


async def test_a_call_that_is_cancelled_before_its_first_step_is_answered_and_its_descriptors_closed(
    pipe: tuple[int, int],
) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    with raw_client(ours) as client:
        await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], fds=[pipe[0]])
        await client.send(3, 1)  # both are there before the server reads either
        async with seqrpc.serve(service, sock=theirs):
            before = open_count()
            answer = await client.receive()
            assert answer == [1, 1, ["rpc.Cancelled", "the work was cancelled", None], None]
            await settle()
            assert service.stage.reached in ([], ["a began", "a cancelled", "a ended"])
            assert open_count() == before


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


async def test_a_lost_connection_cancels_its_handlers(pipe: tuple[int, int]) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with await seqrpc.serve(service, sock=theirs) as server:
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], fds=[pipe[0]])
            await client.send(0, 2, "Everything.stubborn", [])
            await service.stage.wait("stubborn began")
        await service.stage.wait("a ended")
        await server.wait_closed()
        await settle()
    assert "a cancelled" in service.stage.reached
    assert open_count() < before


async def test_a_lost_connection_stops_what_has_not_begun() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    with raw_client(ours) as client:
        await client.send(0, 1, "Everything.wait", ["a"])
    async with await seqrpc.serve(service, sock=theirs) as server:
        await server.wait_closed()
        await settle()
    assert service.stage.reached in ([], ["a began", "a cancelled", "a ended"])


async def test_draining_waits_for_handlers_on_behalf_of_all_who_ask() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs) as server:
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a"])
            await client.send(0, 2, "Everything.wait", ["b"])
            await service.stage.wait("b began")
            draining = [asyncio.ensure_future(server.drain(PATIENCE)) for _ in range(2)]
            service.stage.reach("a may go on")
            assert await client.receive() == [5, "the server is stopping"]
            assert await client.receive() == [1, 1, None, "a"]
            assert not any(task.done() for task in draining)
            service.stage.reach("b may go on")
            assert await client.receive() == [1, 2, None, "b"]
            assert await asyncio.gather(*draining) == [True, True]
