"""What is entered by ``async with`` only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

import seqrpc
from seqrpc.aio.blocks import AsyncBlock


class Numbers(seqrpc.Service):
    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


def entered(block: AbstractContextManager[Any]) -> None:
    with block:
        pytest.fail("there is no such block")


async def test_with_is_refused_by_whatever_async_with_enters_and_names_it(socket_path: Path) -> None:
    async with seqrpc.serve(Numbers(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        numbers: Any = connection.proxy(Numbers)
        blocks: dict[str, Any] = {
            r"seqrpc\.timeout\(5\)": seqrpc.timeout(5),
            r"<Server at /.*>": server,
            r"<NumbersProxy on <Connection open peer=.*>>": numbers,
            r"<Stream unopened>": numbers.count(3),
        }
        for name, block in blocks.items():
            with pytest.raises(TypeError, match=rf"^{name} is entered by 'async with', not by 'with'$"):
                entered(block)
            with pytest.raises(TypeError, match=rf"^{name} is entered by 'async with'"), ExitStack() as stack:
                stack.enter_context(block)
        with pytest.raises(TypeError, match=r"^<Stream unopened> is read by 'async for', not by 'for'$"):
            list(numbers.count(3))
        assert [number async for number in numbers.count(3)] == [0, 1, 2]
    assert repr(server).startswith("<Server at /")


async def test_a_server_on_a_pair_says_so() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Numbers(), sock=theirs) as server, seqrpc.connect(sock=ours):
        assert repr(server) == "<Server on a socket that was passed>"


def test_who_leaves_what_cannot_be_entered_finds_something() -> None:
    block = AsyncBlock()
    assert block.__exit__(None, None, None) is None  # type: ignore[attr-defined] # hidden from type checkers
