from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.descriptors import open_fds
from support.lifespans import Broken
from support.plans import ANSWERS, DEAF, LINGERS, REFUSES, SILENT, planned, program
from support.waiting import PATIENCE, comes_true, turns_of_the_loop
from support.workers import Desk, Parent, Refuses, Slow, is_alive

import seqrpc
from seqrpc.calls.plans import Plan
from seqrpc.workers.children import Running, begin


@contextlib.asynccontextmanager
async def running(plan: Plan, ended: list[str] | None = None) -> AsyncIterator[Running]:
    async with asyncio.timeout(PATIENCE):
        child = await begin(plan, None if ended is None else lambda: ended.append("ended"))
        try:
            yield child
        finally:
            await child.close()


async def crash_of(plan: Plan) -> str:
    """Return how a child says that it did not begin."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(seqrpc.WorkerCrashed) as caught:
            await begin(plan)
    return str(caught.value)


async def test_a_child_begins_answers_and_ends() -> None:
    ended: list[str] = []
    async with running(planned(Desk, 3), ended) as child:
        assert await child.connection.call("Desk.add", 1) == 4
        assert repr(child) == f"<Worker Desk pid={child.process.pid}>"
        assert (child.has_ended, child.is_closing, child.is_unclosed, child.last_lines) == (False, False, True, ())
        assert not ended
    assert (child.has_ended, child.is_closing, child.is_unclosed) == (True, True, False)
    assert child.process.returncode == 0
    assert ended == ["ended"]
    await child.close()
    child.kill("nobody is there")
    child.watch_given_up()
    assert str(child.crashed()).endswith("exited with status 0")


async def test_a_program_that_speaks_the_protocol_is_as_good() -> None:
    async with running(planned(command=program(ANSWERS))) as child:
        assert await child.connection.call("Any.thing") is None
    assert child.process.returncode == 0


async def test_it_may_call_what_is_served_to_it_as_far_as_the_policy_lets_it() -> None:
    parent = Parent()
    for allow, heard in ((seqrpc.policy.anyone, ["hello"]), (~seqrpc.policy.anyone, ["hello"])):
        async with running(planned(Desk, serve=parent, allow=allow)) as child:
            with contextlib.suppress(seqrpc.RpcError):
                assert await child.connection.call("Desk.tell", "hello") == child.process.pid
        assert parent.heard == heard


@pytest.mark.parametrize(
    "plan, text",
    [
        (planned(Refuses, "no"), "the worker Refuses did not begin: ValueError: no"),
        (planned(Slow, 60, start_timeout=0.2), "did not begin within 0.2 s, and was killed"),
        (planned(command=program(SILENT), start_timeout=0.2), "did not begin within 0.2 s, and was killed"),
        (planned(command=program(DEAF), grace=0.1), "ended its connection, and was killed"),
        (planned(command=program(REFUSES), grace=0.1), "did not begin: app.No: not today"),
        (planned(command=program("sys.exit('no wish to')")), "exited with status 1; its last line: no wish to"),
        (planned(command=["/nowhere/program"]), "exited with status 126; its last line: cannot start /nowhere"),
    ],
    ids=["its class raises", "it is slow", "silent", "deaf", "it refuses", "it exits", "it is not there"],
)
async def test_one_that_does_not_begin_says_why(plan: Plan, text: str) -> None:
    assert text in await crash_of(plan)


async def test_one_that_dies_as_it_imports_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "exited with status 7" in await crash_of(planned("support.dies_when_imported:Service"))


async def test_without_a_python_there_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="does not know its own Python"):
        await begin(planned(Desk))
    assert open_fds() == before


@pytest.mark.parametrize("often", [1, 3])
async def test_a_beginning_that_is_cancelled_leaves_nothing(often: int) -> None:
    before = open_fds()
    pids: list[int] = []
    for turns in range(16):
        beginning = asyncio.ensure_future(begin(planned(Desk)))
        await turns_of_the_loop(turns)
        for _ in range(often):
            beginning.cancel()
            await turns_of_the_loop(1)
        with contextlib.suppress(asyncio.CancelledError):
            await (await beginning).close()
    await turns_of_the_loop()
    assert set(open_fds()) <= set(before), "each child has ended by then"
    assert not any(map(is_alive, pids))


async def test_one_that_has_nearly_failed_when_it_is_cancelled_leaves_nothing() -> None:
    before = open_fds()
    for plan in (planned(Refuses, "no"), planned(command=program(DEAF), grace=PATIENCE)):
        beginning = asyncio.ensure_future(begin(plan))
        ended = asyncio.ensure_future(asyncio.wait([beginning]))
        await comes_true(lambda: _is_waiting_for_the_end(beginning))  # noqa: B023 - it is called at once
        beginning.cancel()
        await ended
        with pytest.raises((asyncio.CancelledError, seqrpc.WorkerCrashed)):
            beginning.result()
        await turns_of_the_loop()
        assert set(open_fds()) <= set(before)


def _is_waiting_for_the_end(task: asyncio.Future[Any]) -> bool:
    """Return whether a beginning has failed, and waits for the process."""
    if task.done():
        return True
    assert isinstance(task, asyncio.Task)
    awaited: Any = task.get_coro()
    while awaited is not None:
        if getattr(awaited, "__name__", "") in ("crash", "_end_now"):
            return True
        awaited = getattr(awaited, "cr_await", None)
    return False


async def test_one_that_lives_on_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async with running(planned(command=program(LINGERS), grace=0.1)) as child:
        pass
    assert child.process.returncode == -signal.SIGKILL
    assert "lived on for 0.1 s after its connection was closed, and was killed" in caplog.text


@pytest.mark.parametrize(
    "plan, returncode",
    [
        (planned(Desk, serve=Broken()), 0),
        (planned(command=program(LINGERS), serve=Broken(), grace=0.1), -signal.SIGKILL),
    ],
    ids=["it ends", "it lives on"],
)
async def test_one_is_ended_also_if_the_lifespan_of_what_is_served_to_it_fails(plan: Plan, returncode: int) -> None:
    child = await begin(plan)
    for _ in range(2):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(OSError, match="the disk is full"):
                await child.close()
        assert child.process.returncode == returncode


async def test_a_closing_that_is_cancelled_goes_on() -> None:
    async with running(planned(Desk)) as child:
        closing = asyncio.ensure_future(child.close())
        await turns_of_the_loop(1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await child.wait()
    assert child.process.returncode == 0


async def test_a_crash_is_told_with_its_reason() -> None:
    async with running(planned(Desk)) as child:
        child.kill("was in the way")
        child.kill("was killed twice")
        error = await child.crash()
        assert "was in the way" in str(error)
        assert error.returncode == -signal.SIGKILL


ANSWERS_ONCE = "kind, number, *_ = msgpack.unpackb(sock.recv(1000)); sock.send(msgpack.packb([1, number, None, None]))"


async def test_one_that_ends_its_connection_alone_is_killed() -> None:
    async with running(planned(command=program(f"{ANSWERS_ONCE}\n{DEAF}"), grace=0.1)) as child:
        await child.connection.wait_closed()
        assert "ended its connection, and was killed" in str(await child.crash())


async def test_it_is_killed_without_anybody_waiting_although_the_lifespan_of_what_is_served_to_it_fails() -> None:
    lost: list[str] = []
    plan = planned(command=program(f"{ANSWERS_ONCE}\n{DEAF}"), serve=Broken(), grace=0.1)
    child = await begin(plan, None, lambda: lost.append("lost"))
    async with asyncio.timeout(PATIENCE):
        await child.wait()
        with pytest.raises(OSError, match="the disk is full"):
            await child.close()
    assert lost == ["lost"]
    assert child.process.returncode == -signal.SIGKILL


async def test_a_call_that_was_given_up_has_its_time_to_end() -> None:
    async with running(planned(Desk, grace=0.2)) as child:
        child.watch_given_up()
        call = asyncio.ensure_future(child.connection.call("Desk.ignore_cancelling"))
        await asyncio.sleep(0)  # it is sent first, so it has begun when the next is answered
        await child.connection.call("Desk.add", 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        child.watch_given_up()
        assert await child.connection.call("Desk.add", 1) == 1
        await child.wait()
        assert "did not end a call within 0.2 s after it was cancelled" in str(child.crashed())


async def test_one_that_reacts_to_cancelling_lives_on() -> None:
    async with running(planned(Desk, grace=0.5)) as child:
        call = asyncio.ensure_future(child.connection.call("Desk.doze", PATIENCE))
        await asyncio.sleep(0)  # as above
        await child.connection.call("Desk.add", 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        child.watch_given_up()
        assert await child.connection.call("Desk.doze", 0.6, 5) == 5


async def test_one_whose_child_holds_the_socket_ends_all_the_same() -> None:
    async with running(planned(Desk, grace=0.1)) as child:
        grandchild = await child.connection.call("Desk.fork")
        os.kill(child.process.pid, signal.SIGKILL)
        try:
            await child.connection.wait_closed()
        finally:
            os.kill(grandchild, signal.SIGKILL)
        assert "died of SIGKILL" in str(await child.crash())


async def test_one_that_is_abandoned_ends_at_once() -> None:
    async with running(planned(Desk)) as child:
        child.abandon()
        assert not child.is_unclosed
        await child.wait()
    assert child.process.returncode == -signal.SIGKILL
