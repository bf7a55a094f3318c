"""What each user holds of a server, and how much one may."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.accounts import new_account
from support.descriptors import Lender, descriptors_limited
from support.packets import wire
from support.processes import AS_ROOT, OTHER_UID, running_child
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Limits, OwnedFd
from seqrpc.aio import objects
from seqrpc.aio.accounts import (
    CALLS,
    CONNECTIONS,
    DESCRIPTORS,
    IN_FLIGHT,
    LIVING,
    NAMES,
    REQUEST_BYTES,
    UNSENT_BYTES,
    Account,
    Booked,
    Ledger,
    share_of_user,
    share_of_users,
    table_size,
)
from seqrpc.aio.connection import link_of
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.held import HeldValues
from seqrpc.aio.living import LivingValues
from seqrpc.aio.server import hub_of
from seqrpc.aio.shares import share_of
from seqrpc.aio.starting import pace_of
from seqrpc.aio.transport import carrier_of
from seqrpc.testing import MemoryServer, caller, memory_server

ANN, BOB = 61_001, 61_002


# Shares


@pytest.mark.parametrize(
    "most, own, own_privileged, of_all",
    [(1, 1, 1, 1), (2, 1, 2, 2), (4, 3, 4, 4), (16, 12, 14, 15), (4096, 3072, 3584, 3840)],
)
def test_nobody_has_everything(most: int, own: int, own_privileged: int, of_all: int) -> None:
    assert share_of_user(most, is_privileged=False) == own
    assert share_of_user(most, is_privileged=True) == own_privileged
    assert share_of_users(most, is_privileged=False) == of_all
    assert share_of_users(most, is_privileged=True) == most


@pytest.mark.parametrize("soft, size", [(64, 32), (128, 64), (1024, 960)])
def test_some_of_the_table_is_left_to_the_process(soft: int, size: int) -> None:
    with descriptors_limited(soft):
        assert table_size() == size


def test_a_table_may_have_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert table_size() > 10**9
    assert new_account(Limits(max_connections=7)).most(CONNECTIONS) == (7, 7)


def test_root_and_the_own_user_are_privileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: BOB)
    ledger = Ledger(Limits(), is_shared=True)
    assert [ledger.account_of(uid).is_privileged for uid in (0, BOB, ANN, None)] == [True, True, False, False]


def test_what_is_booked_is_taken_off_again() -> None:
    ledger = Ledger(Limits(max_total_calls=16), is_shared=True)
    ann, bob, root = ledger.account_of(ANN), ledger.account_of(BOB), ledger.account_of(0)
    ann.book(CALLS, 12)
    assert ann.lack(CALLS) == f"user {ANN} has 12 calls here already, of 12 that one user may have (max_total_calls)"
    assert bob.lack(CALLS) is None
    bob.book(CALLS, 3)
    assert bob.lack(CALLS) == "all users together have 15 calls here already, of 15 (max_total_calls)"
    assert root.lack(CALLS) is None
    root.book(CALLS)
    assert root.lack(CALLS) is not None
    ann.release(CALLS, 12)
    assert bob.lack(CALLS) is None
    assert ledger.total[CALLS] == 4
    assert [account.holds(CALLS) for account in (ann, bob, root)] == [0, 3, 1]


def test_what_is_larger_than_a_share_is_given_to_who_has_nothing() -> None:
    ledger = Ledger(Limits(max_total_held_bytes=100), is_shared=True)
    ann, bob = ledger.account_of(ANN), ledger.account_of(BOB)
    assert ann.lack(REQUEST_BYTES, 1000) is None
    ann.book(REQUEST_BYTES, 1000)
    assert "has 1000 request bytes" in str(ann.lack(REQUEST_BYTES, 1))
    assert "all users together" in str(bob.lack(REQUEST_BYTES, 1))


def test_an_account_lasts_as_long_as_anything_is_held() -> None:
    ledger = Ledger(Limits(), is_shared=True)
    account = ledger.account_of(ANN)
    assert ledger.account_of(ANN) is account
    assert account.uid == ANN
    del account
    gc.collect()
    assert list(ledger.accounts) == []


def test_who_is_alone_may_have_everything() -> None:
    account = new_account(Limits(max_total_calls=16))
    assert account.most(CALLS) == (16, 16)
    assert Booked(account).account is account


def test_descriptors_count_until_they_are_closed_or_given_away() -> None:
    account = new_account()
    fds = [OwnedFd(os.dup(0)) for _ in range(4)]
    fds[3].close()
    account.take(fds)
    account.book(CONNECTIONS)
    account.book(LIVING, 2)
    assert account.holds(DESCRIPTORS) == account.ledger.all_hold(DESCRIPTORS) == 6
    os.close(fds[0].detach())
    fds[1].close()
    fds[1].close()
    assert account.holds(DESCRIPTORS) == 4
    fds[2].close()
    assert account.holds(DESCRIPTORS) == 3


def test_a_look_at_all_is_seldom_taken() -> None:
    account = new_account()
    assert account.may_look(1.0, 100.0)
    assert not account.may_look(1.0, 100.5)
    assert account.may_look(1.0, 101.0)
    ledger = account.ledger
    assert ledger.may_look(1.0, 100.0)
    assert not ledger.may_look(1.0, 100.5)


def test_a_ledger_tells_what_is_held() -> None:
    ledger = Ledger(Limits(), is_shared=True)
    ann, unknown = ledger.account_of(ANN), ledger.account_of(None)
    ann.book(CALLS, 2)
    told = ledger.stats()
    assert (told[str(ANN)]["calls"], told["unknown"]["calls"]) == (2, 0)
    assert unknown.uid is None
    assert list(told[str(ANN)]) == list(NAMES)
    assert not ledger.is_busy


def test_few_places_have_no_shares() -> None:
    with descriptors_limited(128):
        account = Ledger(Limits(), is_shared=True).account_of(ANN)
        account.book(CONNECTIONS, 60)
        assert account.lack_of_place() is None
    account = Ledger(Limits(max_connections=4), is_shared=True).account_of(ANN)
    account.book(CONNECTIONS, 3)
    assert "3 connections here already" in str(account.lack_of_place())


async def test_threads_are_made_late_and_let_go() -> None:
    account = new_account()
    account.ledger.close()
    seen = await asyncio.wrap_future(account.submit(threading.get_ident))
    assert seen != threading.get_ident()
    account.ledger.close()
    with pytest.raises(RuntimeError, match="let go"):
        account.submit(threading.get_ident)


# In a server


class Store(seqrpc.Service):
    """Has some of everything."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.hung = threading.Event()

    @seqrpc.method
    async def add(self, one: int, other: int) -> int:
        return one + other

    @seqrpc.method
    async def wait(self, data: bytes = b"", fds: list[OwnedFd] | None = None) -> None:
        await self.go_on.wait()

    @seqrpc.method(oneway=True)
    async def note(self) -> None:
        await self.go_on.wait()

    @seqrpc.method
    def hang(self) -> None:
        self.hung.wait(PATIENCE)

    @seqrpc.method
    def quick(self) -> int:
        return 7

    @seqrpc.method
    async def make(self) -> Store:
        return Store()

    @seqrpc.method
    async def read(self, size: int) -> bytes:
        return bytes(size)

    @seqrpc.method
    async def read_all(self, streams: list[seqrpc.Stream[int]]) -> None:
        await asyncio.gather(*map(anext, streams))

    @seqrpc.method
    async def use(self, stores: list[Store]) -> None:
        await asyncio.gather(*(store.add(1, 2) for store in stores))
        await self.go_on.wait()

    @seqrpc.method
    async def lend(self, number: int) -> list[OwnedFd]:
        return [OwnedFd(os.dup(0)) for _ in range(number)]


