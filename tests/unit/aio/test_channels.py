from __future__ import annotations

import asyncio
import dataclasses
import os

import pytest
from support.daemons import on_a_pair
from support.descriptors import open_count
from support.vaults import Bank, Listener, Vault, channel_to, proxy_close
from support.waiting import PATIENCE

import seqrpc


@pytest.mark.parametrize("how", ["open", "open_in_a_thread"])
async def test_a_service_that_is_returned_is_a_live_proxy_to_that_very_object(how: str) -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        vault = await getattr(connection.proxy(Bank), how)()
        assert await vault.look(5) == 5
        assert await vault.look(number=6) == 6
        await vault.knock()
        await bank.vault.stage.wait("knocked")
        assert [caller.pid for caller in bank.vault.callers] == [os.getpid()] * 2
        assert [number async for number in vault.count()] == [0, 1, 2]
        assert bank.vault.closed == 0
        await proxy_close(vault)
        await bank.vault.stage.wait("closed")
        assert bank.vault.closed == 1


async def test_a_service_that_is_passed_in_is_called_back() -> None:
    listener = Listener()
    async with on_a_pair(Bank()) as connection:
        assert await connection.proxy(Bank).tell(listener, "a") == 1
        await listener.stage.wait("closed")
        assert await connection.proxy(Bank).tell(listener, "b") == 2
        assert listener.heard == ["a", "b"]


async def test_a_channel_is_called_by_names_and_makes_proxies() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        assert repr(channel) == "<Channel open>"
        assert not channel.closed
        assert await channel.call("Vault.look", 5) == 5
        assert await channel.call("Vault.look", number=6) == 6
        assert await channel.proxy(Vault).look(7) == 7
        await channel.notify("Vault.knock")
        await bank.vault.stage.wait("knocked")
        with pytest.raises(TypeError, match="by position or by name, not both"):
            await channel.call("Vault.look", 1, number=1)
        with pytest.raises(seqrpc.MethodNotFound):
            await channel.call("Bank.open")
        await channel.close()
        assert repr(channel) == "<Channel closed>"
        assert channel.closed
        with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
            await channel.call("Vault.look", 5)
        await channel.close()


async def test_a_channel_that_was_never_used_can_be_let_go() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        await channel.close()
        await bank.vault.stage.wait("closed")
        with pytest.raises(seqrpc.ConnectionLost, match="closed, or passed on"):
            await channel.call("Vault.look", 5)
        with pytest.raises(seqrpc.ConnectionLost, match="closed, or passed on"):
            await channel.wait_closed()


async def test_deadline_and_metadata_go_along_over_channels() -> None:
    class Around(seqrpc.Service):
        @seqrpc.method
        async def look(self) -> tuple[dict[str, str], bool]:
            call = seqrpc.current_call()
            return dict(call.meta), call.deadline is not None

    bank = Bank()
    bank.other = Around()
    async with on_a_pair(bank) as connection:
        around = (await channel_to(connection, "Bank.open_other")).proxy(Around)
        with seqrpc.metadata(trace="5"):
            async with seqrpc.timeout(60):
                assert await around.look() == ({"trace": "5"}, True)
        assert await around.look() == ({}, False)


