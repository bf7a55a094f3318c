from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from daemons import PATIENCE, Stage, as_user, needs_root, on_a_pair, raw_client
from processes import OTHER_GID, OTHER_UID

import seqrpc
from seqrpc import policy


class Vault(seqrpc.Service):
    """An object that is given away."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.closed = 0
        self.callers: list[seqrpc.Credentials] = []
        self.met: list[Any] = []

    async def close(self) -> None:
        self.closed += 1
        self.stage.reach("closed")

    @seqrpc.method
    async def look(self, number: int = 1) -> int:
        self.callers.append(seqrpc.current_call().caller)
        return number

    @seqrpc.method(oneway=True)
    async def knock(self) -> None:
        self.stage.reach("knocked")

    @seqrpc.method
    async def wait(self, name: str) -> str:
        self.stage.reach(f"{name} began")
        try:
            await self.stage.wait(f"{name} may go on")
        except asyncio.CancelledError:
            self.stage.reach(f"{name} cancelled")
            raise
        return name

    @seqrpc.method
    async def block(self) -> None:
        """Go on although it is cancelled."""
        self.stage.reach("block began")
        while not self.stage.reached.count("block may end"):
            with contextlib.suppress(asyncio.CancelledError):
                await self.stage.wait("block may end")

    @seqrpc.method
    async def meet(self, other: Vault) -> None:
        self.met.append(other)

    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @seqrpc.method
    async def revoke(self) -> str:
        await seqrpc.revoke(self)
        return "revoked"


class Listener(seqrpc.Service):
    """What a caller passes in, to be called back."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.stage = Stage()

    @seqrpc.method
    async def hear(self, text: str) -> int:
        self.heard.append(text)
        return len(self.heard)

    async def close(self) -> None:
        self.stage.reach("closed")


class Bank(seqrpc.Service):
    """Gives a vault away, and takes others'."""

    def __init__(self) -> None:
        self.vault = Vault()
        self.other: seqrpc.Service = self.vault
        self.kept: list[Any] = []
        self.stage = Stage()

    @seqrpc.method
    async def open(self) -> Vault:
        return self.vault

    @seqrpc.method
    def open_in_a_thread(self) -> Vault:
        return self.vault

    @seqrpc.method
    async def open_many(self, number: int) -> list[Vault]:
        return [self.vault] * number

    @seqrpc.method
    async def open_other(self) -> Any:
        return self.other

    @seqrpc.method
    async def tell(self, listener: Listener, text: str) -> int:
        return await listener.hear(text)

    @seqrpc.method
    async def keep(self, vault: Vault) -> None:
        self.kept.append(vault)

    @seqrpc.method
    async def give_back(self) -> Vault:
        vault: Vault = self.kept.pop()
        return vault

    @seqrpc.method
    async def use(self, number: int) -> int:
        vault: Vault = self.kept[-1]
        return await vault.look(number)


def proxy_close(proxy: object) -> Any:
    """Return what lets go of the object behind a proxy."""
    return proxy.close()  # type: ignore[attr-defined]


async def channel_to(connection: seqrpc.Connection, method: str = "Bank.open") -> seqrpc.Channel:
    channel = await connection.call(method)
    assert isinstance(channel, seqrpc.Channel)
    return channel


def open_count() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Any) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


# Giving objects away


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


@pytest.mark.parametrize("how", ["closing", "dropping", "block", "dying"])
async def test_the_hook_runs_once_when_the_last_of_several_holders_lets_go(how: str) -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channels = [await channel_to(connection) for _ in range(3)]
        for channel in channels[:2]:  # one was never used
            assert await channel.call("Vault.look", 5) == 5
        while channels:
            assert bank.vault.closed == 0
            channel = channels.pop()
            if how == "closing":
                await channel.close()
            elif how == "block":
                async with channel.proxy(Vault):
                    pass
            elif how == "dying":
                with socket.socket(fileno=channel.detach().take()) as raw:
                    raw.shutdown(socket.SHUT_RDWR)  # what another process's end does
            del channel
            await until(lambda: not bank.vault.stage.reached or bank.vault.closed)
            if channels:
                assert await channels[0].call("Vault.look", 5) == 5
        await bank.vault.stage.wait("closed")
        assert bank.vault.closed == 1
    assert bank.vault.closed == 1


async def test_a_channel_dropped_in_another_thread_is_let_go() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        held = [await channel_to(connection)]
        assert await held[0].call("Vault.look", 5) == 5
        thread = threading.Thread(target=held.clear)
        thread.start()
        await asyncio.to_thread(thread.join)
        await bank.vault.stage.wait("closed")


def test_a_channel_dropped_after_its_loop_leaves_nothing() -> None:
    before = open_count()

    async def open_one() -> seqrpc.Channel:
        async with on_a_pair(Bank()) as connection:
            channel = await channel_to(connection)
            assert await channel.call("Vault.look", 5) == 5
            return channel

    channel = asyncio.run(open_one())
    del channel
    assert open_count() == before


async def test_an_object_can_be_given_away_again_after_its_end() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        for round_ in (1, 2):
            channel = await channel_to(connection)
            assert await channel.call("Vault.look", 5) == 5
            await channel.close()
            await until(lambda expected=round_: bank.vault.closed == expected)


