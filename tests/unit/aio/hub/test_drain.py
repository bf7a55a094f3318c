"""Servers that stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import exists, on_a_pair, raw_client, said_closing
from support.waiting import PATIENCE
from support.work import Work

import seqrpc


async def test_draining_finishes_what_runs_and_refuses_what_comes(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 1, "Work.work", [])
            await service.stage.wait("began")
            draining = asyncio.ensure_future(server.drain())
            assert await client.receive() == [5, "the server is stopping"]
            assert not exists(socket_path)
            with pytest.raises(seqrpc.ConnectError):
                await seqrpc.connect(socket_path)
            await client.send(0, 2, "Work.add", [1, 2])
            assert await client.receive() == [1, 2, ["rpc.Unavailable", "this side takes no new requests", None], None]
            assert not draining.done()
            service.stage.reach("may go on")
            assert await client.receive() == [1, 1, None, "done"]
            assert await client.receive() is None
            assert await draining is True
    assert service.stage.reached == ["began", "may go on"]


async def test_clients_of_a_draining_server_are_told_without_asking_it(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        draining = asyncio.ensure_future(server.drain())
        await said_closing(connection)
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await connection.call("Work.add", 1, 2)
        service.stage.reach("may go on")
        assert await call == "done"
        assert await draining is True


@pytest.mark.parametrize("own_limit", [True, False])
async def test_draining_has_a_bound(own_limit: bool, socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = Work()
    limits = seqrpc.Limits(drain_timeout=0.02 if not own_limit else 60)
    async with seqrpc.serve(service, socket_path, limits=limits) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        assert await server.drain(0.02 if own_limit else None) is False
        assert service.stage.reached == ["began", "cancelled"]
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
    assert "handlers were still running after the drain timeout" in caplog.text


async def test_draining_what_is_idle_ends_at_once(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        assert await server.drain(60) is True
        await connection.wait_closed()


async def test_draining_and_closing_at_once_both_end(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        draining = [asyncio.ensure_future(server.drain(PATIENCE)) for _ in range(2)]
        await asyncio.sleep(0)
        await server.close()
        assert await asyncio.gather(*draining) == [True, True]
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call


async def test_closing_cancels_handlers_and_waits_for_them(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        await server.close()
        assert service.stage.reached == ["began", "cancelled"]
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
        assert server.connections == frozenset()


@pytest.mark.parametrize("how", ["drain", "close"])
async def test_handlers_that_go_on_are_waited_for_so_long_and_no_longer(
    how: str, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Work()
    limits = seqrpc.Limits(drain_timeout=0.02, close_timeout=0.05)
    async with seqrpc.serve(service, socket_path, limits=limits) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.go_on"))
        await service.stage.wait("began")
        async with asyncio.timeout(PATIENCE / 4):  # the stage would let it go on for longer
            await getattr(server, how)()
            await server.wait_closed()
        assert service.stage.reached == ["began", "cancelled"]
        assert "handlers are still running 0.05 s after they were cancelled" in caplog.text
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
    others = asyncio.all_tasks() - {asyncio.current_task()}
    service.stage.reach("may end")
    await asyncio.gather(*others, return_exceptions=True)


async def test_a_drain_that_is_cancelled_closes(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        call = asyncio.ensure_future(connection.call("Work.work"))
        await service.stage.wait("began")
        draining = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert service.stage.reached == ["began", "cancelled"]
        assert server.connections == frozenset()
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await call
    described = seqrpc.Server.drain.__doc__
    assert described is not None
    assert "the server is closed" in described.partition("Cancel:")[2]


@pytest.mark.parametrize("number", [1, 5, 150])
async def test_what_was_sent_before_a_drain_is_answered(number: int, socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 0, "rpc.ping", [])
            assert await client.receive() == [1, 0, None, None]
            for call_id in range(number):
                client.sock.send(msgpack.packb([0, call_id, "Work.add", [1, 2]]))
            assert await server.drain() is True
            assert await client.receive() == [5, "the server is stopping"]
            refusal = ["rpc.Unavailable", "this side takes no new requests", None]
            for call_id in range(number):
                assert await client.receive() == [1, call_id, refusal, None]
            assert await client.receive() is None


async def test_who_sends_on_and_on_does_not_keep_a_drain_from_ending(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with raw_client(socket_path) as client:
            await client.send(0, 0, "rpc.ping", [])
            assert await client.receive() == [1, 0, None, None]

            def send_on() -> None:
                try:
                    client.sock.send(msgpack.packb([2, "Work.add", [1, 2]]))
                except BlockingIOError:
                    pass
                except OSError:
                    return
                asyncio.get_running_loop().call_soon(send_on)

            send_on()
            async with asyncio.timeout(PATIENCE):
                assert await server.drain() is True


@pytest.mark.parametrize("how", ["drain", "close"])
async def test_who_waits_to_be_accepted_is_told_why_that_will_not_be(how: str, socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path, limits=seqrpc.Limits(max_connections=2)) as server:
        with raw_client(socket_path) as first, raw_client(socket_path) as second, raw_client(socket_path) as third:
            for client in (first, second, third):
                client.sock.send(msgpack.packb([0, 1, "Work.add", [1, 2]]))
            await getattr(server, how)()
            for client in (first, second, third):
                assert await client.receive() == [5, "the server is stopping"]
                assert await client.receive() is None


async def test_a_handler_may_close_its_own_server(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        service.server = server
        with pytest.raises((seqrpc.Cancelled, seqrpc.ConnectionLost)):
            await connection.call("Work.stop")
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
    assert not exists(socket_path)


async def test_threads_of_a_server_go_with_it(socket_path: Path) -> None:
    class Plain(seqrpc.Service):
        def __init__(self) -> None:
            self.thread: Any = None

        @seqrpc.method
        def remember(self) -> None:
            import threading

            self.thread = threading.current_thread()

    service = Plain()
    async with on_a_pair(service) as connection:
        await connection.call("Plain.remember")
    await asyncio.to_thread(service.thread.join, PATIENCE)
    assert not service.thread.is_alive()
