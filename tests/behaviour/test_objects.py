"""Objects as values, in both directions, and calls back while this side waits."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.daemons import Stage
from support.echo import Echo
from support.faces import Client, Kind
from support.vaults import Bank, Vault
from support.waiting import PATIENCE, comes_true

import seqrpc


class Listener(seqrpc.Service):
    """What a client passes in. Its methods never wait, so that a client without an event loop can run them."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.closed = 0
        self.threads: set[int] = set()

    @seqrpc.method
    async def hear(self, text: str) -> int:
        self.heard.append(text)
        self.threads.add(threading.get_ident())
        return len(self.heard)

    @seqrpc.method
    def hear_plainly(self, text: str) -> int:
        self.heard.append(text)
        return len(self.heard)

    @seqrpc.method
    async def fails(self) -> None:
        raise seqrpc.RpcError("not now", code="listener.Busy", data=[1])

    @seqrpc.method
    async def caller(self) -> int | None:
        return seqrpc.current_call().caller.pid

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    async def close(self) -> None:
        self.closed += 1


class Guest(seqrpc.Service):
    """What a client serves."""

    @seqrpc.method
    async def answer(self, question: str) -> str:
        return f"{question}!"

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    async def secret(self) -> None:
        pass


class Desk(seqrpc.Service):
    """Calls back those who call."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.stage = Stage()

    @seqrpc.method
    async def tell(self, listener: Listener, times: int) -> list[int]:
        return [await listener.hear(str(number)) for number in range(times)]

    @seqrpc.method
    async def tell_plainly(self, listener: Listener) -> int:
        return await listener.hear_plainly("plainly")

    @seqrpc.method
    async def at_once(self, listener: Listener, times: int) -> list[int]:
        return sorted(await asyncio.gather(*(listener.hear(str(number)) for number in range(times))))

    @seqrpc.method
    async def who(self, listener: Listener) -> int | None:
        return await listener.caller()

    @seqrpc.method
    async def see_it_fail(self, listener: Listener) -> list[Any]:
        try:
            await listener.fails()
        except seqrpc.RpcError as exc:
            return [exc.code, exc.message, exc.data]
        raise AssertionError("it did not fail")

    @seqrpc.method
    async def sum_up(self, listener: Listener, to: int) -> int:
        return sum([number async for number in listener.count(to)])

    @seqrpc.method
    async def keep(self, listener: Listener) -> None:
        self.kept = listener

    @seqrpc.method
    async def use(self, text: str) -> int:
        heard: int = await self.kept.hear(text)
        return heard

    @seqrpc.method
    async def let_go(self) -> None:
        await self.kept.close()

    @seqrpc.method
    async def give_back(self) -> Listener:
        kept: Listener = self.kept
        return kept

    @seqrpc.method
    async def ask(self, method: str, *, question: str = "") -> Any:
        return await seqrpc.current_call().connection.call(method, *([question] if question else []))

    @seqrpc.method
    async def try_kept(self) -> str:
        try:
            await self.kept.hear("revoked?")
        except seqrpc.RpcError as exc:
            return str(exc)
        return "heard"


async def test_an_object_that_is_returned_is_called_and_closed_when_it_is_let_go(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        vault = await client.proxy(Bank).open()
        assert [await vault.look(5), await vault.look(number=6)] == [5, 6]
        await vault.knock()
        await bank.vault.stage.wait("knocked")
        assert [caller.pid for caller in bank.vault.callers] == [os.getpid()] * 2
        assert [number async for number in vault.count()] == [0, 1, 2]
        assert bank.vault.closed == 0
        await vault.close()
        await bank.vault.stage.wait("closed")


async def test_a_channel_is_called_by_names_and_makes_proxies(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        channel = await client.call("Bank.open")
        assert isinstance(channel, Client)
        assert (repr(channel), channel.closed, channel.closing_reason) == ("<Channel open>", False, None)
        assert await channel.call("Vault.look", 5) == 5
        assert await channel.proxy(Vault).look(7) == 7
        await channel.notify("Vault.knock")
        await bank.vault.stage.wait("knocked")
        with pytest.raises(seqrpc.MethodNotFound):
            await channel.call("Bank.open")
        await channel.close()
        assert (repr(channel), channel.closed) == ("<Channel closed>", True)
        with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
            await channel.call("Vault.look", 5)


async def test_dropping_a_channel_lets_go(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        vault = await client.proxy(Bank).open()
        assert await vault.look(1) == 1
        del vault
        await bank.vault.stage.wait("closed")
        many = await client.call("Bank.open_many", 20)
        assert [await channel.call("Vault.look", 3) for channel in many] == [3] * 20
        del many
        await comes_true(lambda: bank.vault.closed == 2)


async def test_metadata_and_deadlines_go_along_over_channels(kind: Kind) -> None:
    bank = Bank()
    bank.other = Echo()
    async with kind.serving(bank) as client:
        other = await client.call("Bank.open_other")
        with seqrpc.metadata(trace="5"):
            async with kind.timeout(60):
                meta, deadline = await other.call("Echo.surroundings")
        assert (meta, deadline is not None) == ({"trace": "5"}, True)


async def test_a_call_of_an_object_that_takes_too_long_is_cancelled(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        vault = await client.proxy(Bank).open()
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with kind.timeout(0.05):
                await vault.wait("a")
        await bank.vault.stage.wait("a cancelled")
        assert await vault.look(2) == 2


async def test_a_channel_outlives_its_connection(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as other:
        ours, theirs = seqrpc.socket_pair()
        async with seqrpc.serve(bank, sock=theirs):
            async with kind.connected(sock=ours) as client:
                vault = await client.proxy(Bank).open()
            assert await vault.look(1) == 1
        assert await (await other.proxy(Bank).open()).look(2) == 2


async def test_a_channel_is_passed_on_and_comes_back(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        proxy = client.proxy(Bank)
        for used in (False, True):
            vault = await proxy.open()
            if used:
                assert await vault.look(1) == 1
            await proxy.keep(vault)
            with pytest.raises(seqrpc.ConnectionLost, match="passed on"):
                await vault.look(2)
            assert await proxy.use(3) == 3
            again = await proxy.give_back()
            assert await again.look(4) == 4
            await again.close()


async def test_a_channel_that_could_not_be_sent_is_as_it_was(kind: Kind) -> None:
    async with kind.serving(Bank()) as client:
        for used in (False, True):
            channel = await client.call("Bank.open")
            if used:
                assert await channel.call("Vault.look", 5) == 5
            with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
                await client.call("Bank.keep", channel, object())
            assert await channel.call("Vault.look", 6) == 6


async def test_a_channel_with_calls_under_way_cannot_be_passed_on(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        vault = await client.proxy(Bank).open()
        call = asyncio.ensure_future(vault.wait("a"))
        await bank.vault.stage.wait("a began")
        with pytest.raises(seqrpc.LocalProtocolError, match="calls under way"):
            await client.proxy(Bank).keep(vault)
        bank.vault.stage.reach("a may go on")
        assert await call == "a"
        await client.proxy(Bank).keep(vault)


async def test_an_object_that_was_revoked_says_so(kind: Kind) -> None:
    bank = Bank()
    async with kind.serving(bank) as client:
        channel = await client.call("Bank.open")
        assert await channel.call("Vault.look", 1) == 1
        await seqrpc.revoke(bank.vault)
        with pytest.raises(seqrpc.Unavailable, match="the object was revoked") as caught:
            await channel.call("Vault.look", 2)
        assert caught.value.reason == channel.closing_reason == "the object was revoked"
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN


async def test_an_object_s_own_method_may_revoke_it(kind: Kind) -> None:
    async with kind.serving(Bank()) as client:
        channel = await client.call("Bank.open")
        calls = [channel.call("Vault.revoke") for _ in range(3)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in ended} <= {str, seqrpc.ConnectionLost, seqrpc.Cancelled, seqrpc.Unavailable}
        assert await client.call("rpc.ping") is None


# Objects of this side's


async def test_an_object_that_is_passed_in_is_called_while_we_wait(kind: Kind) -> None:
    listener = Listener()
    async with kind.serving(Desk()) as client:
        assert await client.proxy(Desk).tell(listener, 10) == [*range(1, 11)]
        assert await client.call("Desk.tell", listener, 2) == [11, 12]
        assert await client.call("Desk.tell_plainly", listener) == 13
        assert await client.call("Desk.who", listener) == os.getpid()
        assert await client.call("Desk.at_once", listener, 30) == [*range(14, 44)]
        assert (threading.get_ident() in listener.threads) is (kind.name == "asyncio")


async def test_its_errors_and_streams_get_there(kind: Kind) -> None:
    async with kind.serving(Desk()) as client:
        assert await client.call("Desk.see_it_fail", Listener()) == ["listener.Busy", "not now", [1]]
        assert await client.call("Desk.sum_up", Listener(), 2000) == sum(range(2000))


async def test_an_object_is_closed_when_nobody_holds_it_any_more(kind: Kind) -> None:
    listener, desk = Listener(), Desk()
    async with kind.serving(desk) as client:
        await client.call("Desk.keep", listener)
        assert await client.call("Desk.use", "a") == 1
        assert await client.call("Desk.use", "b") == 2
        assert listener.closed == 0
        await client.call("Desk.let_go")
        await client.call("rpc.ping")
        async with asyncio.timeout(PATIENCE):
            while not listener.closed:
                await client.call("rpc.ping")
        assert listener.heard == ["a", "b"]


async def test_an_object_is_closed_when_its_holder_s_server_is(kind: Kind) -> None:
    listener, desk = Listener(), Desk()
    ours, theirs = seqrpc.socket_pair()
    async with kind.connected(sock=ours) as client:
        async with seqrpc.serve(desk, sock=theirs):
            await client.call("Desk.keep", listener)
        await desk.kept.close()
        with pytest.raises(seqrpc.SeqrpcError):
            await client.call("rpc.ping")
        if kind.name == "blocking":
            await kind.do(client.raw.process)
        await comes_true(lambda: listener.closed == 1)


async def test_an_object_that_comes_back_is_called_through(kind: Kind) -> None:
    listener = Listener()
    async with kind.serving(Desk()) as client:
        await client.call("Desk.keep", listener)
        channel = await client.call("Desk.give_back")
        assert await channel.call("Listener.hear", "there and back") == 1, "who waits for the answer serves the call"
        await channel.close()
        async with asyncio.timeout(PATIENCE):
            while not listener.closed:
                await client.call("rpc.ping")


async def test_this_side_revokes_its_object(kind: Kind) -> None:
    listener = Listener()
    async with kind.serving(Desk()) as client:
        await client.call("Desk.keep", listener)
        assert await client.call("Desk.use", "a") == 1
        await kind.revoke(listener)
        assert await client.call("Desk.try_kept") == (
            "rpc.Unavailable: the other side takes no new requests: the object was revoked"
        )
        await client.call("rpc.ping")
        assert listener.closed == 1
        await kind.revoke(listener)


async def test_an_object_that_could_not_be_sent_is_not_given_away(kind: Kind) -> None:
    listener = Listener()
    async with kind.serving(Desk()) as client:
        with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
            await client.call("Desk.keep", listener, object())
        await client.close()
        with pytest.raises(seqrpc.ConnectionLost):
            await client.call("Desk.keep", listener)
    assert listener.closed == 0


async def test_a_service_of_the_client_is_called_back_while_it_waits(kind: Kind) -> None:
    async with kind.serving(Desk(), Echo(), services=Guest()) as client:
        assert await client.call("Echo.ask_back", "really?") == "the guest says: really?!"
        with pytest.raises(seqrpc.RpcError):
            await client.call("Desk.ask", method="Guest.secret")
    async with kind.serving(Desk(), services=[Guest()], allow=~seqrpc.policy.anyone) as client:
        with pytest.raises(seqrpc.RpcError):
            await client.call("Desk.ask", method="Guest.answer", question="me?")


async def test_calls_back_may_nest(kind: Kind) -> None:
    class Deep(seqrpc.Service):
        @seqrpc.method
        async def descend(self, levels: int) -> int:
            if levels == 0:
                return 0
            return 1 + await seqrpc.current_call().connection.proxy(Deep).descend(levels - 1)

    class DeepBlocking(seqrpc.Service, name="Deep"):
        @seqrpc.method
        def descend(self, levels: int) -> int:
            if levels == 0:
                return 0
            call: Any = seqrpc.blocking.current_call()
            return 1 + int(call.connection.call("Deep.descend", levels - 1))

    ours = Deep() if kind.name == "asyncio" else DeepBlocking()
    globals()["Deep"] = Deep
    try:
        async with kind.serving(Deep(), services=ours) as client:
            assert await client.call("Deep.descend", 12) == 12
    finally:
        del globals()["Deep"]


async def test_a_handler_of_the_client_knows_its_caller_and_its_connection(kind: Kind) -> None:
    seen: list[Any] = []

    class Curious(seqrpc.Service, name="Guest"):
        @seqrpc.method
        async def answer(self, question: str) -> str:
            call = seqrpc.current_call()
            seen.append((call.caller.pid, call.method, dict(call.meta), call.connection))
            return question

    async with kind.serving(Echo(), services=Curious()) as client:
        assert await client.call("Echo.ask_back", "who?") == "the guest says: who?"
        assert seen[0][:3] == (os.getpid(), "Guest.answer", {})
        assert seen[0][3] is client.raw
        seen.clear()
