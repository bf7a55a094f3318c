"""What was made by a process is used in forks of it."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.foreign_use import LOOPS, Account, Sums, holding, outcome, sockets_of
from support.processes import Line, child_on_a_loop, in_child
from support.waiting import PATIENCE

import seqrpc
from seqrpc import WrongProcess


def outcomes(
    uses: dict[str, Callable[[], Awaitable[Any]]], run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> dict[str, str]:
    return {name: outcome(use, run) for name, use in uses.items()}


async def test_in_a_fork_every_use_raises_and_nothing_is_sent(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        found = in_child(lambda: outcomes(held.uses(), asyncio.run))
        assert found == dict.fromkeys(held.uses(), "WrongProcess")
        await held.check()
        assert service.added == [(1, 1)]


async def test_in_a_fork_a_second_use_raises_again(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:
        found = in_child(lambda: [outcomes(held.uses(), asyncio.run) for _ in range(2)])
        assert found[0] == found[1]
        await held.check()


async def test_in_a_fork_letting_go_does_nothing_and_says_nothing(
    socket_path: Path, loop_errors: list[dict[str, Any]]
) -> None:
    async with holding(Sums(), socket_path) as held:

        def work() -> tuple[dict[str, str], list[bool], int]:
            found = outcomes(held.ends(), asyncio.run)
            closed = [held.connection.closed, held.used.closed, held.unused.closed, held.read.closed]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del held.connection, held.server, held.read, held.unread, held.used, held.unused, held.account
                gc.collect()
            return found, closed, len(loop_errors)

        assert in_child(work) == (dict.fromkeys(held.ends(), "None"), [True] * 4, 0)
        await held.check()


async def test_in_a_fork_the_rest_of_a_block_says_nothing(socket_path: Path) -> None:
    """The child leaves the blocks that its parent had entered, by hand, as no loop runs in it."""
    async with seqrpc.serve(Sums(), socket_path) as server:
        connecting = seqrpc.connect(socket_path)
        connection = await connecting.__aenter__()

        def work() -> list[str]:
            leaving = (connecting.__aexit__(None, None, None), server.__aexit__(None, None, None))
            return [outcome(lambda one=one: one, asyncio.run) for one in leaving]  # type: ignore[misc]

        assert in_child(work) == ["None", "None"]
        assert await connection.proxy(Sums).add(1, 1) == 2
        await connection.close()


async def test_in_a_fork_inside_the_loop_a_coroutine_that_goes_on_is_told(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:

        def drive() -> str:
            try:
                held.sums.add(100, 200).send(None)
            except WrongProcess:
                return "told"
            return "sent"

        assert in_child(drive) == "told"
        await held.check()
        assert service.added == [(1, 1)]


async def test_the_answers_of_the_parent_are_its_own_while_a_child_calls(socket_path: Path) -> None:
    async with seqrpc.serve(Sums(), socket_path), seqrpc.connect(socket_path) as connection:
        sums = connection.proxy(Sums)

        async def act(line: Line) -> None:
            line.tell("begun")
            told = 0
            for _ in range(200):
                try:
                    await sums.add(100, 200)
                except WrongProcess:
                    told += 1
            line.tell(told)

        with child_on_a_loop(act, asyncio.new_event_loop) as line:
            assert await line.listen() == "begun"
            for _ in range(10):
                assert await asyncio.gather(*(sums.add(n, n) for n in range(100))) == [2 * n for n in range(100)]
            assert await line.listen() == 200


async def test_calls_in_flight_at_a_fork_are_answered_in_the_parent() -> None:
    class Slow(seqrpc.Service):
        def __init__(self) -> None:
            self.go = asyncio.Event()

        @seqrpc.method
        async def wait(self, number: int) -> int:
            await self.go.wait()
            return number

    service = Slow()
    async with on_a_pair(service) as connection:
        slow = connection.proxy(Slow)
        calls = [asyncio.ensure_future(slow.wait(number)) for number in range(10)]
        await connection.call("rpc.ping")
        in_child(gc.collect)
        service.go.set()
        assert await asyncio.gather(*calls) == list(range(10))


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_a_fork_that_drives_the_very_same_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], socket_path: Path
) -> None:
    service = Sums()
    loop_errors: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        held_by = holding(service, socket_path)
        held = runner.run(held_by.__aenter__())
        runner.get_loop().set_exception_handler(lambda _loop, context: loop_errors.append(context))

        def work() -> tuple[dict[str, str], dict[str, str], list[Any]]:
            runner.run(asyncio.sleep(0.05))  # what was under way goes on here as far as it can
            uses, ends = outcomes(held.uses(), runner.run), outcomes(held.ends(), runner.run)
            return uses, ends, [str(context) for context in loop_errors]

        uses, ends, errors = in_child(work)
        assert uses == dict.fromkeys(held.uses(), "WrongProcess")
        assert ends == dict.fromkeys(held.ends(), "None")
        assert errors == []
        runner.run(held.check())
        assert service.added == [(1, 1)]
        runner.run(held_by.__aexit__(None, None, None))
    assert loop_errors == []


class Busy(seqrpc.Service):
    """Has handlers, timers, producers and packets that wait under way."""

    @seqrpc.method
    async def slow(self) -> int:
        await asyncio.sleep(0.05)
        return 1

    @seqrpc.method
    async def same(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield number

    @seqrpc.method
    async def echo(self, content: bytes) -> bytes:
        return content


async def begin_all(busy: Busy) -> list[asyncio.Task[Any]]:
    """Have all of it under way, and no two at the same point."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(1_000):
            await asyncio.sleep(0.0001)
            yield number

    async def read() -> int:
        return len([number async for number in busy.same(numbers())])

    async def give_up() -> str:
        try:
            async with seqrpc.timeout(0.02):
                return str(await busy.slow())
        except seqrpc.DeadlineExceeded:
            return "late"

    echoes = [busy.echo(b"x" * 50_000) for _ in range(50)]
    tasks: list[asyncio.Task[Any]] = [asyncio.ensure_future(work) for work in (busy.slow(), read(), give_up(), *echoes)]
    await asyncio.wait(tasks[3:], return_when=asyncio.FIRST_COMPLETED)
    return tasks


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_what_was_under_way_at_a_fork_goes_nowhere_in_the_child(
    new_loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    loop_errors: list[str] = []

    async def end(tasks: list[asyncio.Task[Any]]) -> list[Any]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: loop_errors.append(str(context)))
        pair = on_a_pair(Busy())
        connection = runner.run(pair.__aenter__())
        tasks = runner.run(begin_all(connection.proxy(Busy)))

        def drive() -> tuple[list[str], list[str]]:
            runner.run(asyncio.sleep(0.1))  # all of its timers go off
            return loop_errors, [record.message for record in caplog.records]

        assert in_child(drive) == ([], [])
        assert runner.run(end(tasks)) == [1, 1_000, "late", *[b"x" * 50_000] * 50]
        runner.run(pair.__aexit__(None, None, None))
    assert loop_errors == []


