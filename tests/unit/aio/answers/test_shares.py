"""What is sent in place of answers for which one user has no room any more."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from support.daemons import on_a_pair

import seqrpc
from seqrpc import OwnedFd
from seqrpc.aio.accounts import IN_FLIGHT, UNSENT_BYTES, Account
from seqrpc.aio.connection import link_of


class Giver(seqrpc.Service):
    """Answers as if its caller held much already."""

    def _account(self) -> Account:
        return link_of(seqrpc.current_call().connection).account

    @seqrpc.method
    async def read(self, held: int) -> bytes:
        account = self._account()
        account.held[UNSENT_BYTES] = account.total[UNSENT_BYTES] = held
        return bytes(200_000)

    @seqrpc.method
    async def lend(self, held: int) -> OwnedFd:
        account = self._account()
        account.held[IN_FLIGHT] = account.total[IN_FLIGHT] = held
        return OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


class Heard(seqrpc.Interceptor):
    def __init__(self) -> None:
        self.codes: list[str | None] = []

    def ended(self, record: seqrpc.CallRecord) -> None:
        self.codes.append(record.code)


@pytest.mark.parametrize("intercepted", [False, True])
async def test_a_long_answer_is_refused_if_much_is_unsent_already(intercepted: bool) -> None:
    heard = Heard()
    surrounds: Sequence[seqrpc.Interceptor] = [heard] if intercepted else []
    async with on_a_pair(Giver(), interceptors=surrounds) as connection:
        assert len(await connection.call("Giver.read", 0)) == 200_000
        with pytest.raises(seqrpc.Overloaded, match=r"unsent bytes here already.*max_total_unsent_bytes"):
            await connection.call("Giver.read", 256 * 1024 * 1024)
        assert len(await connection.call("Giver.read", 0)) == 200_000
    if intercepted:
        assert heard.codes == [None, "rpc.Overloaded", None]


async def test_descriptors_are_refused_and_closed_if_many_are_in_flight_already() -> None:
    async with on_a_pair(Giver()) as connection:
        (await connection.call("Giver.lend", 0)).close()
        with pytest.raises(seqrpc.Overloaded, match=r"descriptors in flight here already.*RLIMIT_NOFILE"):
            await connection.call("Giver.lend", 1 << 61)
        (await connection.call("Giver.lend", 0)).close()
