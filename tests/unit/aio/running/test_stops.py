"""Calls that are cancelled, or left alone by their connection, and those that a stop waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from pathlib import Path

import pytest
from support.daemons import Stage, descriptor, on_a_pair, raw_client
from support.dispatch import Everything, open_count, settle
from support.special import Factory
from support.waiting import PATIENCE, comes_true

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


class Many(seqrpc.Service):
    waiting = turn = 0

    def __init__(self, most: int) -> None:
        self.most = most
        self.ended: list[int] = []

    @seqrpc.method
    async def wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.append(self.turn)

    def count(self) -> None:
        self.turn += 1
        if len(self.ended) < self.most:
            asyncio.get_running_loop().call_soon(self.count)


@pytest.mark.parametrize("connections", [1, 4])
async def test_the_handlers_of_lost_connections_do_not_all_end_in_one_turn_of_the_loop(
    connections: int, socket_path: Path
) -> None:
    service = Many(200)
    async with seqrpc.serve(service, socket_path):
        with contextlib.ExitStack() as clients:
            for client in [clients.enter_context(raw_client(socket_path)) for _ in range(connections)]:
                for call_id in range(200 // connections):
                    await client.send(0, call_id, "Many.wait", [])
            await comes_true(lambda: service.waiting == 200)
            service.count()
        await comes_true(lambda: len(service.ended) == 200)
    assert max(Counter(service.ended).values()) <= 16


async def test_calls_whose_deadlines_pass_together_do_not_all_end_in_one_turn_of_the_loop(socket_path: Path) -> None:
    service = Many(200)
    async with seqrpc.serve(service, socket_path):
        with raw_client(socket_path) as client:
            deadline = time.monotonic_ns() + 300_000_000
            for call_id in range(200):
                await client.send(0, call_id, "Many.wait", [], {"deadline": deadline})
            service.count()
            answers = [await client.receive() for _ in range(200)]
    assert {error[0] for _kind, _id, error, _result in answers} == {"rpc.DeadlineExceeded"}
    assert service.waiting == len(service.ended)
    assert max(Counter(service.ended).values()) <= 16


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


async def test_a_handler_that_revokes_its_object_ends_all_other_handlers_of_its_caller() -> None:
    factory = Factory()
    async with on_a_pair(factory) as connection:
        channel = await connection.call("Factory.make")
        waiting = asyncio.ensure_future(channel.call("org.example.Special.wait"))
        await factory.special.stage.wait("waiting")
        assert await channel.call("org.example.Special.revoke_itself") == "revoked"
        with pytest.raises(seqrpc.Cancelled):
            await waiting


async def test_handlers_of_a_lost_connection_that_go_on_are_waited_for_so_long_and_no_longer(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(seqrpc.Service):
        def __init__(self) -> None:
            self.stage = Stage()

        @seqrpc.method
        async def work(self) -> None:
            self.stage.reach("works")
            try:
                await asyncio.Event().wait()
            finally:
                await self.stage.wait("may end")
                self.stage.reach("ended")

    stubborn = Stubborn()
    async with seqrpc.serve(stubborn, socket_path, limits=seqrpc.Limits(close_timeout=0.05)) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 1, "Stubborn.work", [])
            await stubborn.stage.wait("works")
        await comes_true(lambda: not server.connections)
        assert await asyncio.wait_for(server.drain(PATIENCE), PATIENCE)
        assert "handlers are still running 0.05 s after they were cancelled" in caplog.text
    stubborn.stage.reach("may end")
    await stubborn.stage.wait("ended")
