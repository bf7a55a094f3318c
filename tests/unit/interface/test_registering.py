"""Classes of an application's own travel as what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.daemons import on_a_pair

import seqrpc
from seqrpc.protocol import codings


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self.cents / 100:.2f}"

    @classmethod
    def parse(cls, text: str) -> Money:
        if not text.replace(".", "").isdigit():
            raise ValueError(f"{text!r} is no amount")
        return cls(round(float(text) * 100))


@dataclass
class Angle:
    """Travels as a number, and would as a map."""

    degrees: float


class Word(str):
    __slots__ = ()


@dataclass
class Purse:
    content: list[Money]
    angle: Angle | None = None


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(codings, "_registered", {})
    codings._search.cache_clear()
    seqrpc.register_type(Money, wire_type=str, encode=str, decode=Money.parse)
    seqrpc.register_type(Angle, wire_type=float, encode=lambda angle: angle.degrees, decode=Angle)
    yield
    codings._search.cache_clear()


class Bank(seqrpc.Service):
    @seqrpc.method
    async def double(self, money: Money) -> Money:
        return Money(2 * money.cents)

    @seqrpc.method
    async def turned(self, purse: Purse) -> Purse:
        assert purse.angle is not None
        return Purse(purse.content, Angle(purse.angle.degrees + 180))

    @seqrpc.method
    async def coins(self, money: Money | int) -> AsyncIterator[Money]:
        cents = money if isinstance(money, int) else money.cents
        for _ in range(cents):
            await asyncio.sleep(0)
            yield Money(1)

    @seqrpc.method
    async def broken(self) -> Money:
        return 5  # type: ignore[return-value]


async def test_objects_are_arguments_results_fields_and_items() -> None:
    async with on_a_pair(Bank()) as connection:
        bank = connection.proxy(Bank)
        assert await bank.double(Money(150)) == Money(300)
        assert await bank.turned(Purse([Money(5)], Angle(1.5))) == Purse([Money(5)], Angle(181.5))
        assert [coin async for coin in bank.coins(Money(2))] == [Money(1), Money(1)]
        assert [coin async for coin in bank.coins(1)] == [Money(1)]
        assert await connection.call("Bank.double", "1.50") == "3.00"


async def test_what_does_not_fit_is_told_by_what_decode_raises() -> None:
    async with on_a_pair(Bank()) as connection:
        with pytest.raises(seqrpc.InvalidParams, match=r"'x' is no amount - at `money`"):
            await connection.call("Bank.double", "x")
        with pytest.raises(seqrpc.InvalidParams, match=r"Expected `str`, got `int` - at `purse.content\[0\]`"):
            await connection.call("Bank.turned", {"content": [5]})
        with pytest.raises(seqrpc.Internal):
            await connection.call("Bank.broken")


@pytest.mark.parametrize(
    "cls, options, text",
    [
        ("Money", {}, r"register_type\(\) takes a class, got 'Money'"),
        (int, {}, "int travels as it is, and cannot be registered"),
        (Word, {}, "Word travels as the str that it is, and cannot be registered"),
        (Bank, {}, "Bank travels as it is, and cannot be registered"),
        (Purse, {"decode": 5}, r"register_type\(Purse, decode=...\) takes a function, got 5"),
        (Purse, {"encode": None}, r"register_type\(Purse, encode=...\) takes a function, got None"),
        (
            Purse,
            {"wire_type": complex},
            r"register_type\(Purse, wire_type=...\): values of type complex cannot",
        ),
        (Purse, {"wire_type": seqrpc.OwnedFd}, r"register_type\(Purse, wire_type=...\) takes plain data"),
    ],
)
def test_what_cannot_be_registered_is_a_type_error(cls: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=f"^{text}"):
        seqrpc.register_type(cls, **{"wire_type": str, "encode": str, "decode": str, **options})


def test_a_class_is_registered_once() -> None:
    with pytest.raises(ValueError, match="how Money travels is known already"):
        seqrpc.register_type(Money, wire_type=int, encode=lambda money: money.cents, decode=Money)
