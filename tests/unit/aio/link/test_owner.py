"""Whoever keeps a connection hears of its beginning and its end, and is waited for by those who close it."""

from __future__ import annotations

import asyncio
import os

import pytest
from support.link import End, one_end, raises
from support.packets import raw_pair, receive_to_the_end, unwire, wire
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

from seqrpc import ConnectionLost
from seqrpc.aio.link import Link
from seqrpc.limits import DEFAULT_LIMITS


class Owner:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.may_go = asyncio.Event()
        self.failure: Exception | None = None

    def connection_made(self, link: Link) -> None:
        assert link.transport.is_reading()
        self.heard.append(f"made {link.closed}")

    def closing_received(self, link: Link) -> None:
        self.heard.append(f"closing {link.session.closing_received}")

    def connection_lost(self, link: Link) -> None:
        self.heard.append(f"lost {link.closed}")

    async def wait_left(self) -> None:
        self.heard.append("waits")
        await self.may_go.wait()
        if self.failure is not None:
            raise self.failure


async def test_an_owner_hears_of_the_beginning_and_of_the_end_after_the_handler() -> None:
    owner = Owner()
    owner.may_go.set()
    async with one_end(owner=owner) as (end, raw):
        assert owner.heard == ["made False"]
        assert end.handler.connection is end.connection
        call = end.call("m")
        await turns_of_the_loop()
        raw.close()
        await raises(ConnectionLost, call)
        assert owner.heard == ["made False", "lost True"]
        assert end.handler.lost == 1


async def test_an_owner_hears_that_the_other_side_takes_no_new_requests() -> None:
    owner = Owner()
    owner.may_go.set()
    async with one_end(owner=owner) as (_end, raw):
        raw.send(wire(5, "going home"))
        await comes_true(lambda: "closing going home" in owner.heard)


@pytest.mark.parametrize("how", ["close", "wait_closed"])
async def test_who_closes_waits_for_what_the_owner_keeps(how: str) -> None:
    owner = Owner()
    async with one_end(owner=owner) as (end, raw):
        ending = asyncio.ensure_future(getattr(end.connection, how)())
        await turns_of_the_loop()
        raw.close()
        await asyncio.wait_for(end.connection.wait_lost(), PATIENCE)
        await turns_of_the_loop()
        assert owner.heard[-1] == "waits"
        assert not ending.done()
        assert end.connection.closed
        owner.may_go.set()
        await ending


async def test_so_does_who_closes_what_has_ended_and_hears_of_what_went_wrong() -> None:
    owner = Owner()
    async with one_end(owner=owner) as (end, raw):
        raw.close()
        await asyncio.wait_for(end.connection.wait_lost(), PATIENCE)
        closing = [asyncio.ensure_future(end.connection.close()) for _ in range(2)]
        await turns_of_the_loop()
        assert owner.heard[-2:] == ["waits", "waits"]
        owner.failure = OSError("the disk is full")
        owner.may_go.set()
        for one in closing:
            await raises(OSError, one, "the disk is full")
        owner.failure = None


async def test_on_another_loop_what_has_ended_is_closed_already() -> None:
    owner = Owner()
    async with one_end(owner=owner) as (end, raw):
        raw.close()
        await end.connection.wait_lost()
        heard = list(owner.heard)
        await asyncio.to_thread(asyncio.run, end.connection.close())
        assert owner.heard == heard, "it is the owner's loop that it waits on"
        owner.may_go.set()


async def test_a_connection_that_is_not_wanted_is_told_why_and_ends() -> None:
    class Refusing(Owner):
        def connection_made(self, link: Link) -> None:
            super().connection_made(link)
            link.refuse("there is no room")

    owner = Refusing()
    owner.may_go.set()
    async with one_end(owner=owner) as (end, raw):
        assert [unwire(packet) for packet in await receive_to_the_end(raw)] == [[5, "there is no room"]]
        await end.connection.wait_closed()
        assert owner.heard == ["made False", "lost True", "waits"]


async def test_it_is_known_whose_it_is() -> None:
    async with one_end() as (end, _raw):
        assert end.connection.peer is None, "each packet names its sender"
        assert end.connection.uid == os.geteuid()
        assert repr(end.connection) == repr(end.connection.caller) == "<Connection open peer=None>"
    assert repr(end.connection) == "<Connection closed peer=None>"


def test_closing_it_after_its_loop_closes_the_socket_and_waits_for_nobody() -> None:
    owner: list[Owner] = []

    async def made() -> End:
        owner.append(Owner())
        return End(ours, DEFAULT_LIMITS, owner=owner[0])

    ours, theirs = raw_pair()
    with theirs:
        end = asyncio.run(made())
        asyncio.run(end.connection.close())
        assert theirs.recv(1) == b""
    assert owner[0].heard == ["made False"]
