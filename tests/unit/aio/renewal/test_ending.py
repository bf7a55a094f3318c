"""The end of a connection that is made anew: closed, cancelled, dropped, forked, and used in the wrong place."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import warnings
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.dropped import unclosed
from support.processes import in_child
from support.reconnecting import (
    IMPATIENT,
    QUICK,
    Journal,
    ended,
    hangs_up,
    impostor,
    raised_by,
    refuses_all,
    renewal_of,
    says_closing,
    soon,
    stays,
)
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Execution, Reconnect

SLOW = Reconnect(first_delay=50.0, longest_delay=60.0, ready_timeout=None)
"""Does not try again while a test lasts."""


async def test_closing_ends_calls_in_every_state(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    connection = await seqrpc.connect(socket_path, reconnect=QUICK)
    running = soon(connection.call("Journal.wait", "a"))
    await journal.stage.wait("a")
    assert repr(connection).startswith("<Connection open peer=")
    await connection.close()
    assert (await raised_by(seqrpc.ConnectionLost, running)).execution is Execution.MAY_HAVE_RUN
    assert connection.closed
    assert repr(connection) == "<Connection closed>"
    for later in (
        connection.call("Journal.add", "b"),
        connection.notify("Journal.tell", "b"),
        connection.wait_for_ready(),
    ):
        error = await raised_by(seqrpc.ConnectionLost, later, "closed on this side")
        assert error.execution is Execution.DID_NOT_RUN
    await connection.close()
    await connection.wait_closed()
    await server.close()
    assert journal.ran == ["a"]


async def test_closing_while_nobody_is_there_ends_those_who_wait(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    for policy in (QUICK, SLOW):
        async with seqrpc.connect(socket_path, reconnect=policy) as connection:
            await server.close()
            await ended(connection)
            assert "reconnecting to" in repr(connection)
            waiting = [soon(connection.call("Journal.add", "a")), soon(connection.wait_for_ready())]
            closed = soon(connection.wait_closed())
            await turns_of_the_loop()
            assert not closed.done()
        for one in waiting:
            error = await raised_by(seqrpc.ConnectionLost, one, "closed on this side")
            assert error.execution is Execution.DID_NOT_RUN
        await closed
        server = await seqrpc.serve(Journal(), socket_path)
    await server.close()


async def test_closing_gives_up_calls_that_run_on_old_connections(socket_path: Path) -> None:
    journal = Journal()
    first = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        running = soon(connection.call("Journal.wait", "old"))
        await journal.stage.wait("old")
        draining = soon(first.drain(PATIENCE))
        await ended(connection)
        async with seqrpc.serve(journal, socket_path):
            assert await connection.call("Journal.add", "new") == "new"
            await connection.close()
            assert (await raised_by(seqrpc.ConnectionLost, running)).execution is Execution.MAY_HAVE_RUN
    await draining


async def test_connecting_can_be_cancelled_in_every_state(socket_path: Path) -> None:
    waiting = soon(seqrpc.connect(socket_path, reconnect=QUICK))
    await turns_of_the_loop()
    waiting.cancel()
    await asyncio.wait([waiting])

    class Slow(seqrpc.Service):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            began.set()
            await asyncio.Event().wait()
            yield

    began = asyncio.Event()
    async with seqrpc.serve(Journal(), socket_path):
        entering = soon(seqrpc.connect(socket_path, reconnect=QUICK, services=Slow()))
        await began.wait()
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()


async def test_one_that_is_dropped_unclosed_is_closed_with_a_warning(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path) as server:
        connection: Any = await seqrpc.connect(socket_path, reconnect=QUICK)
        proxy: Any = connection.proxy(Journal)
        del connection
        gc.collect()
        assert await proxy.add("a") == "a"
        with unclosed("Connection open"):
            del proxy
        await comes_true(lambda: not server.connections)


async def test_so_is_one_that_is_dropped_while_nobody_is_there(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    connection: Any = await seqrpc.connect(socket_path, reconnect=SLOW)
    renewal = renewal_of(connection)
    await server.close()
    await ended(connection)
    with unclosed("Connection reconnecting"):
        del connection
    assert renewal.closed


async def test_a_call_under_way_holds_it(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    connection: Any = await seqrpc.connect(socket_path, reconnect=QUICK)
    call = soon(connection.proxy(Journal).wait_again("a"))
    await journal.stage.wait("a")
    await server.close()
    await ended(connection)
    del connection
    gc.collect()
    async with seqrpc.serve(journal, socket_path):
        with unclosed():
            assert await call == "a"


def test_one_whose_loop_has_ended_is_closed_with_a_warning(socket_path: Path) -> None:
    kept: list[Any] = []

    async def connected() -> None:
        server = await seqrpc.serve(Journal(), socket_path)
        kept.append(await seqrpc.connect(socket_path, reconnect=QUICK))
        kept.append(await seqrpc.connect(socket_path, reconnect=QUICK))
        await kept[0].call("Journal.add", "a")
        await server.close()
        await ended(kept[0])

    asyncio.run(connected())
    first = kept.pop()
    asyncio.run(first.close())
    with unclosed():
        kept.clear()
    with pytest.raises(seqrpc.WrongLoop, match="an event loop that has ended"):
        asyncio.run(first.call("Journal.add", "a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del first
        gc.collect()


def test_one_whose_loop_stands_still_is_closed_when_it_goes_on(socket_path: Path) -> None:
    loop = asyncio.new_event_loop()
    kept: list[Any] = []

    async def connected() -> None:
        kept.append(await seqrpc.serve(Journal(), socket_path))
        kept.append(await seqrpc.connect(socket_path, reconnect=QUICK))

    loop.run_until_complete(connected())
    renewal = renewal_of(kept[1])
    with unclosed():
        kept.pop()
    loop.run_until_complete(kept[0].close())
    loop.run_until_complete(comes_true(lambda: renewal.closed))
    loop.close()


async def test_in_a_forked_child_it_is_of_no_use_and_the_parent_is_undisturbed(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        proxy = connection.proxy(Journal)
        assert await proxy.add("a") == "a"

        def child() -> list[Any]:
            renewal_of(connection).abandon()
            said: list[Any] = [connection.closed, connection.peer, connection.closing_reason]
            for use in (proxy.add("b"), connection.notify("Journal.tell", "b"), connection.wait_for_ready()):
                try:
                    asyncio.run(use)
                except seqrpc.WrongProcess as exc:
                    said.append(exc.execution.name)
            asyncio.run(connection.close())
            return said

        assert in_child(child) == [True, None, None, *["DID_NOT_RUN"] * 3]
        assert await proxy.add("c") == "c"


async def test_one_that_is_closed_may_be_closed_from_anywhere(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await seqrpc.connect(socket_path, reconnect=QUICK)
        await connection.close()
        await asyncio.to_thread(asyncio.run, connection.close())
        renewal_of(connection).abandon()
        assert connection.closed


async def test_on_another_loop_it_is_of_no_use(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        uses = [
            lambda: connection.call("Journal.add", "b"),
            lambda: connection.notify("Journal.tell", "b"),
            connection.wait_for_ready,
            connection.wait_closed,
            connection.close,
        ]
        for use in uses:
            with pytest.raises(seqrpc.WrongLoop) as caught:
                await asyncio.to_thread(asyncio.run, use())
            assert caught.value.execution is Execution.DID_NOT_RUN
        assert await connection.call("Journal.add", "c") == "c"
        assert connection.get_loop() is asyncio.get_running_loop()


@contextlib.contextmanager
def attempts_counted(connection: seqrpc.Connection) -> Iterator[list[float]]:
    """Count the connections that are made."""
    renewal = renewal_of(connection)
    made: list[float] = []
    renewal.made_anew = lambda: made.append(asyncio.get_running_loop().time())
    yield made


async def test_a_server_that_accepts_and_hangs_up_is_asked_less_and_less_often(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    policy = Reconnect(first_delay=0.01, longest_delay=20.0, ready_timeout=None)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        with attempts_counted(connection) as made:
            await server.close()
            with impostor(socket_path, hangs_up) as other:
                await comes_true(lambda: len(made) == 5)
                gaps = [after - before for before, after in itertools.pairwise(made)]
                assert all(gap > low for gap, low in zip(gaps, (0.009, 0.019, 0.039, 0.079), strict=False))
                await comes_true(lambda: other.met >= 5)


async def test_calls_to_a_server_that_hangs_up_end_in_what_is_true(socket_path: Path) -> None:
    with impostor(socket_path, hangs_up):
        policy = Reconnect(first_delay=0.001, longest_delay=0.01, ready_timeout=0.2)
        async with seqrpc.connect(socket_path, reconnect=policy) as connection:
            outcomes = [await raised_by(seqrpc.SeqrpcError, connection.call("Journal.add", "a")) for _ in range(5)]
            assert Execution.RAN not in {error.execution for error in outcomes}


async def test_a_server_that_is_never_at_home_costs_neither_descriptors_nor_time(socket_path: Path) -> None:
    with impostor(socket_path, refuses_all) as other:
        policy = Reconnect(first_delay=0.001, longest_delay=0.01, ready_timeout=0.3)
        async with seqrpc.connect(socket_path, reconnect=policy) as connection:
            error = await raised_by(seqrpc.Unavailable, connection.call("Journal.add", "a"), "never at home")
            assert error.execution is Execution.DID_NOT_RUN
            await comes_true(lambda: other.met > 20)
            assert len(renewal_of(connection)._links) <= 10


async def test_old_connections_with_calls_that_are_never_answered_are_bounded(socket_path: Path) -> None:
    with impostor(socket_path, stays) as other:
        async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
            calls = []
            for number in range(12):
                await comes_true(lambda number=number: other.met > number and renewal_of(connection).link)  # type: ignore[misc]
                link = renewal_of(connection).link
                calls.append(soon(connection.call("Journal.add", "a")))
                await comes_true(lambda link=link: link.session.calls)  # type: ignore[misc]
                says_closing(other, other.kept[-1].dup())
                await comes_true(lambda link=link: renewal_of(connection).link is not link)  # type: ignore[misc]
            await comes_true(lambda: sum(call.done() for call in calls) >= 4)
            assert len(renewal_of(connection)._links) <= 9
            for call in calls[:4]:
                assert (await raised_by(seqrpc.ConnectionLost, call)).execution is Execution.MAY_HAVE_RUN
        for call in calls[4:]:
            await raised_by(seqrpc.ConnectionLost, call)


async def test_a_server_that_never_reads_is_told_by_deadlines(socket_path: Path) -> None:
    with impostor(socket_path, stays):
        async with seqrpc.connect(socket_path, reconnect=IMPATIENT) as connection:
            with pytest.raises(seqrpc.DeadlineExceeded):
                async with seqrpc.timeout(0.05):
                    await connection.call("Journal.add", "a")


async def test_one_that_breaks_the_protocol_is_left_for_the_next(socket_path: Path) -> None:
    def talks_nonsense(other: Any, sock: Any) -> None:
        sock.send(b"\xc1")
        other.keeps(sock)

    with impostor(socket_path, talks_nonsense):
        async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
            call = soon(connection.call("Journal.add", "a"))
            await raised_by(seqrpc.ConnectionLost, call)
            waiting = soon(connection.wait_for_ready())
            await waiting
