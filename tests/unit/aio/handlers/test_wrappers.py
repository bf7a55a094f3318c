"""Handlers that are wrapped by a decorator's plain function."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.waiting import comes_true

import seqrpc


def wrapped_by(result_of: Callable[[Callable[[], Any]], Any]) -> Callable[[Any], Any]:
    """Return a decorator whose wrapper returns what ``result_of`` makes of the function."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return result_of(functools.partial(function, *args, **kwargs))

        return wrapper

    return decorate


called = wrapped_by(lambda function: function())
one = wrapped_by(lambda function: 1)


def forgetful(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function without saying so."""

    def wrapper(self: Any) -> Any:
        return function(self)

    return wrapper


async def coroutine() -> int:
    return 5


class Wrapped(seqrpc.Service):
    @seqrpc.method
    @called
    @called
    async def on_the_loop(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    @seqrpc.method
    @called
    async def many(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    @called
    def in_a_thread(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    @seqrpc.method
    @one
    async def not_awaitable(self) -> int:
        return 2

    @seqrpc.method
    @one
    async def not_items(self) -> AsyncIterator[int]:
        yield 1

    @seqrpc.method
    @wrapped_by(lambda function: coroutine())
    async def coroutine_for_items(self) -> AsyncIterator[int]:
        yield 1

    @seqrpc.method
    @forgetful
    async def unknown(self) -> int:
        return 1

    @seqrpc.method
    def forgotten(self) -> Any:
        return coroutine()

    @seqrpc.method(oneway=True)
    def told(self) -> Any:
        return coroutine()


async def test_a_wrapped_function_runs_as_if_it_were_not_wrapped() -> None:
    async with on_a_pair(Wrapped()) as connection:
        wrapped = connection.proxy(Wrapped)
        assert await wrapped.on_the_loop()
        assert [number async for number in wrapped.many(3)] == [0, 1, 2]
        assert not await wrapped.in_a_thread()


FAILURES = {
    "not_awaitable": "Wrapped.not_awaitable wraps a coroutine function, and returned an object of int and not something"
    " to await",
    "not_items": "Wrapped.not_items wraps an async generator function, and returned an object of int and not an async"
    " iterator",
    "coroutine_for_items": "Wrapped.coroutine_for_items wraps an async generator function, and returned an object of"
    " coroutine and not an async iterator",
    "unknown": "Wrapped.unknown was called and not awaited: a plain function returned its coroutine; write it as"
    " 'async def', and a wrapper with functools.wraps",
    "forgotten": "coroutine was called and not awaited: a plain function returned its coroutine;",
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_wrapper_that_returns_something_else_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Wrapped()) as connection:
        with pytest.raises(seqrpc.Internal):
            await connection.call(f"Wrapped.{name}")
    assert FAILURES[name] in caplog.text
    gc.collect()  # no coroutine is left that would complain that it was never awaited


async def test_the_coroutine_of_a_one_way_call_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Wrapped()) as connection:
        await connection.proxy(Wrapped).told()
        await comes_true(lambda: "coroutine was called and not awaited" in caplog.text)
    gc.collect()