async def test_an_object_that_is_given_away_again_at_once_is_not_closed() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        for _ in range(5):
            channel = await channel_to(connection)
            assert await channel.call("Vault.look", 5) == 5
            blocked = asyncio.ensure_future(channel.call("Vault.block"))
            await bank.vault.stage.wait("block began")
            await channel.close()
            with pytest.raises(seqrpc.ConnectionLost):
                await blocked
            channel = await channel_to(connection)  # while the handler of the last still runs
            bank.vault.stage.reach("block may end")
            for _ in range(20):
                assert await channel.call("Vault.look", 5) == 5
            assert bank.vault.closed == 0
            bank.vault.stage = Stage()
            await channel.close()
            await bank.vault.stage.wait("closed")
            bank.vault = Vault()


class SyncHook(Vault):
    def close(self) -> None:  # type: ignore[override]
        self.closed += 1
        self.stage.reach("closed")


class FailingHook(Vault):
    async def close(self) -> None:
        await super().close()
        raise RuntimeError("the hook failed")


class SyncFailingHook(Vault):
    def close(self) -> None:  # type: ignore[override]
        self.stage.reach("closed")
        raise RuntimeError("the hook failed")


@pytest.mark.parametrize("kind", [SyncHook, FailingHook, SyncFailingHook])
async def test_hooks_may_be_plain_functions_and_may_fail(kind: type[Vault], caplog: pytest.LogCaptureFixture) -> None:
    bank = Bank()
    bank.vault = kind()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        await channel.close()
        await bank.vault.stage.wait("closed")
        await until(lambda: kind is SyncHook or "the hook failed" in caplog.text)
        assert await (await connection.proxy(Bank).open()).look(5) == 5


async def test_handlers_are_cancelled_and_waited_for_before_the_hook_runs() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        call = asyncio.ensure_future(channel.call("Vault.wait", "a"))
        await bank.vault.stage.wait("a began")
        await channel.close()
        await bank.vault.stage.wait("closed")
        assert bank.vault.stage.reached == ["a began", "a cancelled", "closed"]
        with pytest.raises(seqrpc.ConnectionLost):
            await call


async def test_a_handler_that_goes_on_is_left_after_the_close_timeout(caplog: pytest.LogCaptureFixture) -> None:
    bank = Bank()
    async with on_a_pair(bank, limits=seqrpc.Limits(close_timeout=0.05)) as connection:
        channel = await channel_to(connection)
        call = asyncio.ensure_future(channel.call("Vault.block"))
        await bank.vault.stage.wait("block began")
        await channel.close()
        await bank.vault.stage.wait("closed")
        assert "still running after they were cancelled" in caplog.text
        bank.vault.stage.reach("block may end")
        with pytest.raises(seqrpc.ConnectionLost):
            await call


# Revoking


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 20])
async def test_the_next_call_after_a_revocation_is_unavailable_and_says_so(used: bool, turns: int) -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channels = [await channel_to(connection) for _ in range(2)]
        if used:
            for channel in channels:
                assert await channel.call("Vault.look", 5) == 5
        await seqrpc.revoke(bank.vault)
        for _ in range(turns):
            await asyncio.sleep(0)
        for channel in channels:
            for _ in range(2):
                with pytest.raises(seqrpc.Unavailable, match="the object was revoked"):
                    await channel.call("Vault.look", 5)
            with pytest.raises(seqrpc.Unavailable, match="the object was revoked"):
                await channel.notify("Vault.knock")
            with pytest.raises(seqrpc.Unavailable, match="the object was revoked"):
                await anext(channel.proxy(Vault).count())
        await bank.vault.stage.wait("closed")
        assert bank.vault.closed == 1
        assert await (await connection.proxy(Bank).open()).look(5) == 5


async def test_calls_that_run_are_cancelled_by_a_revocation_and_told_why() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channels = [await channel_to(connection) for _ in range(2)]
        calls = [asyncio.ensure_future(channel.call("Vault.wait", "a")) for channel in channels]
        await until(lambda: bank.vault.stage.reached.count("a began") == 2)
        await seqrpc.revoke(bank.vault)
        await bank.vault.stage.wait("closed")
        assert bank.vault.stage.reached.count("a cancelled") == 2
        for call in calls:
            with pytest.raises((seqrpc.ConnectionLost, seqrpc.Unavailable), match="the object was revoked"):
                await call


async def test_a_handler_that_revokes_its_own_object_is_answered_and_nobody_else() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel, other = [await channel_to(connection) for _ in range(2)]
        same_channel = asyncio.ensure_future(channel.call("Vault.wait", "a"))
        other_channel = asyncio.ensure_future(other.call("Vault.wait", "b"))
        await bank.vault.stage.wait("a began")
        await bank.vault.stage.wait("b began")
        assert await channel.call("Vault.revoke") == "revoked"
        await bank.vault.stage.wait("closed")
        assert {"a cancelled", "b cancelled"} <= set(bank.vault.stage.reached)
        for call in (same_channel, other_channel):
            with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled, seqrpc.Unavailable)):
                await call
        for revoked in (channel, other):
            with pytest.raises(seqrpc.Unavailable, match="the object was revoked"):
                await revoked.call("Vault.look", 5)
        assert bank.vault.closed == 1


