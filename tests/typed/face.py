"""Every way to use the face, and some in which it cannot be used; nothing here is run.

mypy --strict and pyright --strict pass it. A line with ``type: ignore`` must be an error in both of them: each
complains of an ignore that nothing needs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, assert_type

import seqrpc
from seqrpc import policy


class Calculator(seqrpc.Service, name="org.example.Calculator", allow=policy.same_user | policy.root):
    """A service."""

    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @seqrpc.method(allow=policy.group("adm") & ~policy.uid(5))
    async def open(self, name: str) -> seqrpc.OwnedFd:
        raise seqrpc.MethodNotFound(name)

    @seqrpc.method(oneway=True)
    async def tell(self, text: str) -> None:
        assert_type(seqrpc.current_call(), seqrpc.CurrentCall)

    @seqrpc.method(allow=lambda caller: caller.uid == 5)
    def in_a_thread(self, value: bytes) -> bytes:
        return value


class Interface:
    """An interface without its implementation."""

    async def add(self, a: int, b: int = 1) -> int:
        raise NotImplementedError


class InsufficientFunds(seqrpc.RpcError, code="bank.InsufficientFunds"):
    """An error of one's own."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} are missing", {"missing": missing})


def admits(caller: seqrpc.Credentials) -> bool:
    assert_type(caller.groups, tuple[int, ...] | None)
    return caller.uid is not None


async def decorated_functions_keep_their_type(calculator: Calculator) -> None:
    assert_type(await calculator.add(1, b=2), int)
    assert_type(await calculator.in_a_thread(b""), bytes)
    await calculator.add("1")  # type: ignore[arg-type]


async def serve_in_every_way(path: Path, sock: socket.socket) -> None:
    async with seqrpc.serve(Calculator(), path) as server:
        assert_type(server, seqrpc.Server)
        assert_type(server.connections, frozenset[seqrpc.Connection])
        assert_type(await server.drain(), bool)
        await server.drain(1.5)
        await server.close()
        await server.wait_closed()
    async with seqrpc.serve([Calculator(), Calculator()], "@name", allow=admits, accept_descriptors=False):
        pass
    async with await seqrpc.serve((Calculator(),), b"@name", mode=0o660, group="adm", backlog=5):
        pass
    assert_type(await seqrpc.serve(Calculator(), sock=sock, limits=seqrpc.Limits(max_connections=5)), seqrpc.Server)
    seqrpc.serve(Calculator(), path, interceptors=(Look(), seqrpc.Interceptor()))
    seqrpc.serve(5, path)  # type: ignore[arg-type]


async def serve_in_no_way(path: Path, sock: socket.socket) -> None:
    seqrpc.serve(Calculator, path)  # type: ignore[arg-type]
    seqrpc.serve([Calculator(), 5], path)  # type: ignore[list-item]
    seqrpc.serve(Calculator(), path, mode="660")  # type: ignore[arg-type]
    seqrpc.serve(Calculator(), path, allow="root")  # type: ignore[arg-type]
    seqrpc.serve(Calculator(), path, allow=policy.group)  # type: ignore[arg-type]
    seqrpc.serve(Calculator(), path, allow=lambda: True)  # type: ignore[arg-type]
    seqrpc.serve(Calculator(), path, limits=5)  # type: ignore[arg-type]
    seqrpc.serve(Calculator(), path, interceptors=Look())  # type: ignore[arg-type]
    seqrpc.serve(Calculator(), path, interceptors=[Look])  # type: ignore[list-item]
    seqrpc.serve(Calculator(), path, sock)  # type: ignore[call-arg]
    seqrpc.serve(Calculator(), path, drain_timeout=5.0)  # type: ignore[call-arg]
    server: seqrpc.Server = seqrpc.serve(Calculator(), path)  # type: ignore[assignment]
    server.close()  # type: ignore[unused-coroutine]
    server.drain()  # type: ignore[unused-coroutine]
    seqrpc.Limits(max_connections="5")  # type: ignore[arg-type]
    seqrpc.Limits(max_everything=5)  # type: ignore[call-arg]


async def connect_in_every_way(path: Path, sock: socket.socket) -> None:
    async with seqrpc.connect(path) as connection:
        assert_type(connection, seqrpc.Connection)
        assert_type(connection.peer, seqrpc.Credentials | None)
        await call_in_every_way(connection)
    connection = await seqrpc.connect("fd:3", server=policy.root | admits, services=Calculator(), allow=policy.anyone)
    await connection.close()
    await seqrpc.connect(sock=sock, services=[Calculator()], interceptors=[Look()], limits=seqrpc.Limits())
    ours, theirs = seqrpc.socket_pair()
    assert_type(ours, socket.socket)
    assert_type(theirs, socket.socket)


