"""What readers leave unread is booked on the account of their user."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from support.descriptors import descriptors_limited
from support.producers import LIMITS, Log, Wrong, produced
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import Limits, OwnedFd
from seqrpc.aio.accounts import CONNECTIONS, IN_FLIGHT, UNSENT_BYTES, Account, Ledger

LONG = 100_000


@pytest.fixture
def account() -> Account:
    """Return the account of a user, who may have 750,000 bytes unread."""
    limits = Limits(max_total_unsent_bytes=1_000_000, max_message_bytes=LIMITS.max_message_bytes)
    return Ledger(limits, is_shared=True).account_of(4321)


async def long_items(log: Log, number: int) -> AsyncIterator[bytes]:
    for index in range(number):
        log.note(str(index))
        yield bytes(LONG)


async def descriptors(log: Log, number: int) -> AsyncIterator[list[OwnedFd]]:
    for index in range(number):
        log.note(str(index))
        yield [OwnedFd(os.dup(0)) for _ in range(10)]


async def test_a_long_item_is_booked_until_it_is_read(account: Account, log: Log) -> None:
    async with produced(long_items(log, 20), account=account) as reading:
        await comes_true(lambda: reading.producer._is_held_up)
        await turns_of_the_loop()
        assert len(log.what) == 2, "more than a quarter of what the user may leave unread"
        assert account.held[UNSENT_BYTES] == 2 * (LONG + 7)
        assert account.held[IN_FLIGHT] == 2
        assert len(await reading.items()) == 20
        await comes_true(lambda: not any(account.held))


async def test_one_that_is_held_up_is_not_quiet(account: Account, log: Log) -> None:
    async with produced(long_items(log, 20), account=account) as reading:
        await comes_true(lambda: reading.producer._is_held_up)
        before = len(log.what)
        waiting = reading.producer.wait_idle(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.1)
        assert len(log.what) == before


async def test_descriptors_in_items_are_booked(account: Account, log: Log) -> None:
    with descriptors_limited(200):
        async with produced(descriptors(log, 20), account=account) as reading:
            await comes_true(lambda: reading.producer._is_held_up)
            most, _of_all = account.most(IN_FLIGHT)
            assert most // 4 < account.held[IN_FLIGHT] == 10 * len(log.what) <= most // 4 + 10
            assert len(await reading.items()) == 20
        await comes_true(lambda: account.held[IN_FLIGHT] == 0)


async def test_a_first_item_for_which_there_is_no_room_ends_its_stream(account: Account, log: Log) -> None:
    account.book(UNSENT_BYTES, 700_000)
    async with produced(long_items(log, 20), account=account) as reading:
        ((kind, (code, message, _data)),) = await reading.packets()
        assert (kind, code) == (1, "rpc.Overloaded")
        assert message.startswith("user 4321 has 700000 unsent bytes here already, of 750000 that one user may have")
        await reading.until_ended()
    assert log.what == ["0"]
    assert account.held[UNSENT_BYTES] == 700_000


async def test_an_end_is_sent_whatever_is_unread(account: Account) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b""
        raise Wrong("it is wrong", b"x" * LONG)

    account.book(UNSENT_BYTES, 700_000)
    async with produced(failing(), account=account) as reading:
        assert await reading.packets() == [[0, b""], [1, ["producers.Wrong", "it is wrong", b"x" * LONG]]]
        await comes_true(lambda: account.held[CONNECTIONS] == 0)


async def test_what_is_left_unread_is_booked_after_the_end(account: Account, log: Log) -> None:
    async with produced(long_items(log, 1), account=account) as reading:
        await reading.until_ended()
        assert account.held[UNSENT_BYTES] == LONG + 7
        assert account.held[CONNECTIONS] == 1, "a descriptor here tells whether it was read"
        assert len(await reading.items()) == 1
        await comes_true(lambda: not any(account.held))


@pytest.mark.parametrize("items_left", range(1, 10))
async def test_all_items_come_whether_the_user_or_the_socket_has_no_room_first(items_left: int, log: Log) -> None:
    account = Ledger(Limits(max_total_unsent_bytes=5_000_000), is_shared=True).account_of(4321)
    account.book(UNSENT_BYTES, 937_500 - items_left * LONG)  # a quarter is reached by so many items
    async with produced(long_items(log, 20), account=account) as reading:
        await comes_true(lambda: reading.producer._is_held_up or reading.producer._room is not None)
        assert len(await reading.items()) == 20
        await comes_true(lambda: account.held[CONNECTIONS] == 0)
