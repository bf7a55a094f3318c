"""What one call sets in its context is seen by no other, whatever it leaves on the loop, however late it is read."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from support.packets import raw_pair, receive, unwire, wire
from support.transport import Recorder, queue_one
from support.waiting import PATIENCE, comes_true, turns_of_the_loop
from support.workers import Desk

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.listener import Listener
from seqrpc.aio.transport import carrier_of
from seqrpc.kernel.addresses import parse_address
from seqrpc.kernel.listening import listen
from seqrpc.limits import DEFAULT_LIMITS

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")

MANY = 40
"""Answers of 60 kB, of which the kernel does not keep half for a peer that does not read."""


class Room(seqrpc.Service):
    """Has things that can be looked at."""

    def __init__(self) -> None:
        self.shared = Thing()

    @seqrpc.method
    async def big(self, who: str) -> bytes:
        WHO.set(who)
        return b"x" * 60_000

    @seqrpc.method
    async def who(self) -> str:
        return WHO.get()

    @seqrpc.method
    async def thing(self, who: str) -> Thing:
        WHO.set(who)
        return Thing()

    @seqrpc.method
    async def same_thing(self, who: str) -> Thing:
        WHO.set(who)
        return self.shared

    @seqrpc.method
    async def thing_of_caller(self, who: str, thing: Thing) -> str:
        WHO.set(who)
        return await thing.who()


class Thing(seqrpc.Service):
    @seqrpc.method
    async def who(self) -> str:
        return WHO.get()


@contextmanager
def set_to(who: str) -> Iterator[None]:
    token = WHO.set(who)
    yield
    WHO.reset(token)


async def ask(peer: socket.socket, number: int, method: str) -> object:
    peer.send(wire(0, number, f"Room.{method}", []))
    async with asyncio.timeout(PATIENCE):
        while True:
            message = unwire(await receive(peer))
            if message[:2] == [1, number]:
                return message[3]


async def read_late(peer: socket.socket, server: seqrpc.Server) -> None:
    """Make calls whose answers have to wait, and read them."""
    (connection,) = server.connections
    for number in range(MANY):
        peer.send(wire(0, number, "Room.big", [f"caller {number}"]))
        await turns_of_the_loop(3)
    await comes_true(link_of(connection).transport.get_write_buffer_packets)
    assert await ask(peer, MANY, "who") == "nobody"  # it comes after all of them


@asynccontextmanager
async def room() -> AsyncIterator[tuple[seqrpc.Server, socket.socket]]:
    ours, theirs = raw_pair()
    with theirs:
        async with seqrpc.serve(Room(), sock=ours) as server:
            yield server, theirs


async def test_answers_that_wait_leave_nothing_to_later_calls() -> None:
    async with room() as (server, peer):
        await read_late(peer, server)
        assert [await ask(peer, number, "who") for number in range(50, 53)] == ["nobody"] * 3


async def test_what_the_program_had_set_is_seen_by_all() -> None:
    with set_to("the program"):
        ours, theirs = raw_pair()
        server = await seqrpc.serve(Room(), sock=ours)
    with theirs:
        WHO.set("the program, later")
        assert await ask(theirs, 1, "who") == "the program"
    await server.close()


async def test_what_is_logged_between_calls_is_of_no_call() -> None:
    seen = []

    class Looks(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            try:
                seen.append(seqrpc.current_call().method)
            except LookupError:
                seen.append("no call")
            return False

    logger, looks = logging.getLogger("seqrpc.dispatch"), Looks()
    level = logger.level
    logger.addFilter(looks)
    logger.setLevel(logging.DEBUG)
    try:
        async with room() as (server, peer):
            await read_late(peer, server)
            seen.clear()
            peer.send(wire(2, "Room.no_such_method", []))
            await comes_true(lambda: seen)
    finally:
        logger.removeFilter(looks)
        logger.setLevel(level)
    assert seen == ["no call"]


async def test_methods_of_an_object_see_nothing_of_the_call_that_returned_it() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Room(), sock=ours), seqrpc.connect(sock=theirs) as connection:
        proxy = connection.proxy(Room)
        for method in (proxy.thing, proxy.same_thing):
            things = [await method("alice"), await method("bob")]
            assert [await thing.who() for thing in things] == ["nobody"] * 2


async def test_objects_that_are_passed_see_nothing_of_the_call_that_took_them() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Room(), sock=ours), seqrpc.connect(sock=theirs) as connection:
        proxy, thing = connection.proxy(Room), Thing()
        with set_to("the caller"):
            assert await proxy.thing_of_caller("alice", thing) == "nobody"


async def test_a_connection_that_is_made_anew_is_in_the_context_that_the_first_was_in(socket_path: Path) -> None:
    class Asks(seqrpc.Service):
        @seqrpc.method
        async def back(self) -> str:
            answer: str = await seqrpc.current_call().connection.call("Thing.who")
            return answer

    hooked = []
    reconnect = seqrpc.Reconnect(on_reconnect=lambda _connection: hooked.append(WHO.get()))
    server = await seqrpc.serve(Asks(), socket_path)
    async with seqrpc.connect(socket_path, reconnect=reconnect, services=[Thing()]) as connection:
        assert await connection.call("Asks.back") == "nobody"
        await server.close()
        server = await seqrpc.serve(Asks(), socket_path)
        with set_to("the caller"):
            assert await connection.call("Asks.back") == "nobody"
    await server.close()
    assert hooked == ["nobody"]


async def test_what_a_child_asks_sees_nothing_of_the_call_that_had_its_worker_replaced() -> None:
    class Hears(seqrpc.Service, name="Parent"):
        @seqrpc.method
        async def hear(self, text: str) -> int:
            heard.append(f"{text}: {WHO.get()}")
            return 0

    heard: list[str] = []
    async with seqrpc.WorkerPool(Desk, size=1, max_calls=1, serve=Hears()) as pool:
        for number in range(3):
            before = pool.pids
            with set_to("the caller"):
                await pool.proxy(Desk).tell(str(number))
            await comes_true(lambda: len(pool.pids) == 1 and pool.pids != before)  # noqa: B023 - at once
    assert heard == ["0: nobody", "1: nobody", "2: nobody"]


# Below the calls


class Watching(Recorder):
    """Remembers in whose context it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def tell(self, what: str) -> None:
        self.seen.append((what, WHO.get()))
        super().tell(what)

    def packet_received(self, *args: object) -> None:
        self.seen.append(("packet", WHO.get()))
        super().packet_received(*args)  # type: ignore[arg-type]


