"""Calls that are never answered."""

from __future__ import annotations

import asyncio

import pytest
from support.daemons import descriptor, raw_client
from support.dispatch import Everything, in_milliseconds, open_count, settle

import seqrpc


async def test_a_notify_is_never_answered(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    service = Everything()
    caplog.set_level("DEBUG")
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            for params in (
                ["a", descriptor(0)],
                ["fail", descriptor(0)],
                [5, descriptor(0)],
                [object.__name__, descriptor(0)],
            ):
                await client.send(2, "Everything.tell", params, fds=[pipe[0]])
            await client.send(2, "Everything.nothing", [])
            await client.send(2, "Everything.wait", ["late"], {"deadline": 5})
            for milliseconds in (50, 1_000, 10_000):  # a busy machine may need longer to begin
                await client.send(2, "Everything.wait", ["a"], {"deadline": in_milliseconds(milliseconds)})
                await client.send(0, 0, "rpc.ping", [])
                assert await client.receive() == [1, 0, None, None]
                if "a began" in service.stage.reached:
                    break
            await service.stage.wait("a ended")
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            await settle()
            assert open_count() == before
    assert service.stage.reached == ["told a", "told fail", "told object", "a began", "a cancelled", "a ended"]
    assert "RuntimeError: nobody hears this" in caplog.text
    assert "a NOTIFY of 'Everything.tell' is dropped: rpc.InvalidParams: " in caplog.text


async def test_notifies_beyond_the_limit_are_dropped_and_their_deadlines_with_them(pipe: tuple[int, int]) -> None:
    service = Everything()
    limits = seqrpc.Limits(max_calls_in_flight=2)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs, limits=limits):
        before = open_count()
        with raw_client(ours) as client:
            for _ in range(2):
                await client.send(2, "Everything.tell", ["wait"])
            for _ in range(3):
                options = {"deadline": in_milliseconds(20)}
                await client.send(2, "Everything.tell", ["too many", descriptor(0)], options, fds=[pipe[0]])
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            assert open_count() == before
            await asyncio.sleep(0.03)  # their deadlines pass
            assert service.stage.reached == ["told wait", "told wait"]
            service.stage.reach("tell may go on")
            await settle()
            await client.send(2, "Everything.tell", ["again"])
            await service.stage.wait("told again")