async def test_in_a_fork_nothing_of_the_parent_s_can_be_passed_on(socket_path: Path) -> None:
    """The child has a connection of its own, and would give away what is not its."""
    async with holding(Sums(), socket_path) as held:

        def work() -> list[str]:
            async def give(name: str, value: Any) -> Any:
                async with on_a_pair(Sums()) as own:
                    return await own.call(name, value)

            things = {
                "Sums.total": [held.read, held.unread],
                "Sums.holds": [held.used, held.unused, held.account],
            }
            return [
                outcome(lambda name=name, value=value: give(name, value), asyncio.run)  # type: ignore[misc]
                for name, values in things.items()
                for value in values
            ]

        assert in_child(work) == ["WrongProcess"] * 5
        await held.check()


async def test_a_fork_connects_and_serves_anew(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:

        async def act(line: Line) -> None:
            path = socket_path.with_name("child.sock")
            async with seqrpc.connect(socket_path) as connection:
                line.tell(await connection.proxy(Sums).add(3, 4))
            async with seqrpc.serve(service, path), seqrpc.connect(path) as connection:
                line.tell(await connection.proxy(Sums).add(5, 6))
                own = await connection.proxy(Sums).open()
                line.tell(await own.balance())
            await asyncio.sleep(PATIENCE)

        with child_on_a_loop(act, asyncio.new_event_loop) as line:
            assert [await line.listen() for _ in range(3)] == [7, 11, 7]
        await held.check()
        assert service.added == [(3, 4), (1, 1)]


async def test_a_fork_revokes_nothing_of_the_parent_s(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        assert in_child(lambda: outcome(lambda: seqrpc.revoke(service.account), asyncio.run)) == "WrongProcess"
        assert in_child(lambda: outcome(lambda: seqrpc.revoke(Account()), asyncio.run)) == "None"
        await held.check()


async def test_a_fork_has_no_socket_of_the_parent_s(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:
        in_parent = sockets_of("self")
        before = held.server.sockets[0].fileno()
        shared = in_child(lambda: [name for name in sockets_of("self") if name in in_parent])
        loops = {os.readlink(f"/proc/self/fd/{number}") for number in _sockets_of_the_loop()}
        assert set(shared) <= loops, "what the loop wakes itself with, and nothing else"
        assert held.server.sockets[0].fileno() == before
        await held.check()


def _sockets_of_the_loop() -> Iterator[int]:
    """Yield the descriptors of sockets that are a loop's own: connected stream sockets of no family but Unix's."""
    import socket

    for name in os.listdir("/proc/self/fd"):
        try:
            number = os.dup(int(name))
        except OSError:
            continue
        try:
            sock = socket.socket(fileno=number)
        except OSError:
            os.close(number)
            continue
        with sock:
            if sock.type == socket.SOCK_STREAM:
                yield int(name)