async def test_a_protocol_is_told_everything_in_the_context_that_its_connection_was_made_in() -> None:
    ours, theirs = raw_pair()
    protocol = Watching()
    with theirs:
        with set_to("its maker"):
            transport = open_transport(ours, protocol, DEFAULT_LIMITS)
        with set_to("another"):
            transport.pause_reading()
            transport.resume_reading()
            queue_one(transport)
            while "paused" not in protocol.told:
                transport.send_packet(b"x" * 10_000)
        theirs.send(b"packet")
        await protocol.until_packets(1)
        await receive(theirs)
        while "resumed" not in protocol.told:
            await receive(theirs)
        with set_to("another"):
            transport.abort()
        await protocol.until_told("lost")
    told = {what: who for what, who in protocol.seen if what != "paused"}  # by whoever sent too much
    assert told == {"made": "its maker", "packet": "its maker", "resumed": "its maker", "lost": "its maker"}


async def test_a_finalizer_may_end_a_connection_while_the_loop_is_asked_to_watch_it() -> None:
    """Garbage is collected wherever memory is asked for, also in ``add_reader``, which is called in that context."""
    ours, theirs = raw_pair()
    protocol = Watching()
    with theirs:
        transport = open_transport(ours, protocol, DEFAULT_LIMITS)
        transport.pause_reading()
        carrier_of(transport).intake.context.run(transport.resume_reading)
        carrier_of(transport).intake.context.run(transport.abort)
        await protocol.until_told("lost")


async def test_a_listener_accepts_in_the_context_that_it_was_made_in(socket_path: Path) -> None:
    protocols: list[Watching] = []

    def new_protocol() -> Watching:
        protocols.append(Watching())
        return protocols[-1]

    with set_to("its maker"):
        listener = Listener(asyncio.get_running_loop(), listen(parse_address(socket_path)), new_protocol)
    with set_to("another"):
        listener.accept_connections()
        listener.pause_accepting()
        listener.accept_connections()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(socket_path))
        await comes_true(lambda: protocols and protocols[0].told)
    await protocols[0].until_told("lost")
    listener.close()
    assert protocols[0].seen[0] == ("made", "its maker")
    assert protocols[0].seen[-1] == ("lost", "its maker")
