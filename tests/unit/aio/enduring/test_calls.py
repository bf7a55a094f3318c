"""Calls over a connection that is made anew: which are made again, and what is told of the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgpack
from support.reconnecting import QUICK, Impostor, Journal, ended, impostor, raised_by, renewal_of, soon, stays
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Execution, Limits


async def test_calls_go_on_over_the_next_life_of_a_daemon(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        proxy = connection.proxy(Journal)
        assert isinstance(connection, seqrpc.Connection)
        assert await proxy.add("first") == "first"
        await server.close()
        await ended(connection)
        assert not connection.closed
        assert connection.peer is None
        waiting = [soon(proxy.add("second")), soon(connection.call("Journal.add", "third")), soon(proxy.tell("fourth"))]
        async with seqrpc.serve(journal, socket_path):
            assert [await one for one in waiting] == ["second", "third", None]
            assert await proxy.add("last") == "last"
            assert connection.peer is not None
    assert journal.ran == ["first", "second", "third", "fourth", "last"]


async def test_a_call_that_may_have_run_is_not_made_again(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        by_proxy = soon(connection.proxy(Journal).wait("a"))
        by_name = soon(connection.call("Journal.wait_again", "b"))
        await journal.stage.wait("a")
        await journal.stage.wait("b")
        await server.close()
        async with seqrpc.serve(journal, socket_path):
            for call in (by_proxy, by_name):
                error = await raised_by(seqrpc.ConnectionLost, call)
                assert error.execution is Execution.MAY_HAVE_RUN
            assert await connection.call("Journal.add", "c") == "c"
    assert journal.ran == ["a", "b", "c"]


async def test_one_that_may_run_twice_is_made_again(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        call = soon(connection.proxy(Journal).wait_again("a"))
        await journal.stage.wait("a")
        await server.close()
        async with seqrpc.serve(journal, socket_path):
            assert await call == "a"
    assert journal.ran == ["a", "a"]


async def test_a_call_that_took_a_stream_along_is_not_made_again(socket_path: Path) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        call = soon(connection.proxy(Journal).sums(numbers()))
        await journal.stage.wait("sums")
        await server.close()
        async with seqrpc.serve(journal, socket_path):
            error = await raised_by(seqrpc.ConnectionLost, call)
            assert error.execution is Execution.MAY_HAVE_RUN
    assert journal.ran == ["sums"]


async def test_a_stream_that_never_left_goes_over_the_next_connection(socket_path: Path) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    journal = Journal()
    journal.stage.reach("sums may end")
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await server.close()
        await ended(connection)
        call = soon(connection.proxy(Journal).sums(numbers()))
        await turns_of_the_loop()
        async with seqrpc.serve(journal, socket_path):
            assert await call == 3


async def test_a_stream_is_opened_again_and_what_was_open_lives_on(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        old = connection.proxy(Journal).count()
        assert await anext(old) == 0
        await server.close()
        await raised_by(seqrpc.Unavailable, anext(old), "stopping")
        await ended(connection)
        new = connection.proxy(Journal).count()
        first = soon(anext(new))
        journal.stage.reach("count may go on")
        async with seqrpc.serve(journal, socket_path):
            assert await first == 0
            assert [number async for number in new] == [1, 2]
    assert journal.ran == ["count", "count"]


async def test_what_a_handler_answers_is_the_outcome_whatever_it_is(socket_path: Path) -> None:
    journal = Journal()
    async with seqrpc.serve(journal, socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        await raised_by(seqrpc.Unavailable, connection.call("Journal.refuses"), "not today")
        await raised_by(seqrpc.MethodNotFound, connection.call("Journal.unknown"))
        await raised_by(seqrpc.InvalidParams, connection.call("Journal.add"))
        await raised_by(seqrpc.LocalProtocolError, connection.call("Journal.add", object()))
        assert journal.ran == ["refuses"]


async def test_so_it_is_if_the_daemon_dies_of_it(socket_path: Path) -> None:
    """The answer and the end are there at once, and nobody said before that nothing new would be taken."""
    asked = 0

    def meet(other: Impostor, sock: socket.socket) -> None:
        def answer() -> None:
            nonlocal asked
            if data := sock.recv(65_536):
                asked += 1
                error = ["rpc.Unavailable", "not today", None] if asked == 1 else None
                sock.send(msgpack.packb([1, msgpack.unpackb(data)[1], error, None]))
            other.leave(sock)

        other.keeps(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), answer)

    with impostor(socket_path, meet) as other:
        async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
            error = await raised_by(seqrpc.Unavailable, connection.call("Journal.refuses"), "not today")
            assert error.execution is Execution.DID_NOT_RUN
            await comes_true(lambda: other.met > 1)
    assert asked == 1


async def test_a_daemon_that_drains_finishes_what_runs_while_new_calls_go_to_the_next(socket_path: Path) -> None:
    journal, next_journal = Journal(), Journal()
    first = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        running = soon(connection.call("Journal.wait", "old"))
        await journal.stage.wait("old")
        draining = soon(first.drain(PATIENCE))
        await ended(connection)
        assert connection.closing_reason is not None
        assert not connection.closed
        async with seqrpc.serve(next_journal, socket_path):
            assert await connection.call("Journal.add", "new") == "new"
            assert connection.closing_reason is None
            assert not running.done()
            journal.stage.reach("old may end")
            assert await running == "old"
            await draining
            await comes_true(lambda: len(renewal_of(connection)._links) == 1)
    assert (journal.ran, next_journal.ran) == (["old"], ["new"])


async def test_calls_that_waited_in_line_on_the_old_connection_go_to_the_next_in_their_order(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    limits = Limits(max_calls_in_flight=1)
    async with seqrpc.connect(socket_path, reconnect=QUICK, limits=limits) as connection:
        running = soon(connection.call("Journal.wait", "old"))
        await journal.stage.wait("old")
        words = [str(number) for number in range(10)]
        calls = [soon(connection.call("Journal.add", word)) for word in words]
        await turns_of_the_loop()
        await server.close()
        await raised_by(seqrpc.ConnectionLost, running)
        later = soon(connection.call("Journal.add", "later"))
        async with seqrpc.serve(journal, socket_path):
            assert [await call for call in calls] == words
            await later
    assert journal.ran[1:] == [*words, "later"]


class Later:
    """A loop on which it is later, for who asks what time it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds

    def time(self) -> float:
        return self._loop.time() + self._seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def test_to_wait_for_a_turn_is_not_to_wait_for_a_connection(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    limits = Limits(max_calls_in_flight=1)
    async with seqrpc.connect(socket_path, reconnect=QUICK, limits=limits) as connection:
        renewal = renewal_of(connection)
        await server.close()
        await ended(connection)
        running = soon(connection.call("Journal.wait", "old"))
        await turns_of_the_loop()  # for the running one, too, there is no connection yet
        waiting = soon(connection.call("Journal.add", "new"))
        server = await seqrpc.serve(journal, socket_path)
        await journal.stage.wait("old")
        await turns_of_the_loop()
        loop, later = renewal.loop, cast("Any", Later(renewal.loop, 2 * PATIENCE))
        renewal.loop = later
        try:
            await server.close()
            await raised_by(seqrpc.ConnectionLost, running)
            await comes_true(lambda: isinstance(renewal.trouble, seqrpc.NobodyListens))
            async with seqrpc.serve(journal, socket_path):
                assert await waiting == "new"
        finally:
            renewal.loop = loop
    assert journal.ran == ["old", "new"]


async def test_an_error_does_not_say_that_nothing_ran_if_an_attempt_before_may_have(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.01, ready_timeout=0.05)
    async with seqrpc.connect(socket_path, reconnect=policy) as connection:
        call = soon(connection.proxy(Journal).wait_again("a"))
        await journal.stage.wait("a")
        await server.close()
        error = await raised_by(seqrpc.NobodyListens, call, "ready_timeout")
        assert error.execution is Execution.MAY_HAVE_RUN


async def test_nor_does_an_error_of_the_system_hide_it(socket_path: Path) -> None:
    class Argument:
        """Has a descriptor to lend, once."""

        asked = 0

        def fileno(self) -> int:
            self.asked += 1
            if self.asked > 1:
                raise ZeroDivisionError
            return 0

    class Taking(seqrpc.Service, name="Journal"):
        @seqrpc.method(idempotent=True)
        async def wait_again(self, word: Any) -> str:
            raise NotImplementedError

    with impostor(socket_path, stays) as other:
        async with seqrpc.connect(socket_path, reconnect=QUICK) as connection:
            call = soon(connection.proxy(Taking).wait_again(Argument()))
            await comes_true(lambda: other.kept and renewal_of(connection).link)
            link = renewal_of(connection).link
            await comes_true(lambda: link is not None and link.session.calls)
            other.kept.pop().close()
            error = await raised_by(seqrpc.ConnectionLost, call)
            assert error.execution is Execution.MAY_HAVE_RUN
            assert isinstance(error.__cause__, ZeroDivisionError)


async def test_a_call_that_its_daemon_dies_of_is_not_made_for_ever(socket_path: Path) -> None:
    journal = Journal()
    deaths = 0

    class Dying(seqrpc.Service, name="Journal"):
        @seqrpc.method(idempotent=True)
        async def wait_again(self, word: str) -> str:
            nonlocal deaths
            deaths += 1
            await seqrpc.current_call().connection.close()
            return word

    async with seqrpc.serve(Dying(), socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        error = await raised_by(seqrpc.ConnectionLost, connection.proxy(Journal).wait_again("a"))
        assert error.execution is Execution.MAY_HAVE_RUN
        assert deaths == 5
    assert journal.ran == []


async def test_time_outs_and_metadata_are_those_of_the_call(socket_path: Path) -> None:
    class Meta(seqrpc.Service):
        @seqrpc.method
        async def get(self) -> Any:
            call = seqrpc.current_call()
            return [dict(call.meta), call.deadline is not None]

    async with seqrpc.serve(Meta(), socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        assert await connection.call("Meta.get") == [{}, False]
        async with seqrpc.timeout(PATIENCE):
            with seqrpc.metadata(trace="7"):
                assert await connection.call("Meta.get") == [{"trace": "7"}, True]


async def test_a_cancelled_call_is_cancelled_at_the_other_side(socket_path: Path) -> None:
    journal = Journal()
    async with seqrpc.serve(journal, socket_path), seqrpc.connect(socket_path, reconnect=QUICK) as connection:
        call = soon(connection.call("Journal.wait", "a"))
        await journal.stage.wait("a")
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await connection.call("Journal.add", "b") == "b"
