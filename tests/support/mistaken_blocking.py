"""Mistakes of those who call without an event loop, most of which are what is right with one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import seqrpc
import seqrpc.blocking
from support.mistakes import Audit, Machine, Place, mistake


@contextlib.contextmanager
def connected(**options: Any) -> Iterator[seqrpc.blocking.Connection]:
    """Connect to nobody, without an event loop: nothing is to get so far that somebody had to answer."""
    ours, theirs = seqrpc.socket_pair()
    with theirs, ours, seqrpc.blocking.connect(sock=ours, **options) as connection:
        yield connection


@mistake(
    "awaited",
    TypeError,
    "<Connection open peer=None> is entered by 'with', not by 'async with'",
    names="<Connection",
    way_out="by 'with'",
)
async def connection_with_async(_place: Place) -> None:
    with connected() as connection:
        entered: Any = connection
        async with entered:
            pass


@mistake(
    "awaited",
    TypeError,
    "<MachineProxy on <Connection open peer=None>> is entered by 'with', not by 'async with'",
    names="<MachineProxy",
    way_out="by 'with'",
)
async def proxy_with_async(_place: Place) -> None:
    with connected() as connection:
        machine: Any = connection.proxy(Machine)
        async with machine:
            pass


@mistake(
    "called",
    seqrpc.LocalProtocolError,
    "what a value of type async_generator yields needs an event loop, and a blocking connection streams iterators:"
    " write a generator without 'async'",
    names="async_generator",
    way_out="write a generator without 'async'",
)
def async_generator_given(_place: Place) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with connected() as connection:
        connection.call("Machine.total", numbers())


class Waiting(seqrpc.blocking.Interceptor):
    async def request(self, call: seqrpc.OutgoingCall, proceed: Callable[[], Any]) -> Any:
        return proceed()


@mistake(
    "given",
    TypeError,
    "Waiting.request must be a plain function: nobody awaits it",
    names="Waiting.request",
    way_out="must be a plain function",
)
def interceptor_of_coroutines(_place: Place) -> None:
    with connected(interceptors=[Waiting()]):
        pass


@mistake(
    "given",
    TypeError,
    "an object of a seqrpc.blocking.Interceptor was expected, got <…Audit object at …>",
    names="Audit",
    way_out="an object of a seqrpc.blocking.Interceptor",
)
def interceptor_of_the_other_kind(_place: Place) -> None:
    with connected(interceptors=[Audit()]):
        pass


class Lasting(Machine):
    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield


@mistake(
    "given",
    TypeError,
    "Lasting.lifespan needs an event loop, which a blocking connection has not: open what Lasting needs before you"
    " connect",
    names="Lasting.lifespan",
    way_out="before you connect",
)
def lifespan_without_a_loop(_place: Place) -> None:
    with connected(services=Lasting()):
        pass
