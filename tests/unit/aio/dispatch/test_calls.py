"""Arguments, results and descriptors of calls."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.descriptors import same_file
from support.dispatch import Everything, open_count

import seqrpc
from seqrpc import OwnedFd


async def test_arguments_by_position_and_by_name() -> None:
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.add", 1) == 111
        assert await connection.call("Everything.add", 1, 2) == 103
        assert await connection.call("Everything.add", b=1, c=2, a=3) == 6
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `str` - at `b`"):
            await connection.call("Everything.add", 1, "x")


async def test_where_anything_goes_arguments_and_results_are_passed_on_as_they_came() -> None:
    seen: list[Any] = []

    class Anything(seqrpc.Service):
        @seqrpc.method
        async def look(self, first: Any, second: int, third: Any = None) -> Any:
            seen.extend([first, third])
            return first

    moment = datetime(2024, 1, 1, tzinfo=UTC)
    things = [{1: [b"x", None]}, [1, [2.5]], "a", True, moment, OwnedFd.dup(0)]
    async with on_a_pair(Anything()) as connection:
        proxy = connection.proxy(Anything)
        for thing in things:
            seen.clear()
            for answer in (await connection.call("Anything.look", thing, 5, thing), await proxy.look(thing, 5, thing)):
                if isinstance(thing, OwnedFd):
                    assert isinstance(answer, OwnedFd)
                    assert same_file(answer, thing)
                    answer.close()
                    assert [type(one) for one in seen] == [OwnedFd] * len(seen)
                else:
                    assert (answer, type(answer)) == (thing, type(thing))
                    assert seen == [thing] * len(seen)
            assert len(seen) == 4
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `str` - at `second`"):
            await connection.call("Anything.look", 1, "x")
    things[-1].close()  # type: ignore[attr-defined]


async def test_descriptors_that_nobody_takes_are_closed_when_the_handler_ends(pipe: tuple[int, int]) -> None:
    service = Everything()
    async with on_a_pair(service) as connection:
        before = open_count()
        lent = [OwnedFd.dup(pipe[0]), OwnedFd.dup(pipe[1])]
        assert await connection.call("Everything.keep", *lent) is None
        for fd in lent:
            fd.close()
        taken, left = service.held
        assert not taken.closed
        assert left.closed
        assert os.fstat(taken.fileno()).st_ino == os.fstat(pipe[0]).st_ino
        assert open_count() == before + 1
        taken.close()


async def test_returned_descriptors_are_given_away(pipe: tuple[int, int]) -> None:
    async with on_a_pair(Everything()) as connection:
        before = open_count()
        with OwnedFd.dup(pipe[0]) as first, OwnedFd.dup(pipe[1]) as second:
            echoed = await connection.call("Everything.echo", [first, second])
            assert [os.fstat(fd.fileno()).st_ino for fd in echoed] == [os.fstat(fd).st_ino for fd in pipe]
            given = await connection.call("Everything.give_and_keep", [first, second])
        assert open_count() == before + 3, "what the handler had is closed"
        for fd in (*echoed, given):
            fd.close()


async def test_other_things_with_a_descriptor_are_lent_when_they_are_returned(pipe: tuple[int, int]) -> None:
    service = Everything()
    with os.fdopen(os.dup(pipe[0]), "rb") as service.file:
        async with on_a_pair(service) as connection:
            with await connection.call("Everything.lend") as fd:
                assert os.fstat(fd.fileno()).st_ino == os.fstat(pipe[0]).st_ino
        assert not service.file.closed


@pytest.mark.parametrize("kind", ["endless", "large", "object", "closed descriptor"])
async def test_descriptors_of_a_result_that_cannot_be_sent_are_closed(kind: str) -> None:
    async with on_a_pair(Everything(), limits=seqrpc.Limits(max_message_bytes=100_000)) as connection:
        before = open_count()
        with pytest.raises(seqrpc.RpcError):
            await connection.call("Everything.fail", kind)
        assert open_count() == before


async def test_calls_start_in_order_and_finish_in_any() -> None:
    service = Everything()
    async with on_a_pair(service) as connection:
        calls = [asyncio.ensure_future(connection.call("Everything.wait", name)) for name in "abc"]
        await service.stage.wait("c began")
        assert service.stage.reached == ["a began", "b began", "c began"]
        for name in "bca":
            service.stage.reach(f"{name} may go on")
            await service.stage.wait(f"{name} ended")
        assert await asyncio.gather(*calls) == ["a", "b", "c"]
