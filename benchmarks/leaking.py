"""The kinds of calls after which nothing may be left: how one of each is made."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import seqrpc
from seqrpc import Connection, OwnedFd, RpcError

_RAW_AT_ONCE = 8  # packets of a raw end, which count as so many calls
_GO_WITHIN = 30.0  # seconds


class Overdrawn(RpcError, code="leaking.Overdrawn"):
    """An error of the service's own."""


@dataclass
class Point:
    """An argument that is converted."""

    x: int
    y: float


def _nobody(_caller: seqrpc.Credentials) -> bool:
    return False


class Leaking(seqrpc.Service):
    """Has a method for each kind of call."""

    @seqrpc.method
    async def add(self, one: int, two: int) -> int:
        return one + two

    @seqrpc.method
    async def echo(self, value: Any) -> Any:
        return value

    @seqrpc.method
    async def turns(self, number: int) -> int:
        for _ in range(number):
            await asyncio.sleep(0)
        return number

    @seqrpc.method
    async def waits(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        loop.call_soon(waiter.set_result, None)
        await waiter

    @seqrpc.method
    async def stays(self) -> None:
        await asyncio.get_running_loop().create_future()

    @seqrpc.method
    async def fails(self, number: int) -> int:
        if number % 2:
            raise Overdrawn("as it is meant", {"held": number})
        raise LookupError("not foreseen")

    @seqrpc.method
    async def gives(self, number: int) -> int:
        wrong: list[Any] = ["text", None, 2**70, object(), {1}]
        return wrong[number % len(wrong)]  # type: ignore[no-any-return] # it does not fit, and is not to

    @seqrpc.method(allow=_nobody)
    async def refuses(self, value: Any) -> None:
        raise AssertionError(f"nobody gets here with {value!r}")

    @seqrpc.method
    async def point(self, point: Point) -> Point:
        return point

    @seqrpc.method
    async def secret(self, word: Annotated[str, seqrpc.SENSITIVE]) -> int:
        return len(word)

    @seqrpc.method
    async def descriptor(self, fd: OwnedFd) -> OwnedFd:
        return OwnedFd(fd.detach())

    @seqrpc.method(oneway=True)
    async def tell(self, value: Any) -> None:  # noqa: ARG002 - it is let go
        return None

    @seqrpc.method
    async def back(self, number: int) -> Any:
        return await seqrpc.current_call().connection.call("Leaking.add", number, 1)

    @seqrpc.method
    def thread(self, number: int) -> int:
        return number

    @seqrpc.method
    async def stream(self, number: int) -> AsyncIterator[int]:
        for item in range(number):
            yield item


class Ends:
    """What the calls are made with: a server, a client, and raw ends of both."""

    def __init__(
        self, path: Path, connection: Connection, raw: socket.socket, answered: Connection, peer: socket.socket
    ) -> None:
        self.path = path
        self.connection = connection
        """The client, which serves the same, too."""
        self.proxy = connection.proxy(Leaking)
        self.raw = raw
        """A raw end at the server."""
        self.answered = answered
        """Another client, whose other end is raw: ``peer``."""
        self.peer = peer
        self.null = OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    async def receive(self, sock: socket.socket) -> bytes:
        """Return the next packet of a raw end."""
        async with asyncio.timeout(_GO_WITHIN):
            return await asyncio.get_running_loop().sock_recv(sock, 65_536)

    def connected(self) -> socket.socket:
        """Return a raw end at the server."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        sock.connect(os.fspath(self.path))
        return sock


@asynccontextmanager
async def ends(path: Path) -> AsyncIterator[Ends]:
    """Return all of it, closed afterwards."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(seqrpc.serve(Leaking(), path))
        connection = await stack.enter_async_context(seqrpc.connect(path, services=Leaking()))
        await connection.call("rpc.ping")
        ours, peer = seqrpc.socket_pair()
        peer.setblocking(False)
        stack.callback(peer.close)
        answered = await stack.enter_async_context(seqrpc.connect(sock=ours))
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        raw.setblocking(False)
        stack.callback(raw.close)
        raw.connect(os.fspath(path))
        made = Ends(path, connection, raw, answered, peer)
        stack.callback(made.null.close)
        yield made


async def _failing(calling: Awaitable[Any], error: type[BaseException] = RpcError) -> None:
    try:
        await calling
    except error:
        return
    raise AssertionError("a call did not fail")


async def _lone(ends: Ends, number: int) -> None:
    assert await ends.proxy.add(number, 1) == number + 1


async def _echo(ends: Ends, number: int) -> None:
    value = [number, {"a": [number, "text", 1.5, None, True], "b": b"bytes" * 3}, "x" * (number % 60)]
    assert await ends.connection.call("Leaking.echo", value) == value


async def _deadline(ends: Ends, number: int) -> None:
    async with seqrpc.timeout(60):
        await ends.proxy.add(number, 1)


async def _metadata(ends: Ends, number: int) -> None:
    with seqrpc.metadata(trace="1"):
        await ends.proxy.add(number, 1)


async def _late(ends: Ends, number: int) -> None:
    async with seqrpc.timeout((0, 0.0001)[number % 2]):
        await ends.proxy.stays()


async def _descriptor(ends: Ends, _number: int) -> None:
    (await ends.proxy.descriptor(ends.null)).close()


async def _cancelled(ends: Ends, number: int) -> None:
    calling = asyncio.get_running_loop().create_task(ends.connection.call("Leaking.stays"))
    for _ in range(number % 5):
        await asyncio.sleep(0)
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling


async def _notify(ends: Ends, number: int) -> None:
    await ends.proxy.tell([number])
    if number % 16 == 0:  # it is read meanwhile
        await ends.connection.call("rpc.ping")


async def _stream(ends: Ends, _number: int) -> None:
    assert [item async for item in ends.proxy.stream(3)] == [0, 1, 2]


async def _connection(ends: Ends, _number: int) -> None:
    async with seqrpc.connect(ends.path) as connection:
        await connection.call("Leaking.add", 1, 2)


async def _gone(ends: Ends, _number: int) -> None:
    with ends.connected() as sock:
        sock.send(b"\x94\x00\x01\xadLeaking.stays\x90")
        sock.send(b"\x94\x00\x02\xabLeaking.add\x92\x01\x02")
        assert await ends.receive(sock) == b"\x94\x01\x02\xc0\x03"
    await ends.connection.call("rpc.ping")


_MALFORMED = [
    b"\xc1", b"\x94\x00\x01\xabLeaking.add\x92\x01", b"\x94\x00\xc3\xabLeaking.add\x92\x01\x02",
    b"\x94\x00\x01\xa1\xff\x90",
    b"\x94\x01\x01\x01\xc0", b"\x95\x00\x01\xabLeaking.add\x92\x01\x02\x05", b"\x91" * 70 + b"\xc0",
    b"\x94\x00\x01\xabLeaking.add\x92\x01\x02\x00",
]  # fmt: skip


async def _malformed(ends: Ends, number: int) -> None:
    with ends.connected() as sock:
        sock.send(_MALFORMED[number % len(_MALFORMED)])
        while await ends.receive(sock):
            pass


_RAW = [
    (b"\x94\x00%c\xabLeaking.add\x92\x01\x02", b"\x94\x01%c\xc0\x03"),
    (b"\x94\x00%c\xabLeaking.add\x92\xcd\x00\x01\xd3\x00\x00\x00\x00\x00\x00\x00\x02", b"\x94\x01%c\xc0\x03"),
    (b"\xdc\x00\x04\x00%c\xd9\x0bLeaking.add\xdc\x00\x02\x01\x02", b"\x94\x01%c\xc0\x03"),
    (b"\x94\x00%c\xacLeaking.echo\x91\xca\x3f\x80\x00\x00", b"\x94\x01%c\xc0\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
    (b"\x94\x00%c\xadLeaking.turns\x91\x02", b"\x94\x01%c\xc0\x02"),
    (b"\x94\x00%c\xa8rpc.ping\x90", b"\x94\x01%c\xc0\xc0"),
    (b"\x94\x00%c\xacLeaking.echo\x91\x81\xa1a\xc4\x01b", b"\x94\x01%c\xc0\x81\xa1a\xc4\x01b"),
    (b"\x94\x00%c\xacLeaking.echo\x91\xd9\x01a", b"\x94\x01%c\xc0\xa1a"),
]


async def _raw(ends: Ends, _number: int) -> None:
    """Have several packets taken in one turn."""
    for place, (request, _answer) in enumerate(_RAW):
        ends.raw.send(request % place)
    expected = {answer % place for place, (_request, answer) in enumerate(_RAW)}
    got = {await ends.receive(ends.raw) for _ in _RAW}
    assert got == expected, (got, expected)


async def _answers(ends: Ends, _number: int) -> None:
    """Have several answers taken in one turn: results, an error, one that comes twice, some to nothing."""
    loop = asyncio.get_running_loop()
    calls = [loop.create_task(ends.answered.call("m", place)) for place in range(_RAW_AT_ONCE - 1)]
    given_up = loop.create_task(ends.answered.call("m", 0))
    ids = []
    for _ in range(_RAW_AT_ONCE):
        packet = await ends.receive(ends.peer)
        assert packet[:2] == b"\x94\x00"
        ids.append(packet[2 : -len(b"\xa1m\x91\x00")])
    given_up.cancel()
    assert (await ends.receive(ends.peer))[:2] == b"\x92\x03"
    for call_id in (*ids[:-2], ids[0]):
        ends.peer.send(b"\x94\x01" + call_id + b"\xc0\x93\x01\xcd\x00\x05\xa1a")
    ends.peer.send(b"\x94\x01" + ids[-2] + b"\x93\xa3a.b\xa1x\xc0\xc0")
    ends.peer.send(b"\x94\x01" + ids[-1] + b"\xc0\xc0")  # late
    ends.peer.send(b"\x94\x01\xce\xff\xff\xff\xff\xc0\xc0")
    for call in calls[:-1]:
        assert await call == [1, 5, "a"]
    await _failing(calls[-1])
    with suppress(asyncio.CancelledError):
        await given_up


@dataclass(frozen=True)
class Kind:
    """A kind of calls."""

    call: Callable[[Ends, int], Awaitable[Any]]
    at_once: int = 64
    counts: int = 1
    """How many calls one is."""

    share: float = 1.0
    """How many of them are made, of the number that is asked for: some take long."""


KINDS = {
    "lone": Kind(_lone, at_once=1),
    "in flight": Kind(_lone),
    "by name": Kind(lambda ends, number: ends.connection.call("Leaking.add", one=number, two=1)),
    "values": Kind(_echo),
    "handlers that turn": Kind(lambda ends, number: ends.proxy.turns(number % 4)),
    "handlers that wait": Kind(lambda ends, _number: ends.proxy.waits()),
    "handlers that raise": Kind(lambda ends, number: _failing(ends.proxy.fails(number))),
    "results that do not fit": Kind(lambda ends, number: _failing(ends.proxy.gives(number))),
    "refused by policy": Kind(lambda ends, number: _failing(ends.proxy.refuses(number), seqrpc.PermissionDenied)),
    "unknown methods": Kind(
        lambda ends, _number: _failing(ends.connection.call("Leaking.none"), seqrpc.MethodNotFound)
    ),
    "arguments that do not fit": Kind(
        lambda ends, number: _failing(ends.connection.call("Leaking.add", "1", number), seqrpc.InvalidParams)
    ),
    "what cannot be sent": Kind(
        lambda ends, number: _failing(ends.connection.call("Leaking.add", number, object()), seqrpc.LocalProtocolError)
    ),
    "dataclasses": Kind(lambda ends, number: ends.proxy.point(Point(number, 0.5))),
    "sensitive": Kind(lambda ends, _number: ends.proxy.secret("word")),
    "300 characters": Kind(lambda ends, _number: ends.connection.call("Leaking.echo", "x" * 300)),
    "100 kB": Kind(lambda ends, _number: ends.connection.call("Leaking.echo", b"x" * 100_000), at_once=4, share=0.05),
    "deadlines": Kind(_deadline),
    "deadlines that pass": Kind(lambda ends, number: _failing(_late(ends, number), seqrpc.DeadlineExceeded), share=0.3),
    "metadata": Kind(_metadata),
    "descriptors": Kind(_descriptor, share=0.5),
    "cancelled": Kind(_cancelled),
    "one-way": Kind(_notify),
    "calls back": Kind(lambda ends, number: ends.proxy.back(number), share=0.5),
    "threads": Kind(lambda ends, number: ends.proxy.thread(number), share=0.2),
    "streams": Kind(_stream, at_once=8, share=0.1),
    "raw packets": Kind(_raw, at_once=1, counts=len(_RAW)),
    "raw answers": Kind(_answers, at_once=1, counts=_RAW_AT_ONCE),
    "malformed": Kind(_malformed, at_once=8, share=0.1),
    "connections": Kind(_connection, at_once=8, share=0.1),
    "callers that go": Kind(_gone, at_once=8, share=0.1),
}
