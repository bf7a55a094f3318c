"""What a server tells of itself, to whom, and that it is bounded."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest
from support.daemons import Stage, as_user, needs_root, on_a_pair, raw_client
from support.processes import OTHER_UID
from support.waiting import comes_true

import seqrpc
from seqrpc.aio.accounts import CONNECTIONS
from seqrpc.aio.server import hub_of
from seqrpc.interface import stats as shape
from seqrpc.interface.stats import Statistics, Stats


class Oops(seqrpc.RpcError, code="stats.Oops"):
    pass


class Object(seqrpc.Service):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @seqrpc.method
    async def hold(self) -> None:
        self.stage.reach("object held")
        await self.stage.wait("go")


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def fail(self) -> None:
        raise Oops("no")

    @seqrpc.method
    async def hold(self) -> None:
        self.stage.reach("held")
        await self.stage.wait("go")

    @seqrpc.method
    async def object(self) -> Object:
        return Object(self.stage)

    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        for number in range(10_000):
            yield number

    @seqrpc.method
    async def break_off(self, at: int) -> AsyncIterator[int]:
        for number in range(at):
            yield number
        raise Oops("that was it")

    @seqrpc.method
    async def broken_within(self) -> dict[str, AsyncIterator[int]]:
        return {"stream": self.break_off(1)}

    @seqrpc.method
    async def large(self) -> bytes:
        return bytes(60_000)

    @seqrpc.method(allow=seqrpc.policy.uid(12_345))
    async def secret(self) -> None:
        pass


async def ask(connection: seqrpc.Connection) -> Stats:
    return await connection.proxy(Statistics).stats()


async def test_it_tells_what_was_called_and_how_it_ended() -> None:
    async with on_a_pair(Work()) as connection:
        for _ in range(3):
            await connection.call("Work.add", 1, 2)
        await connection.call("rpc.ping")
        for method, arguments in (("Work.add", ["x", 1]), ("Work.fail", []), ("Work.secret", []), ("No.such", [])):
            with pytest.raises(seqrpc.RpcError):
                await connection.call(method, *arguments)
        stats = await ask(connection)
    add, fail = stats.methods["Work.add"], stats.methods["Work.fail"]
    assert (add.calls, add.refused, add.errors) == (4, 1, {"rpc.InvalidParams": 1})
    assert (sum(add.latency), len(add.latency)) == (3, len(stats.latency_bounds) + 1)
    assert 0 < add.seconds < 3 * 60
    assert (fail.calls, fail.refused, fail.errors) == (1, 0, {"stats.Oops": 1})
    assert stats.methods["rpc.ping"].calls == 1
    assert stats.methods["Work.secret"].errors == {"rpc.PermissionDenied": 1}
    assert (stats.others.calls, stats.others.errors) == (1, {"rpc.MethodNotFound": 1})
    assert stats.refusals == {"rpc.InvalidParams": 1, "rpc.PermissionDenied": 1, "rpc.MethodNotFound": 1}


async def test_it_tells_who_is_connected_and_what_runs(socket_path: Path) -> None:
    service = Work()
    async with seqrpc.serve(service, socket_path) as server, seqrpc.connect(socket_path) as connection:
        object_of = await connection.proxy(Work).object()
        stream = connection.proxy(Work).count()
        assert await anext(stream) == 0
        holding = [asyncio.ensure_future(connection.call("Work.hold")), asyncio.ensure_future(object_of.hold())]
        await service.stage.wait("held")
        await service.stage.wait("object held")
        stats = await ask(connection)
        (told,) = stats.connections
        assert (told.pid, told.uid, told.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert [call.method for call in told.calls] == ["Work.hold", "rpc.stats"]
        assert told.calls[0].age >= told.calls[1].age >= 0
        assert stats.uptime >= told.age >= told.calls[0].age
        assert (told.calls_in_flight, stats.calls_in_flight) == (2, 3)
        assert [call.method for call in stats.object_calls] == ["Object.hold"]
        assert (stats.streams, stats.objects) == (1, 1)
        assert (stats.connections_open, stats.connections_made, stats.connections_refused) == (1, 1, {})
        assert (stats.version, stats.pid, stats.is_stopping) == (seqrpc.__version__, os.getpid(), False)
        service.stage.reach("go")
        await asyncio.gather(*holding)
        assert server.stats().methods["Object.hold"].calls == 1
        await stream.aclose()
        await object_of.close()


async def test_it_tells_what_waits_for_those_who_do_not_read(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with raw_client(socket_path) as client:
            for number in range(100):
                client.sock.setblocking(True)
                client.sock.send(msgpack.packb([0, number, "Work.large", []]))
                if number % 10 == 9:
                    await asyncio.sleep(0)
                    if server.stats().unsent_packets:
                        break
            await comes_true(lambda: server.stats().unsent_bytes)
            stats = server.stats()
            (told,) = stats.connections
            assert told.unsent_bytes == stats.unsent_bytes > 0
            assert told.unsent_packets == stats.unsent_packets > 0


async def test_it_tells_of_connections_that_were_refused_or_broke_the_protocol(socket_path: Path) -> None:
    limits = seqrpc.Limits(max_connections=1)
    async with seqrpc.serve(Work(), socket_path, limits=limits) as server:
        with raw_client(socket_path) as client:
            await client.send(3, 7)  # a CANCEL of nothing
            with raw_client(socket_path) as second:
                assert (await second.receive())[0] == 5
            client.sock.send(b"\xc1")
            assert (await client.receive())[0] == 5
            assert await client.receive() is None
        await comes_true(lambda: not server.connections)
        stats = server.stats()
        assert (stats.connections_refused, stats.connections_malformed) == ({"user": 1}, 1)
        server.refuse_new()
        assert server.stats().is_stopping


async def test_it_tells_of_users_who_have_too_many_connections_and_of_failures_to_accept(
    socket_path: Path,
) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        hub = hub_of(server)
        account = hub.ledger.account_of(os.geteuid())
        account.book(CONNECTIONS, 4096)
        with raw_client(socket_path) as client:
            assert (await client.receive())[0] == 5
        listener = hub._listener
        assert listener is not None
        listener._back_off(OSError(errno.EMFILE, "too many"))  # type: ignore[attr-defined] # it is one of ours
        stats = server.stats()
        assert stats.connections_refused == {"user": 1}
        assert stats.accept_failures == 1
        hub._draining = True
        listener.accept_connections()
        with raw_client(socket_path) as client:
            assert (await client.receive())[0] == 5
        assert server.stats().connections_refused == {"user": 1, "stopping": 1}
        hub._draining = False
        account.release(CONNECTIONS, 4096)
        other = hub.ledger.account_of(None)
        other.book(CONNECTIONS, 4096)
        listener.accept_connections()
        with raw_client(socket_path) as client:
            assert (await client.receive())[0] == 5
        assert server.stats().connections_refused["full"] == 1
        other.release(CONNECTIONS, 4096)


async def test_what_is_listed_is_bounded_and_those_with_most_to_do_come_first(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqrpc.aio.stats.MOST_LISTED", 2)
    service = Work()
    async with (
        seqrpc.serve(service, socket_path) as server,
        seqrpc.connect(socket_path) as idle,
        seqrpc.connect(socket_path) as busy,
    ):
        holding = [asyncio.ensure_future(busy.call("Work.hold")) for _ in range(40)]
        await service.stage.wait("held")
        async with seqrpc.connect(socket_path) as third:
            await third.call("rpc.ping")
            await comes_true(lambda: server.stats().calls_in_flight == 40)
            stats = server.stats()
            assert stats.connections_open == 3
            assert [(told.calls_in_flight, len(told.calls)) for told in stats.connections] == [(40, 2), (0, 0)]
            monkeypatch.undo()
            assert [len(told.calls) for told in server.stats().connections] == [shape.MOST_CALLS_OF_ONE, 0, 0]
        service.stage.reach("go")
        await asyncio.gather(*holding)
        assert await idle.call("Work.add", 1, 1) == 2


async def test_what_each_user_holds_is_told() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Work(), sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        held = {"connections": 1, "calls": 1, "request_bytes": 0, "unsent_bytes": 0, "living_values": 0}
        told = {**held, "descriptors": 1, "descriptors_in_flight": 0}
        assert (await ask(connection)).accounts == {str(os.geteuid()): told}
        account = hub_of(server).ledger.account_of(None)
        assert (await ask(connection)).accounts["unknown"] == dict.fromkeys(told, 0)
        assert account.uid is None
        hub_of(server).oversight.accounts = None
        assert (await ask(connection)).accounts == {}
        assert [(told.pid, told.uid) for told in server.stats().connections] == [(None, os.geteuid())]


async def test_streams_that_end_with_an_error_are_counted_and_no_others() -> None:
    async with on_a_pair(Work()) as connection:
        proxy = connection.proxy(Work)
        for at in (0, 1, 1_000):
            with pytest.raises(Oops):
                assert [number async for number in proxy.break_off(at)] == []
        with pytest.raises(Oops):
            async for _number in (await proxy.broken_within())["stream"]:
                pass
        assert len([number async for number in proxy.count()]) == 10_000
        async with proxy.break_off(10**9) as given_up:
            assert await anext(given_up) == 0
        methods = (await ask(connection)).methods
        assert methods["Work.break_off"].stream_errors == {"stats.Oops": 3}
        assert methods["Work.break_off"].errors == {}
        assert methods["Work.broken_within"].stream_errors == {"stats.Oops": 1}
        assert methods["Work.count"].stream_errors == {}


@needs_root
async def test_another_user_does_not_learn_it(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    async with seqrpc.serve(Work(), socket_path, mode=0o666, allow=seqrpc.policy.anyone) as server:
        program = "show([ask(connected(argv[0]), 0, 1, name, [])[0] for name in ('rpc.stats', 'rpc.ping')])"
        (refused, pinged) = await as_user(program, socket_path, uid=OTHER_UID)
        assert (refused[0], pinged) == ("rpc.PermissionDenied", None)
        assert server.stats().methods["rpc.stats"].errors == {"rpc.PermissionDenied": 1}


async def test_there_is_none_of_objects_and_of_clients() -> None:
    async with on_a_pair(Work()) as connection:
        object_of = await connection.call("Work.object")
        with pytest.raises(seqrpc.MethodNotFound):
            await object_of.call("rpc.stats")
        await object_of.close()


async def test_a_server_that_is_another_process_tells_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        async with seqrpc.serve(Work(), sock=theirs) as server:
            hub_of(server)._forked = True
            with pytest.raises(seqrpc.WrongProcess):
                server.stats()
            hub_of(server)._forked = False