async def connect_in_no_way(path: Path) -> None:
    with seqrpc.connect(path):  # type: ignore[attr-defined]
        pass
    connection: seqrpc.Connection = seqrpc.connect(path)  # type: ignore[assignment]
    connection.close()  # type: ignore[unused-coroutine]
    await seqrpc.connect(5)  # type: ignore[arg-type]
    await seqrpc.connect(path, server="root")  # type: ignore[arg-type]
    await seqrpc.connect(path, services=Calculator)  # type: ignore[arg-type]
    await seqrpc.connect(path, mode=0o600)  # type: ignore[call-arg]


async def call_in_every_way(connection: seqrpc.Connection) -> None:
    calculator = connection.proxy(Calculator)
    assert_type(calculator, Calculator)
    assert_type(await calculator.add(1, b=2), int)
    assert_type(await calculator.open("x"), seqrpc.OwnedFd)
    await calculator.tell("x")
    assert_type(await connection.proxy(Interface).add(1), int)
    await calculator.add("1")  # type: ignore[arg-type]
    await calculator.subtract(1)  # type: ignore[attr-defined]
    total: int = await connection.call("Calculator.add", 1, 2)
    total += await connection.call("Calculator.add", a=1, b=2)
    await connection.notify("Calculator.tell", "x")
    async with seqrpc.timeout(0.5), seqrpc.timeout(None):
        with seqrpc.metadata(trace="1"):
            await calculator.add(2, 3)
    try:
        await calculator.add(1)
    except InsufficientFunds as exc:
        assert_type(exc.code, str)
    except seqrpc.DeadlineExceeded as exc:
        raise TimeoutError from exc


async def call_in_no_way(connection: seqrpc.Connection) -> None:
    connection.call("Calculator.add", 1, 2)  # type: ignore[unused-coroutine]
    connection.notify("Calculator.add", 1, 2)  # type: ignore[unused-coroutine]
    await connection.call(Calculator.add, 1, 2)  # type: ignore[arg-type]
    await connection.proxy(Interface).add("1")  # type: ignore[arg-type]
    async with seqrpc.timeout("0.5"):  # type: ignore[arg-type]
        pass
    with seqrpc.metadata(trace=1):  # type: ignore[arg-type]
        pass
    seqrpc.connection  # type: ignore[attr-defined] # noqa: B018


def combine_policies() -> None:
    assert_type(policy.root | policy.uid(5) & ~policy.gid(6), policy.Policy)
    assert_type(policy.hidden(policy.root) | policy.hidden(lambda caller: caller.uid == 5), policy.Policy)
    policy.root | 5  # type: ignore[operator]
    policy.hidden("root")  # type: ignore[arg-type]
    policy.uid("root")  # type: ignore[arg-type]
    policy.group()  # type: ignore[call-arg]


def look_at_a_call() -> None:
    call = seqrpc.current_call()
    assert_type(call.caller, seqrpc.Credentials)
    assert_type(call.connection, seqrpc.Connection)
    assert_type(call.deadline, float | None)
    assert_type(call.meta, Mapping[str, str])
    assert_type(call.method, str)
    assert_type(call.run(asyncio.sleep(0, 1)), int)
    assert_type(call.connection.get_loop(), asyncio.AbstractEventLoop)


class Look(seqrpc.Interceptor):
    """An interceptor that looks at everything that it is told."""

    async def handle(self, call: seqrpc.CurrentCall, proceed: Callable[[], Awaitable[Any]]) -> Any:
        assert_type(call.method, str)
        return await proceed()

    def ended(self, record: seqrpc.CallRecord) -> None:
        assert_type(record.method, str | None)
        assert_type(record.caller, seqrpc.Credentials | None)
        assert_type(record.code, str | None)
        assert_type(record.duration, float)
        assert_type(record.oneway, bool)
        assert_type(record.meta, Mapping[str, str])

    async def request(self, call: seqrpc.OutgoingCall, proceed: Callable[[], Awaitable[Any]]) -> Any:
        assert_type(call.method, str)
        assert_type(call.oneway, bool)
        assert_type(call.deadline, float | None)
        assert_type(call.meta, Mapping[str, str])
        return await proceed()


class Archive(seqrpc.Service):
    """Descriptors."""

    @seqrpc.method
    async def keep(self, file: seqrpc.OwnedFd | None) -> seqrpc.OwnedFd:
        assert file is not None
        return file

    @seqrpc.method
    def size(self, files: list[seqrpc.OwnedFd]) -> int:
        return len(files)

    @seqrpc.method
    async def wrong(self) -> seqrpc.OwnedFd:
        return open("name")  # type: ignore[return-value] # noqa: ASYNC230


