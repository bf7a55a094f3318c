"""What is no Exception, raised by types of an application's own as arguments and results are converted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.daemons import on_a_pair, raw_client
from support.incidents import AN_INCIDENT
from support.waiting import PATIENCE

import seqrpc

FEW = 3


class Panic(BaseException):
    """As those are that code in other languages raises as it panics."""


class Money:
    def __init__(self, amount: int) -> None:
        self.amount = amount


KINDS: list[type[BaseException]] = [Panic, asyncio.CancelledError, GeneratorExit, SystemExit]


def encode(money: Money) -> int:
    if money.amount < 0:
        raise KINDS[~money.amount]
    return money.amount


def decode(amount: int) -> Money:
    if amount < 0:
        raise KINDS[~amount]
    return Money(amount)


seqrpc.register_type(Money, wire_type=int, encode=encode, decode=decode)


class Unread(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise Panic


class Bank(seqrpc.Service):
    @seqrpc.method
    async def give(self, amount: int, wait: bool = False) -> Money:
        if wait:
            await asyncio.sleep(0)
        return Money(amount)

    @seqrpc.method
    def give_in_thread(self, amount: int) -> Money:
        return Money(amount)

    @seqrpc.method
    async def take(self, money: Money) -> int:
        return money.amount

    @seqrpc.method
    def take_in_thread(self, money: Money) -> int:
        return money.amount

    @seqrpc.method
    async def count(self, money: Money) -> AsyncIterator[int]:
        yield money.amount

    @seqrpc.method(oneway=True)
    async def tell(self, money: Money) -> None: ...

    @seqrpc.method
    async def fail(self) -> None:
        raise seqrpc.RpcError("with data", [object(), Unread()], code="test.Data")


METHODS = ["give", "give_in_thread", "take", "take_in_thread", "count"]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("method", METHODS)
async def test_it_costs_its_call_only_and_is_logged(method: str, number: int, caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Bank(), limits=seqrpc.Limits(max_calls_in_flight=FEW)) as connection:
        for _ in range(FEW + 1):
            with pytest.raises(seqrpc.Internal) as caught:
                await asyncio.wait_for(connection.call(f"Bank.{method}", ~number), PATIENCE)
            assert caught.value.message == AN_INCIDENT
        assert KINDS[number].__name__ in caplog.text
        assert await connection.call("Bank.take", 5) == 5


async def test_so_it_does_where_a_handler_has_waited() -> None:
    async with on_a_pair(Bank()) as connection:
        with pytest.raises(seqrpc.Internal):
            await asyncio.wait_for(connection.call("Bank.give", -1, True), PATIENCE)


async def test_so_it_does_where_there_is_a_deadline() -> None:
    async with on_a_pair(Bank()) as connection, asyncio.timeout(PATIENCE):
        for method in METHODS:
            with pytest.raises(seqrpc.Internal):
                async with seqrpc.timeout(PATIENCE):
                    await connection.call(f"Bank.{method}", -1)


async def test_a_one_way_call_whose_arguments_raise_it_leaves_nothing() -> None:
    async with on_a_pair(Bank(), limits=seqrpc.Limits(max_calls_in_flight=FEW)) as connection:
        for _ in range(FEW + 1):
            await connection.notify("Bank.tell", -1)
        assert await asyncio.wait_for(connection.call("Bank.take", 5), PATIENCE) == 5


async def test_an_error_whose_data_raises_it_goes_without_it() -> None:
    async with on_a_pair(Bank()) as connection:
        with pytest.raises(seqrpc.RpcError, match="with data") as caught:
            await asyncio.wait_for(connection.call("Bank.fail"), PATIENCE)
        assert (caught.value.code, caught.value.data) == ("test.Data", None)


class Evil(Exception):
    """Has nothing that can be asked for."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class Odd:
    def __init__(self, _value: int) -> None:
        raise Evil


seqrpc.register_type(Odd, wire_type=int, encode=lambda _odd: 0, decode=Odd)


class Shop(seqrpc.Service):
    @seqrpc.method
    async def take(self, odd: Odd) -> None: ...


async def test_what_arguments_raise_may_be_what_cannot_be_looked_at() -> None:
    async with on_a_pair(Shop()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await asyncio.wait_for(connection.call("Shop.take", 1), PATIENCE)
        assert caught.value.message == AN_INCIDENT


@pytest.mark.parametrize("method", ["give", "take"])
def test_what_ends_the_program_does_so_and_its_call_is_answered(method: str) -> None:
    async def serve() -> None:
        async with seqrpc.serve(Bank(), sock=theirs):
            with raw_client(ours) as client:
                await client.send(0, 1, f"Bank.{method}", [~KINDS.index(SystemExit)])
                await asyncio.sleep(PATIENCE)

    ours, theirs = seqrpc.socket_pair()
    with ours.dup() as kept:
        with pytest.raises(SystemExit):
            asyncio.run(serve())
        kept.setblocking(False)
        assert b"rpc.Internal" in kept.recv(65536)