async def test_revoking_what_nobody_holds_does_nothing() -> None:
    vault = Vault()
    await seqrpc.revoke(vault)
    assert vault.closed == 0


async def test_a_revoked_channel_cannot_be_passed_on() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        assert await channel.call("Vault.look", 5) == 5
        await seqrpc.revoke(bank.vault)
        with pytest.raises(seqrpc.Unavailable):
            await channel.call("Vault.look", 5)
        with pytest.raises(seqrpc.LocalProtocolError, match=r"revoked|closed"):
            await connection.call("Bank.keep", channel)


# Who may call, and who calls


class Guarded(seqrpc.Service, allow=policy.same_user):
    @seqrpc.method
    async def by_class(self) -> int | None:
        return seqrpc.current_call().caller.uid

    @seqrpc.method(allow=policy.uid(OTHER_UID))
    async def by_method(self) -> int | None:
        return seqrpc.current_call().caller.uid


class Unguarded(seqrpc.Service):
    @seqrpc.method
    async def look(self) -> list[int | None]:
        caller = seqrpc.current_call().caller
        assert caller == seqrpc.current_call().caller
        return [caller.pid, caller.uid, caller.gid]


_ASK_ALL = """
sock = socket.socket(fileno=int(argv[0]))
show([os.getpid(), *[ask(sock, 0, number, method, []) for number, method in enumerate(argv[1:])]])
sock.detach()
"""


@needs_root
async def test_whoever_holds_a_channel_may_call_and_is_known_by_the_packet_not_by_the_pair() -> None:
    bank = Bank()
    bank.other = Unguarded()
    async with on_a_pair(bank, allow=policy.uid(os.geteuid())) as connection:
        channel = await channel_to(connection, "Bank.open_other")
        with channel.detach() as fd:
            pid, answer = await as_user(_ASK_ALL, str(fd.fileno()), "Unguarded.look", pass_fds=[fd.fileno()])
            assert answer == [None, [pid, OTHER_UID, OTHER_GID]]
            with raw_client(socket.socket(fileno=fd.take())) as client:
                await client.send(0, 1, "Unguarded.look", [])
                assert await client.receive() == [1, 1, None, [os.getpid(), os.geteuid(), os.getegid()]]


@needs_root
async def test_what_class_and_method_say_is_asked_with_the_true_sender_of_each_packet() -> None:
    bank = Bank()
    bank.other = Guarded()
    methods = ("Guarded.by_class", "Guarded.by_method", "Guarded.nothing")
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection, "Bank.open_other")
        with channel.detach() as fd:
            _pid, by_class, by_method, nothing = await as_user(
                _ASK_ALL, str(fd.fileno()), *methods, pass_fds=[fd.fileno()]
            )
            assert by_class[0][0] == nothing[0][0] == "rpc.PermissionDenied"
            assert by_method == [None, OTHER_UID]
            with raw_client(socket.socket(fileno=fd.take())) as client:
                answers = []
                for number, method in enumerate(methods):
                    await client.send(0, number, method, [])
                    answers.append((await client.receive())[2:])
        assert answers[0] == [None, os.geteuid()]
        assert [answer[0][0] for answer in answers[1:]] == ["rpc.PermissionDenied", "rpc.MethodNotFound"]


async def test_nothing_but_the_object_can_be_called_over_its_channel_in_either_direction() -> None:
    bank = Bank()
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection)
        with pytest.raises(seqrpc.MethodNotFound):
            await channel.call("Bank.open")
        assert await channel.call("rpc.ping") is None


# Passing channels on


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


async def test_draining_waits_for_calls_on_channels_and_refuses_new_ones() -> None:
    bank = Bank()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(bank, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        channel = await channel_to(connection)
        call = asyncio.ensure_future(channel.call("Vault.wait", "a"))
        await bank.vault.stage.wait("a began")
        draining = asyncio.ensure_future(server.drain())
        await until(lambda: channel._connection._session.closing_received)  # type: ignore[union-attr]
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await channel.call("Vault.look", 5)
        assert not draining.done()
        bank.vault.stage.reach("a may go on")
        assert await call == "a"
        assert await draining
        assert bank.vault.closed == 1, "the hook has run when the server has ended"
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await channel.call("Vault.look", 5)


async def test_closing_a_server_ends_its_objects_and_waits_for_their_hooks() -> None:
    bank = Bank()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(bank, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        channel = await channel_to(connection)
        unused = await channel_to(connection)
        call = asyncio.ensure_future(channel.call("Vault.wait", "a"))
        await bank.vault.stage.wait("a began")
        await server.close()
        assert bank.vault.stage.reached == ["a began", "a cancelled", "closed"]
        with pytest.raises((seqrpc.ConnectionLost, seqrpc.Unavailable), match="the server is stopping"):
            await call
        for held in (channel, unused):
            with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
                await held.call("Vault.look", 5)
        assert bank.vault.closed == 1
