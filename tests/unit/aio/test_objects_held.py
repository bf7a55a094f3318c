"""What holders of objects and their makers see of one another."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import pytest
from support.daemons import Stage, as_user, needs_root, on_a_pair, raw_client, said_closing
from support.descriptors import open_count
from support.processes import OTHER_GID, OTHER_UID
from support.vaults import Bank, Vault, channel_to
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import policy
from seqrpc.aio.channels import end_of


async def closed(bank: Bank, times: int) -> None:
    await comes_true(lambda: bank.vault.closed == times)


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
                with socket.socket(fileno=end_of(channel).detach().detach()) as raw:
                    raw.shutdown(socket.SHUT_RDWR)  # what another process's end does
            del channel
            await comes_true(lambda: not bank.vault.stage.reached or bank.vault.closed)
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
            await closed(bank, round_)


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
        await comes_true(lambda: kind is SyncHook or "the hook failed" in caplog.text)
        assert await (await connection.proxy(Bank).open()).look(5) == 5


class CancellingHook(Vault):
    async def close(self) -> None:
        await super().close()
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task


async def test_a_hook_that_ends_cancelled_has_failed_and_its_server_is_closed_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bank = Bank()
    bank.vault = CancellingHook()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(bank, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        channel = await channel_to(connection)
        await server.close()
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
        assert bank.vault.closed == 1
        assert f"closing {bank.vault!r} failed" in caplog.text
        await channel.close()


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
        await comes_true(lambda: bank.vault.stage.reached.count("a began") == 2)
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
        with end_of(channel).detach() as fd:
            pid, answer = await as_user(_ASK_ALL, str(fd.fileno()), "Unguarded.look", pass_fds=[fd.fileno()])
            assert answer == [None, [pid, OTHER_UID, OTHER_GID]]
            with raw_client(socket.socket(fileno=fd.detach())) as client:
                await client.send(0, 1, "Unguarded.look", [])
                assert await client.receive() == [1, 1, None, [os.getpid(), os.geteuid(), os.getegid()]]


@needs_root
async def test_what_class_and_method_say_is_asked_with_the_true_sender_of_each_packet() -> None:
    bank = Bank()
    bank.other = Guarded()
    methods = ("Guarded.by_class", "Guarded.by_method", "Guarded.nothing")
    async with on_a_pair(bank) as connection:
        channel = await channel_to(connection, "Bank.open_other")
        with end_of(channel).detach() as fd:
            _pid, by_class, by_method, nothing = await as_user(
                _ASK_ALL, str(fd.fileno()), *methods, pass_fds=[fd.fileno()]
            )
            assert by_class[0][0] == nothing[0][0] == "rpc.PermissionDenied"
            assert by_method == [None, OTHER_UID]
            with raw_client(socket.socket(fileno=fd.detach())) as client:
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


async def test_draining_waits_for_calls_on_channels_and_refuses_new_ones() -> None:
    bank = Bank()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(bank, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        channel = await channel_to(connection)
        call = asyncio.ensure_future(channel.call("Vault.wait", "a"))
        await bank.vault.stage.wait("a began")
        draining = asyncio.ensure_future(server.drain())
        await said_closing(channel)
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
