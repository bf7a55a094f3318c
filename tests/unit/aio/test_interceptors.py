"""What an interceptor is that overrides little, or calls its base."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.daemons import on_a_pair

import seqrpc
from seqrpc.aio.interceptors import Proceed


class Adder(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


class Polite(seqrpc.Interceptor):
    """Leaves everything to its base."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def handle(self, call: seqrpc.CurrentCall, proceed: Proceed) -> Any:
        self.seen.append("handle")
        return await super().handle(call, proceed)

    def ended(self, record: seqrpc.CallRecord) -> None:
        super().ended(record)
        self.seen.append("ended")

    async def request(self, call: seqrpc.OutgoingCall, proceed: Proceed) -> Any:
        self.seen.append("request")
        return await super().request(call, proceed)


async def test_one_that_leaves_everything_to_its_base_changes_nothing() -> None:
    polite = Polite()
    async with on_a_pair(Adder(), interceptors=[polite], client_interceptors=[polite]) as connection:
        assert await connection.proxy(Adder).add(2, 3) == 5
        assert polite.seen == ["request", "handle", "ended"]
        assert [item async for item in connection.proxy(Adder).count(3)] == [0, 1, 2]


async def test_one_that_overrides_nothing_is_never_asked() -> None:
    nobody = seqrpc.Interceptor()
    async with on_a_pair(Adder(), interceptors=[nobody], client_interceptors=[nobody]) as connection:
        assert await connection.proxy(Adder).add(2, 3) == 5


async def test_what_is_told_cannot_be_changed() -> None:
    record = seqrpc.CallRecord(method="A.b", caller=None, code=None, duration=0.5, oneway=False, meta={})
    call = seqrpc.OutgoingCall(method="A.b", oneway=False, deadline=None, meta={})
    told: Any
    for told in (record, call):
        with pytest.raises(dataclasses.FrozenInstanceError):
            told.method = "C.d"
    assert record == dataclasses.replace(record)