Two = tuple[Store, MemoryServer, seqrpc.Connection, seqrpc.Connection]


@asynccontextmanager
async def two_users(**limits: Any) -> AsyncIterator[Two]:
    """Yield a service, its server, and the connections of two users, neither of them privileged."""
    store = Store()
    served = memory_server(store, allow=seqrpc.policy.anyone, accept_descriptors=True, limits=Limits(**limits))
    async with asyncio.timeout(PATIENCE), served as server:
        async with server.connect(caller=caller(uid=ANN)) as ann, server.connect(caller=caller(uid=BOB)) as bob:
            yield store, server, ann, bob
        store.hung.set()
        store.go_on.set()
        await comes_true(lambda: not any(hub_of(server).ledger.total))


def account_in(server: MemoryServer, uid: int) -> Account:
    return hub_of(server).ledger.account_of(uid)


def begin(connection: seqrpc.Connection, number: int, method: str, *args: Any) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(connection.call(method, *args)) for _ in range(number)]


async def end(calls: list[asyncio.Future[Any]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_of_one_leave_room_for_another() -> None:
    async with two_users(max_total_calls=16) as (_store, server, ann, bob):
        calls = begin(ann, 12, "Store.wait")
        await comes_true(lambda: account_in(server, ANN).holds(CALLS) == 12)
        async with server.connect(caller=caller(uid=ANN)) as again:
            with pytest.raises(seqrpc.Overloaded, match=f"user {ANN} has 12 calls here already"):
                await again.call("Store.add", 1, 2)
        with pytest.raises(seqrpc.Overloaded, match="max_total_calls"):
            await ann.call("Store.quick")
        assert await bob.call("Store.add", 1, 2) == 3
        await end(calls)
        assert await ann.call("Store.add", 1, 2) == 3


@pytest.mark.skipif(not AS_ROOT, reason="needs to be another user")
async def test_calls_on_objects_take_their_time_from_the_turns_of_whoever_holds_these(socket_path: Path) -> None:
    """The server made the socket pair of an object, and would be charged for its calls, as for those of everybody."""

    def ask_for_an_object() -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(socket_path))
        peer.send(wire(0, 1, "Store.make", []))
        return peer

    def ends() -> list[objects.ObjectEnd]:
        return [end for held in objects._held.values() for end in held.ends]

    socket_path.parent.chmod(0o755)
    loop = asyncio.get_running_loop()
    async with seqrpc.serve(Store(), socket_path, allow=seqrpc.policy.anyone, mode=0o666):
        with running_child(ask_for_an_object, uid=OTHER_UID):
            await comes_true(ends)
            (end,) = ends()
            assert carrier_of(end.link.transport).uid == os.getuid()
            assert carrier_of(end.link.transport).intake._share is share_of(OTHER_UID, loop)
            assert isinstance(end.link.handler, Dispatcher)
            assert end.link.handler._starter.pace is pace_of(loop, OTHER_UID)
        await comes_true(lambda: not ends())


async def test_calls_that_run_on_count_after_their_connection_has_ended() -> None:
    async with two_users(max_total_calls=16) as (store, server, ann, _bob):
        async with server.connect(caller=caller(uid=ANN)) as leaving:
            for _ in range(3):
                await leaving.notify("Store.note")
            await leaving.call("rpc.ping")
        assert account_in(server, ANN).holds(CALLS) == 3
        store.go_on.set()
        await comes_true(lambda: account_in(server, ANN).holds(CALLS) == 0)
        assert await ann.call("Store.quick") == 7


async def test_requests_of_one_leave_room_for_another() -> None:
    async with two_users(max_total_held_bytes=1_000_000) as (_store, server, ann, bob):
        calls = begin(ann, 12, "Store.wait", bytes(60_000))
        await comes_true(lambda: account_in(server, ANN).holds(REQUEST_BYTES) > 720_000)
        for size in (60_000, 300_000):
            with pytest.raises(seqrpc.Overloaded, match=f"user {ANN} has 7.* request bytes here already"):
                await ann.call("Store.wait", bytes(size))
        assert await ann.call("Store.add", 1, 2) == 3
        others = begin(bob, 1, "Store.wait", bytes(60_000))
        await comes_true(lambda: account_in(server, BOB).holds(REQUEST_BYTES) > 60_000)
        await end(calls + others)


async def test_threads_of_one_leave_some_for_another() -> None:
    async with two_users(max_threads=4) as (store, server, ann, bob):
        calls = begin(ann, 8, "Store.hang")
        await comes_true(lambda: account_in(server, ANN).holds(CALLS) == 8)
        assert await bob.call("Store.quick") == 7
        await end(calls[:4])
        await ann.close()
        assert await bob.call("Store.quick") == 7
        store.hung.set()
        await end(calls[4:])


async def test_objects_of_one_leave_room_for_another_whoever_connects_again() -> None:
    async with two_users(max_total_living_values=8) as (_store, server, ann, bob):
        kept = []
        for _ in range(3):
            async with server.connect(caller=caller(uid=ANN)) as again:
                kept += [await again.call("Store.make") for _ in range(2)]
        assert account_in(server, ANN).holds(LIVING) == 6
        with pytest.raises(seqrpc.Overloaded, match=f"user {ANN} has 6 living values here already"):
            await ann.call("Store.make")
        thing = await bob.call("Store.make")
        assert await thing.call("Store.add", 1, 2) == 3
        await thing.close()
        calls = [asyncio.ensure_future(kept[0].call("Store.wait"))]
        await comes_true(lambda: account_in(server, ANN).holds(CALLS) == 1)
        await end(calls)
        for thing in kept:
            await thing.close()
        await comes_true(lambda: account_in(server, ANN).holds(LIVING) == 0)


async def test_descriptors_of_one_leave_room_for_another() -> None:
    with descriptors_limited(256):
        async with two_users() as (_store, server, ann, bob):
            account = account_in(server, ANN)
            calls = begin(ann, 8, "Store.wait", b"", [Lender()] * 16)
            await comes_true(lambda: account.holds(DESCRIPTORS) == 129)
            for size in (0, 60_000, 100_000):
                with pytest.raises(seqrpc.Overloaded, match=f"user {ANN} has 1.. descriptors here already, of 144"):
                    await ann.call("Store.wait", bytes(size), [Lender()] * 17)
            assert await ann.call("Store.quick") == 7
            others = begin(bob, 1, "Store.wait", b"", [Lender()])
            await comes_true(lambda: account_in(server, BOB).holds(DESCRIPTORS) == 2)
            await end(calls + others)
            await comes_true(lambda: account.holds(DESCRIPTORS) == 1)
            await end(begin(ann, 1, "Store.wait", b"", [Lender()]))


async def never() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 1


@pytest.mark.parametrize("kind", ["streams", "objects"])
async def test_what_is_received_counts_while_it_is_used(kind: str) -> None:
    async with two_users() as (_store, server, ann, _bob):
        account = account_in(server, ANN)
        method, given = ("read_all", [never() for _ in range(7)]) if kind == "streams" else ("use", [Store()] * 7)
        calls = begin(ann, 1, f"Store.{method}", given)
        await comes_true(lambda: account.holds(DESCRIPTORS) == 8)
        await turns_of_the_loop()
        assert len(account.fds) == 7, "what is read, or called, is open still"
        await end(calls)
        await comes_true(lambda: account.holds(DESCRIPTORS) == 1)


def ask(server: MemoryServer, uid: int, number: int, method: str, *args: Any) -> socket.socket:
    """Send requests as a user, and return the connection, from which nobody reads."""
    peer = server.open_socket(caller=caller(uid=uid))
    for call_id in range(number):
        peer.send(msgpack.packb([0, call_id, method, args]))
    return peer


async def test_answers_that_one_does_not_read_leave_room_for_another() -> None:
    async with two_users(max_total_unsent_bytes=4_000_000) as (_store, server, ann, bob):
        account = account_in(server, ANN)
        with contextlib.ExitStack() as stack:
            for _ in range(8):  # one connection is read no more once an answer waits
                stack.enter_context(ask(server, ANN, 40, "Store.read", 1_000_000))
            await comes_true(lambda: account.holds(UNSENT_BYTES) > 2_000_000)
            assert account.holds(UNSENT_BYTES) < 3_600_000
            with pytest.raises(seqrpc.Overloaded, match=f"user {ANN} has .* unsent bytes here already"):
                await ann.call("Store.read", 2_000_000)
            assert len(await bob.call("Store.read", 500_000)) == 500_000
        await comes_true(lambda: account.holds(UNSENT_BYTES) == 0)
        assert len(await ann.call("Store.read", 2_000_000)) == 2_000_000


async def test_what_is_in_flight_to_one_leaves_room_for_another() -> None:
    with descriptors_limited(256):
        async with two_users() as (_store, server, ann, bob):
            account = account_in(server, ANN)
            with ask(server, ANN, 60, "Store.lend", 8):
                await comes_true(lambda: account.holds(IN_FLIGHT) == 144)
                with pytest.raises(seqrpc.Overloaded, match=f"user {ANN} has 144 descriptors in flight here already"):
                    await ann.call("Store.lend", 1)
                for fd in await bob.call("Store.lend", 8):
                    fd.close()
            await comes_true(lambda: account.holds(IN_FLIGHT) == 0)
            for fd in await ann.call("Store.lend", 8):
                fd.close()
            await comes_true(lambda: len(account.in_flight) <= 1)
            for sent in list(account_in(server, BOB).in_flight | account.in_flight):
                sent.look()


async def test_a_value_that_leaves_without_a_connection_has_an_account_of_its_own() -> None:
    living = LivingValues(Limits(max_total_living_values=1), HeldValues())
    departure = living.departure_of(Store())
    assert departure is not None
    assert living.account is not None
    with pytest.raises(seqrpc.Overloaded, match="max_total_living_values"):
        living.departure_of(Store())
    departure.unsent()
    assert living.account.holds(LIVING) == 0


async def test_a_connection_knows_its_account() -> None:
    async with two_users() as (_store, server, ann, _bob):
        await ann.call("rpc.ping")
        (link,) = [link_of(one) for one in server.connections if link_of(one).uid == ANN]
        assert link.account is account_in(server, ANN)
        assert {name: link.account.holds(kind) for kind, name in enumerate(NAMES)}["connections"] == 1
        assert not link_of(ann).account.lack(CONNECTIONS)
