"""Requests that bring descriptors, or have a deadline: the same comes of them on either twin's way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import RawClient, needs_root, raw_client
from support.descriptors import open_fds
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.aio.link import Link
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import sender_of
from seqrpc.kernel.linux import SCM_CREDENTIALS

REFERENCE = [msgpack.ExtType(1, bytes([index])) for index in range(16)]


class Desk(seqrpc.Service):
    """Takes descriptors."""

    def __init__(self) -> None:
        self.waiting = 0
        self.outcome = ""
        self.may_go_on = asyncio.Event()
        self.kept: list[seqrpc.OwnedFd] = []
        self.link: Link | None = None

    @seqrpc.method
    async def look(self, file: seqrpc.OwnedFd) -> int:
        return os.fstat(file.fileno()).st_ino

    @seqrpc.method
    async def count(self, files: Any) -> int:
        return len({os.fstat(file.fileno()).st_ino for file in files})

    @seqrpc.method
    async def take_out(self, file: seqrpc.OwnedFd) -> None:
        os.close(file.detach())

    @seqrpc.method
    async def keep(self, file: seqrpc.OwnedFd) -> None:
        self.kept.append(seqrpc.OwnedFd(file.detach()))

    @seqrpc.method
    async def close_it(self, file: seqrpc.OwnedFd) -> None:
        file.close()

    @seqrpc.method
    async def fail(self, file: seqrpc.OwnedFd) -> None:
        raise seqrpc.RpcError("it failed", code="desk.Failed")

    @seqrpc.method
    async def give_back(self, file: seqrpc.OwnedFd) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd.dup(file)

    @seqrpc.method
    async def several(self, file: seqrpc.OwnedFd, count: int) -> list[seqrpc.OwnedFd]:
        return [seqrpc.OwnedFd.dup(file) for _ in range(count)]

    @seqrpc.method
    async def wait(self, file: seqrpc.OwnedFd) -> None:
        self.link = link_of(seqrpc.current_call().connection)
        self.waiting += 1
        try:
            await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        finally:
            self.outcome = self.outcome or "done"
            assert os.fstat(file.fileno())

    @seqrpc.method
    async def senders(self, one: seqrpc.OwnedFd, other: seqrpc.OwnedFd) -> list[int | None]:
        return [seqrpc.current_call().caller.uid, sender_of(one), sender_of(other)]

    @seqrpc.method
    async def tell_deadline(self) -> float | None:
        return seqrpc.current_call().deadline

    @seqrpc.method(allow=seqrpc.policy.uid(4711))
    async def deny(self, file: seqrpc.OwnedFd) -> None:
        raise AssertionError("somebody was admitted")

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


def pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def one_of_a_pair() -> int:
    one, other = socket.socketpair()
    other.close()
    return one.detach()


FILES: dict[str, Callable[[], int]] = {
    "file": lambda: os.open(__file__, os.O_RDONLY | os.O_CLOEXEC),
    "directory": lambda: os.open("/", os.O_PATH | os.O_CLOEXEC),
    "device": lambda: os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC),
    "pipe": pipe,
    "socket": one_of_a_pair,
    "eventfd": lambda: os.eventfd(0, os.EFD_CLOEXEC),
    "memfd": lambda: os.memfd_create("desk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING),
}


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> Any:
    with seqrpc.OwnedFd(FILES[request.param]()) as owned:
        yield owned


class Place:
    """A desk, a connection to it, and what is open as neither has a call under way."""

    def __init__(self, desk: Desk, connection: seqrpc.Connection, path: Path) -> None:
        self.desk = desk
        self.connection = connection
        self.proxy = connection.proxy(Desk)
        self.path = path
        self.before: dict[int, str] = {}

    async def begin(self) -> None:
        await self.connection.call("Desk.add", 1, 2)
        self.before = open_fds()

    async def all_closed(self) -> None:
        await comes_true(lambda: set(open_fds()) == set(self.before))


@pytest.fixture
async def place(socket_path: Path, file: Any) -> AsyncIterator[Place]:
    desk = Desk()
    async with seqrpc.serve(desk, socket_path), seqrpc.connect(socket_path) as connection:
        found = Place(desk, connection, socket_path)
        await found.begin()
        yield found


@pytest.fixture
async def desk_and_raw(socket_path: Path) -> AsyncIterator[tuple[Desk, RawClient]]:
    desk = Desk()
    async with seqrpc.serve(desk, socket_path):
        with raw_client(socket_path) as client:
            await client.send(0, 0, "Desk.add", [1, 2])
            assert await client.receive() == [1, 0, None, 3]
            yield desk, client


async def test_a_handler_has_the_descriptor_and_nothing_is_left_of_it(place: Place, file: seqrpc.OwnedFd) -> None:
    for _ in range(3):
        assert await place.proxy.look(file) == os.fstat(file.fileno()).st_ino
    await place.all_closed()
    assert not file.closed, "sending borrows"


@pytest.mark.parametrize("method", ["take_out", "close_it"])
async def test_what_a_handler_closes_is_not_closed_again(method: str, place: Place, file: seqrpc.OwnedFd) -> None:
    await getattr(place.proxy, method)(file)
    await place.all_closed()


async def test_what_a_handler_keeps_stays_open(place: Place, file: seqrpc.OwnedFd) -> None:
    await place.proxy.keep(file)
    await place.proxy.look(file)
    assert os.fstat(place.desk.kept[0].fileno()).st_ino == os.fstat(file.fileno()).st_ino
    place.desk.kept[0].close()
    await place.all_closed()


async def test_what_a_failing_handler_had_is_closed(place: Place, file: seqrpc.OwnedFd) -> None:
    with pytest.raises(seqrpc.RpcError, match="it failed"):
        await place.proxy.fail(file)
    await place.all_closed()


async def test_a_descriptor_goes_there_and_back(place: Place, file: seqrpc.OwnedFd) -> None:
    with await place.proxy.give_back(file) as back:
        assert os.fstat(back.fileno()).st_ino == os.fstat(file.fileno()).st_ino
    await place.all_closed()


async def test_an_answer_that_nobody_waits_for_any_more_leaves_no_descriptor(place: Place, file: Any) -> None:
    for turns in range(6):
        calling = asyncio.ensure_future(place.proxy.give_back(file))
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await calling).close()
        await place.connection.call("Desk.add", 1, 2)
        await place.all_closed()


async def test_a_lot_goes_there_and_back(place: Place, file: Any) -> None:
    for count in (2, 8, 9):
        for back in await place.connection.call("Desk.several", file, count):
            assert os.fstat(back.fileno()).st_ino == os.fstat(file.fileno()).st_ino
            back.close()
    await place.all_closed()


async def test_what_a_cancelled_handler_had_is_closed(place: Place, file: seqrpc.OwnedFd) -> None:
    calling = asyncio.ensure_future(place.proxy.wait(file))
    await comes_true(lambda: place.desk.waiting == 1)
    calling.cancel()
    await comes_true(lambda: place.desk.outcome == "cancelled")
    await place.all_closed()


async def test_what_a_handler_has_whose_time_is_up_is_closed(place: Place, file: seqrpc.OwnedFd) -> None:
    with pytest.raises(seqrpc.DeadlineExceeded):
        async with seqrpc.timeout(0.02):
            await place.proxy.wait(file)
    await comes_true(lambda: place.desk.outcome == "cancelled")
    await place.all_closed()


async def test_what_came_over_a_connection_that_ends_is_closed(place: Place, file: seqrpc.OwnedFd) -> None:
    async with seqrpc.connect(place.path) as other:
        calling = asyncio.ensure_future(other.proxy(Desk).wait(file))
        await comes_true(lambda: place.desk.waiting == 1)
    with pytest.raises(seqrpc.ConnectionLost):
        await calling
    await comes_true(lambda: place.desk.outcome == "cancelled")
    await place.all_closed()


async def test_who_is_not_admitted_leaves_no_descriptor(place: Place, file: seqrpc.OwnedFd) -> None:
    with pytest.raises(seqrpc.PermissionDenied):
        await place.proxy.deny(file)
    await place.all_closed()


@pytest.mark.parametrize("count", [1, 2, 8, 9, 100])
async def test_several_descriptors_come_in_their_order(count: int, socket_path: Path) -> None:
    files = [seqrpc.OwnedFd(os.memfd_create(f"desk {number}")) for number in range(count)]
    desk = Desk()
    async with seqrpc.serve(desk, socket_path), seqrpc.connect(socket_path) as there:
        await there.call("Desk.add", 1, 2)
        before = open_fds()
        assert await there.call("Desk.count", files) == count
        assert await there.call("Desk.count", [files[0]] * count) == 1
        await comes_true(lambda: open_fds() == before)
    for file in files:
        file.close()


async def test_one_that_is_closed_is_named_and_nothing_is_sent(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        with seqrpc.OwnedFd(pipe()) as file:
            assert await there.proxy(Desk).look(file)
        with pytest.raises(ValueError, match="closed"):
            await there.proxy(Desk).look(file)
        assert await there.call("Desk.add", 1, 2) == 3


async def test_the_connections_own_socket_cannot_be_sent(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        own = seqrpc.OwnedFd(link_of(there).transport.get_extra_info("socket").fileno())
        with pytest.raises(ValueError, match="own socket cannot be sent"):
            await there.proxy(Desk).look(own)
        own.detach()
        assert await there.call("Desk.add", 1, 2) == 3


@pytest.mark.parametrize(
    "files, args",
    [
        (2, [REFERENCE[0]]), (1, [REFERENCE[0], REFERENCE[0]]), (1, [REFERENCE[1]]), (0, [REFERENCE[0]]), (1, [1]),
        (3, [REFERENCE[:2]]), (9, [REFERENCE[:8]]), (1, [[REFERENCE[0]], REFERENCE[5]]),
    ],
)  # fmt: skip
async def test_references_that_do_not_fit_cost_the_connection_and_no_descriptor(
    files: int, args: list[Any], desk_and_raw: tuple[Desk, RawClient]
) -> None:
    _desk, client = desk_and_raw
    before = open_fds()
    with seqrpc.OwnedFd(FILES["file"]()) as file:
        await client.send(0, 1, "Desk.count", args, fds=[file.fileno()] * files)
        message = await client.receive()
    assert message[0] == 5
    assert "descriptor" in message[1]
    await comes_true(lambda: len(open_fds()) < len(before) + 1)


async def test_an_unknown_method_and_a_wrong_argument_leave_no_descriptor(
    desk_and_raw: tuple[Desk, RawClient],
) -> None:
    _desk, client = desk_and_raw
    before = open_fds()
    with seqrpc.OwnedFd(FILES["file"]()) as file:
        for call_id, (method, args, code) in enumerate(
            [
                ("Desk.none", [REFERENCE[0]], "rpc.MethodNotFound"), ("Desk.add", REFERENCE[:2], "rpc.InvalidParams"),
                ("Desk.look", REFERENCE[:2], "rpc.InvalidParams"), ("Desk.look", [REFERENCE[:1]], "rpc.InvalidParams"),
            ]
        ):  # fmt: skip
            count = 2 if args == REFERENCE[:2] else 1
            await client.send(0, call_id, method, args, fds=[file.fileno()] * count)
            message = await client.receive()
            assert message[:2] == [1, call_id]
            assert message[2][0] == code
    await comes_true(lambda: open_fds() == before)


async def test_descriptors_are_on_the_account_of_the_user_until_they_are_closed(place: Place, file: Any) -> None:
    calling = asyncio.ensure_future(place.proxy.wait(file))
    await comes_true(lambda: place.desk.waiting == 1)
    assert place.desk.link is not None
    account = place.desk.link.account
    assert len(account.fds) == 1
    place.desk.may_go_on.set()
    await calling
    await comes_true(lambda: len(account.fds) == 0)


@needs_root
async def test_each_packet_tells_who_sent_its_descriptors(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path, pass_credentials=True, allow=seqrpc.policy.anyone):
        with raw_client(socket_path) as client, seqrpc.OwnedFd(pipe()) as file:
            before = None
            for number, uid in enumerate([0, 0, 1000, 1000, 0, 4321, 1000, 0] * 3):
                packet = msgpack.packb([0, number, "Desk.senders", [REFERENCE[0], REFERENCE[1]]])
                told = (socket.SOL_SOCKET, SCM_CREDENTIALS, struct.pack("iii", os.getpid(), uid, uid + 1))
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("ii", file.fileno(), file.fileno()))
                for control in ([told, rights], [rights, told]):
                    client.sock.sendmsg([packet], control)
                    assert await client.receive() == [1, number, None, [uid, uid, uid]]
                before = before or open_fds()
            await comes_true(lambda: open_fds() == before)


@pytest.mark.skipif(seqrpc.__twin__ != "native", reason="nothing is native here")
async def test_both_go_the_quick_way(socket_path: Path, left_to_python: Callable[[], list[bytes]]) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        desk = there.proxy(Desk)
        await desk.add(1, 2)
        came = left_to_python()
        with seqrpc.OwnedFd(pipe()) as file:
            assert await desk.look(file)
            (await desk.give_back(file)).close()
            async with seqrpc.timeout(60):
                assert await desk.look(file)
                assert await desk.add(1, 2) == 3
                assert await desk.tell_deadline() is not None
    assert came == []


async def test_a_handler_knows_the_deadline_of_its_call(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        desk = there.proxy(Desk)
        assert await desk.tell_deadline() is None
        async with seqrpc.timeout(60):
            deadline = await desk.tell_deadline()
        assert deadline is not None
        assert 0 < deadline - time.monotonic() <= 60


@pytest.mark.parametrize("options", [{"deadline": 1}, {"deadline": -5}, {"deadline": time.monotonic_ns()}])
async def test_a_deadline_that_has_passed_is_told(
    options: dict[str, Any], desk_and_raw: tuple[Desk, RawClient]
) -> None:
    _desk, client = desk_and_raw
    await client.send(0, 1, "Desk.add", [1, 2], options)
    _kind, call_id, error, _result = await client.receive()
    assert call_id == 1
    assert error[0] == "rpc.DeadlineExceeded"


async def test_a_deadline_stops_the_handler_and_one_that_is_far_does_not(
    desk_and_raw: tuple[Desk, RawClient],
) -> None:
    desk, client = desk_and_raw
    with seqrpc.OwnedFd(pipe()) as file:
        for far in (2**63 - 1, 2**64 - 1, time.monotonic_ns() + 10**12):
            await client.send(0, 1, "Desk.look", [REFERENCE[0]], {"deadline": far}, fds=[file.fileno()])
            assert (await client.receive())[:3] == [1, 1, None]
        soon = time.monotonic_ns() + 20_000_000
        await client.send(0, 2, "Desk.wait", [REFERENCE[0]], {"deadline": soon}, fds=[file.fileno()])
        async with asyncio.timeout(PATIENCE):
            _kind, call_id, error, _result = await client.receive()
    assert (call_id, error[0]) == (2, "rpc.DeadlineExceeded")
    assert desk.outcome == "cancelled"


async def test_while_there_is_little_room_for_descriptors_they_still_come(
    place: Place, file: seqrpc.OwnedFd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLOSER, "careful", True)
    for _ in range(3):
        await place.proxy.look(file)
    monkeypatch.undo()
    await place.all_closed()