async def own_descriptors(connection: seqrpc.Connection, path: Path) -> None:
    archive = connection.proxy(Archive)
    with path.open("rb") as file, seqrpc.OwnedFd.dup(file) as fd:
        assert_type(fd, seqrpc.OwnedFd)
        assert_type(await archive.keep(fd), seqrpc.OwnedFd)
        assert_type(await archive.size([fd]), int)
        assert_type(fd.detach(), int)
        await archive.keep(file)  # type: ignore[arg-type]
        await archive.size([file])  # type: ignore[list-item]
        await archive.keep(file.fileno())  # type: ignore[arg-type]
        await connection.call("Archive.keep", file)
    seqrpc.OwnedFd.dup("name")  # type: ignore[arg-type]


class Packets(seqrpc.SeqpacketProtocol):
    """A protocol of one's own, without the RPC."""

    def packet_received(self, data: bytes, fds: list[seqrpc.OwnedFd], credentials: seqrpc.Credentials | None) -> None:
        super().packet_received(data, fds, credentials)


async def use_the_transport(path: Path) -> None:
    transport, protocol = await seqrpc.create_connection(Packets, path)
    assert_type(transport, seqrpc.SeqpacketTransport)
    assert_type(protocol, Packets)
    server = await seqrpc.create_server(Packets, path)
    assert_type(server, seqrpc.SeqpacketServer)
    abstract: asyncio.AbstractServer = server
    abstract.close()


class Point(TypedDict):
    x: int


class Vault(seqrpc.Service):
    """An object that is given away."""

    @seqrpc.method
    async def look(self) -> int:
        return 1

    async def close(self) -> None:
        """Clean up."""


class Living(seqrpc.Service):
    """Streams, channels and buffers."""

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def doubled(self, points: AsyncIterator[Point]) -> AsyncIterator[Point]:
        async for point in points:
            yield {"x": 2 * point["x"]}

    @seqrpc.method
    async def open(self, callback: Vault | None = None) -> Vault:
        if callback is not None:
            assert_type(await callback.look(), int)
        return Vault()

    @seqrpc.method
    async def fill(self, content: seqrpc.Buffer, view: memoryview) -> seqrpc.Buffer:
        assert_type(content.sealed, bool)
        content[0] = view[0]
        return content

    @seqrpc.method
    async def largest(self, content: seqrpc.BytesLike, other: seqrpc.BytesLike | None = None) -> int:
        assert_type(memoryview(content), memoryview[int])
        return max(memoryview(content))


async def points() -> AsyncIterator[Point]:
    yield {"x": 1}


async def use_living_values(connection: seqrpc.Connection) -> None:
    living = connection.proxy(Living)
    async for number in living.count(5):
        assert_type(number, int)
    async for point in living.doubled(points()):
        assert_type(point, Point)
    await living.count(5).aclose()
    living.doubled([{"x": 1}])  # type: ignore[arg-type]
    living.doubled(living.count(5))  # type: ignore[arg-type]
    vault = await living.open(Vault())
    assert_type(vault, Vault)
    assert_type(await vault.look(), int)
    await vault.close()
    await seqrpc.revoke(vault)
    await living.open(Calculator())  # type: ignore[arg-type]
    await seqrpc.revoke(5)  # type: ignore[arg-type]
    channel: seqrpc.Channel = await connection.call("Living.open")
    assert_type(channel.proxy(Vault), Vault)
    assert_type(channel.closed, bool)
    await channel.notify("Vault.look")
    await channel.close()
    await channel.wait_closed()
    buffer = seqrpc.Buffer.allocate(5)
    assert_type(buffer, seqrpc.Buffer)
    assert_type(await living.fill(buffer, memoryview(b"x")), seqrpc.Buffer)
    with seqrpc.Buffer.copy_of(b"abc") as copy:
        assert_type(copy, seqrpc.Buffer)
        for content in (b"abc", bytearray(b"abc"), memoryview(b"abc"), copy):
            assert_type(await living.largest(content), int)
    await living.largest("abc")  # type: ignore[arg-type]
    await living.fill(b"abc", memoryview(b"x"))  # type: ignore[arg-type]


async def reload(server: seqrpc.Server) -> None:
    await server.drain()


def be_a_daemon(path: Path, sock: socket.socket) -> None:
    seqrpc.run(Calculator(), path, drain_timeout=5.0, mode=0o660)
    seqrpc.run([Calculator()], sock=sock, on_start=lambda server: server.refuse_new(), on_reload=reload)
    seqrpc.run(
        Calculator(),
        path,
        allow=policy.anyone,
        group="adm",
        backlog=5,
        accept_descriptors=False,
        pass_credentials=True,
        interceptors=[Look()],
        limits=seqrpc.Limits(),
    )
    seqrpc.run(Calculator, path)  # type: ignore[arg-type]
    seqrpc.run(Calculator(), path, mode="660")  # type: ignore[arg-type]
    seqrpc.run(Calculator(), path, groups="adm")  # type: ignore[call-arg]
    seqrpc.run(Calculator(), path, on_start=5)  # type: ignore[arg-type]
    seqrpc.run(Calculator(), path, allow=reload)  # type: ignore[arg-type]