async def test_a_channel_outlives_the_connection_that_brought_it() -> None:
    bank = Bank()
    ours, theirs = seqrpc.socket_pair()
    second, third = seqrpc.socket_pair()
    async with seqrpc.serve(bank, sock=third), seqrpc.connect(sock=second) as other:
        async with seqrpc.serve(bank, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
            vault = await connection.proxy(Bank).open()
            await connection.close()
            async with asyncio.timeout(PATIENCE):
                await server.wait_closed()
            assert await vault.look(1) == 1
        await bank.vault.stage.wait("closed")  # the server that gave it away is closed
        assert await (await other.proxy(Bank).open()).look(2) == 2


async def test_a_channel_is_waited_for_until_its_object_is_gone() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        waiting = asyncio.ensure_future(channel.wait_closed())
        assert await channel.call("Vault.look", 5) == 5
        assert not waiting.done()
        await seqrpc.revoke(bank.vault)
        async with asyncio.timeout(PATIENCE):
            await waiting
        assert channel.closed


async def test_a_dataclass_that_is_a_service_travels_as_a_channel_wherever_it_is() -> None:
    @dataclasses.dataclass(eq=False)
    class Account(seqrpc.Service):
        secret: str
        balance: int = 5

        @seqrpc.method
        async def look(self) -> int:
            return self.balance

    @dataclasses.dataclass
    class Inner:
        accounts: list[Account]

    @dataclasses.dataclass
    class Outer:
        first: Account
        inner: Inner
        by_name: dict[str, Account]
        none: Account | None = None

    class House(seqrpc.Service):
        @seqrpc.method
        async def everything(self) -> Outer:
            return Outer(Account("a"), Inner([Account("b", 6)]), {"c": Account("c", 7)})

        @seqrpc.method
        async def plain(self) -> Account:
            return Account("d", 8)

        @seqrpc.method
        async def take(self, outer: Outer) -> int:
            return await outer.first.look() + await outer.inner.accounts[0].look()

    # Annotations are looked up among the module's names.
    globals().update(Account=Account, Inner=Inner, Outer=Outer)
    try:
        async with on_a_pair(House()) as connection:
            data = await connection.call("House.everything")
            assert isinstance(data["first"], seqrpc.Channel)
            assert isinstance(data["inner"]["accounts"][0], seqrpc.Channel)
            assert isinstance(data["by_name"]["c"], seqrpc.Channel)
            house = connection.proxy(House)
            outer = await house.everything()
            assert [
                await outer.first.look(),
                await outer.inner.accounts[0].look(),
                await outer.by_name["c"].look(),
                outer.none,
            ] == [5, 6, 7, None]
            assert await (await house.plain()).look() == 8
            assert await house.take(Outer(Account("e", 10), Inner([Account("f", 20)]), {})) == 30
    finally:
        for name in ("Account", "Inner", "Outer"):
            del globals()[name]


# The end of an object


@pytest.mark.parametrize("used", [False, True])
async def test_a_channel_that_is_passed_on_is_the_receiver_s_and_over_here(used: bool) -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        proxy = connection.proxy(Bank)
        vault = await proxy.open()
        if used:
            assert await vault.look(1) == 1
        await proxy.keep(vault)
        with pytest.raises(seqrpc.ConnectionLost, match="passed on"):
            await vault.look(2)
        assert await proxy.use(3) == 3
        with pytest.raises(seqrpc.LocalProtocolError, match="closed"):
            await proxy.keep(vault)
        again = await proxy.give_back()
        assert await again.look(4) == 4
        assert bank.vault.closed == 0
        await proxy_close(again)
        await bank.vault.stage.wait("closed")


async def test_a_channel_that_could_not_be_sent_is_as_it_was() -> None:
    async with on_a_pair(Bank()) as connection:
        channel = await channel_to(connection)
        for _ in range(2):
            with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
                await connection.call("Bank.keep", channel, object())
            assert await channel.call("Vault.look", 5) == 5
        fresh = await channel_to(connection)
        with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
            await connection.call("Bank.keep", fresh, object())
        assert await fresh.call("Vault.look", 5) == 5


async def test_an_object_that_could_not_be_sent_is_not_given_away() -> None:
    vault = Vault()
    before = open_count()
    async with on_a_pair(Bank()) as connection:
        with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
            await connection.call("Bank.keep", vault, object())
        await connection.close()
        with pytest.raises(seqrpc.ConnectionLost):
            await connection.call("Bank.keep", vault)
    assert open_count() == before
    await seqrpc.revoke(vault)
    assert vault.closed == 0


async def test_a_channel_with_calls_under_way_cannot_be_passed_on() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        vault = await connection.proxy(Bank).open()
        call = asyncio.ensure_future(vault.wait("a"))
        await bank.vault.stage.wait("a began")
        with pytest.raises(seqrpc.LocalProtocolError, match="calls under way"):
            await connection.proxy(Bank).keep(vault)
        bank.vault.stage.reach("a may go on")
        assert await call == "a"
        await connection.proxy(Bank).keep(vault)


async def test_a_channel_cannot_be_sent_over_itself() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        vault = await connection.proxy(Bank).open()
        with pytest.raises(seqrpc.LocalProtocolError, match="a channel cannot be sent over itself"):
            await vault.meet(vault)
        other = await connection.proxy(Bank).open()
        await vault.meet(other)
        assert await vault.look(5) == 5
        bank.vault.met.clear()


async def test_a_proxy_of_a_whole_connection_cannot_be_sent() -> None:
    async with on_a_pair(Bank()) as connection:
        proxy = connection.proxy(Bank)
        with pytest.raises(seqrpc.LocalProtocolError, match="only the proxy of a channel can be sent"):
            await connection.call("Bank.keep", proxy)


# Servers that end


class Looks(seqrpc.Service):
    """What may be called twice."""

    @seqrpc.method(idempotent=True)
    async def look(self) -> int:
        return 1

    @seqrpc.method
    async def other(self) -> seqrpc.Service:
        return Looks()


async def test_what_may_be_called_twice_is_called_once_over_a_channel() -> None:
    async with on_a_pair(Looks()) as connection:
        channel = await connection.call("Looks.other")
        assert channel.closing_reason is None
        assert await channel.proxy(Looks).look() == 1
        assert channel.closing_reason is None
