from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.sync import far, raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.proxy import callee_of
from seqrpc.kernel.descriptors import OwnedFd


class S(seqrpc.Service):
    """Methods of all kinds."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @seqrpc.method
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @seqrpc.method
    async def add_later(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method(idempotent=True)
    def look(self, a: int) -> str:
        return str(a)

    @seqrpc.method(oneway=True)
    def tell(self, what: str) -> None:
        self.told.append(what)

    @seqrpc.method
    def heard(self) -> list[str]:
        return self.told

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method(idempotent=True)
    async def count_again(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    def take(self, fd: OwnedFd) -> bool:
        return not fd.closed

    @seqrpc.method
    def close(self) -> None:
        raise ValueError("it is not what the block calls")


def test_plain_and_coroutine_methods_give_their_results_at_once() -> None:
    with far(S()) as (connection, _other):
        proxy: Any = connection.proxy(S)
        assert proxy.add(2, 3) == 5
        assert proxy.add(2) == 3
        assert proxy.add(a=2, b=3) == 5
        assert proxy.add_later(2, 3) == 5
        assert proxy.look(3) == "3"
        with pytest.raises(TypeError):
            proxy.add()


def test_one_way_methods_return_nothing() -> None:
    with far(S()) as (connection, _other):
        proxy: Any = connection.proxy(S)
        assert proxy.tell("first") is None
        assert proxy.heard() == ["first"]


@pytest.mark.parametrize("name", ["count", "count_again"])
def test_methods_that_stream_are_called_when_they_are_read(name: str) -> None:
    with far(S()) as (connection, _other):
        stream = getattr(connection.proxy(S), name)(3)
        assert isinstance(stream, blocking.Stream)
        assert repr(stream) == "<Stream unopened>"
        assert [*stream] == [0, 1, 2]


def test_results_are_checked() -> None:
    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, "five")
        proxy: Any = connection.proxy(S)
        with pytest.raises(seqrpc.InvalidResult):
            proxy.add(2, 3)


def test_descriptors_need_an_owner(pipe: tuple[int, int]) -> None:
    with far(S()) as (connection, _other):
        proxy: Any = connection.proxy(S)
        with OwnedFd(os.dup(pipe[0])) as fd:
            assert proxy.take(fd) is True
        with open(os.devnull) as file, pytest.raises(TypeError):
            proxy.take(file)


def test_a_proxy_of_a_connection_holds_nothing_of_its_own() -> None:
    with far(S()) as (connection, _other):
        proxy: Any = connection.proxy(S)
        with proxy as same:
            assert same is proxy
        assert proxy.add(2, 3) == 5
        assert callee_of(proxy) is connection._callee
        assert repr(proxy).startswith("<S")


async def test_it_is_entered_by_with() -> None:
    with raw_peer() as (connection, _raw):
        proxy: Any = connection.proxy(S)
        with pytest.raises(TypeError, match="is entered by 'with', not by 'async with'"):
            async with proxy:
                pass


def test_what_is_no_class_has_no_proxy() -> None:
    with raw_peer() as (connection, _raw), pytest.raises(TypeError):
        connection.proxy(3)  # type: ignore[arg-type]


def test_iterators_are_arguments() -> None:
    class Summing(seqrpc.Service):
        @seqrpc.method
        def sum(self, numbers: blocking.Stream[int]) -> int:
            return sum(numbers)

    with far(Summing()) as (connection, _other):
        proxy: Any = connection.proxy(Summing)
        assert proxy.sum(iter([1, 2, 3])) == 6
