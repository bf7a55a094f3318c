"""Plain functions run in threads."""

from __future__ import annotations

import asyncio
import gc
import os
import time

import pytest
from support.daemons import descriptor, on_a_pair, raw_client
from support.dispatch import KEPT, Everything, in_milliseconds, open_count, settle
from support.waiting import PATIENCE

import seqrpc


async def test_plain_functions_run_in_threads_and_know_their_call(caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.in_thread") == ["Everything.in_thread", os.getpid(), False]
        with pytest.raises(seqrpc.Internal):
            await connection.call("Everything.stop_iteration")
        assert "a handler raised StopIteration" in caplog.text


@pytest.mark.parametrize("how", ["cancelled", "deadline", "lost"])
async def test_a_thread_keeps_its_descriptors_as_long_as_it_runs_whatever_became_of_its_call(
    how: str, pipe: tuple[int, int]
) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    before = open_count() - 2
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            options = {"deadline": in_milliseconds(500)} if how == "deadline" else {}
            params = {"fds": [descriptor(0)], "give_back": how != "lost", "fail": how == "lost"}
            await client.send(0, 1, "Everything.block", params, options, fds=[pipe[0]])
            await service.stage.wait("block began")
            if how != "lost":
                if how == "cancelled":
                    await client.send(3, 1)
                answer = await client.receive()
                assert answer[2][0] == ("rpc.Cancelled" if how == "cancelled" else "rpc.DeadlineExceeded")
            else:
                client.sock.close()
                await settle()
            assert not service.thread_ended.is_set()
            service.thread_may_go_on.set()
            assert await asyncio.to_thread(service.thread_ended.wait, PATIENCE)
            assert service.saw_open
    deadline = time.monotonic() + PATIENCE
    while open_count() > before and time.monotonic() < deadline:  # noqa: ASYNC110 - it has ended, and then closes them
        await asyncio.sleep(0.001)
    assert open_count() <= before


async def test_a_call_that_waits_for_a_thread_can_be_cancelled(pipe: tuple[int, int]) -> None:
    service = Everything()
    limits = seqrpc.Limits(max_threads=1)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs, limits=limits):
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.block", [[]])
            await service.stage.wait("block began")
            before = open_count()
            await client.send(0, 2, "Everything.block", [[descriptor(0)]], fds=[pipe[0]])
            await client.send(0, 3, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await client.send(3, 2)
            assert (await client.receive())[1:3] == [2, ["rpc.Cancelled", "the work was cancelled", None]]
            await settle()
            assert open_count() == before
            service.thread_may_go_on.set()
            assert await client.receive() == [1, 1, None, None]


@pytest.mark.parametrize("how", ["cancelled", "deadline", "lost"])
async def test_nothing_is_kept_of_a_call_that_ended_while_it_waited_for_a_thread(
    how: str, pipe: tuple[int, int]
) -> None:
    KEPT.clear()
    service = Everything()
    limits = seqrpc.Limits(max_threads=1)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs, limits=limits):
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.block", [[]])
            await service.stage.wait("block began")
            before = open_count()
            for call_id in range(2, 12):
                options = {"deadline": in_milliseconds(100)} if how == "deadline" else {}
                params = [{"content": b"x" * 1_000}, descriptor(0)]
                await client.send(0, call_id, "Everything.take", params, options, fds=[pipe[0]])
            await client.send(0, 20, "rpc.ping", [])
            if how == "lost":
                assert await client.receive() == [1, 20, None, None]
                client.sock.close()
                before -= 2
            else:
                if how == "cancelled":
                    for call_id in range(2, 12):
                        await client.send(3, call_id)
                for _ in range(11):
                    await client.receive()
            for _ in range(5):
                await settle()
            assert len(KEPT) == 10
            gc.collect()
            assert [ref() for ref in KEPT] == [None] * 10
            assert open_count() <= before
            service.thread_may_go_on.set()


async def test_descriptors_in_an_error_that_comes_after_its_call_ended_are_closed() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.late_error", [])
            await service.stage.wait("late error began")
            before = open_count()
            await client.send(3, 1)
            assert (await client.receive())[2][0] == "rpc.Cancelled"
            gc.disable()
            try:
                service.thread_may_go_on.set()
                await client.send(0, 2, "Everything.in_thread", [])
                await client.receive()
                await asyncio.sleep(0.05)
                assert open_count() == before
            finally:
                gc.enable()
