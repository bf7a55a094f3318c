"""Results and errors that raise while they are looked at: their calls are answered all the same."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.incidents import AN_INCIDENT
from support.waiting import PATIENCE

import seqrpc
from seqrpc import OwnedFd


class Unread(dict[str, Any]):
    """Rows that are fetched when they are asked for, once there is nobody to fetch them from."""

    def __iter__(self) -> Iterator[str]:
        raise ValueError("the cursor is closed")

    items = keys = values = __iter__  # type: ignore[assignment]


class Unfetched(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise ValueError("the cursor is closed")


class Outside:
    """Stands for another object, outside of where there is one."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("working outside of the context")


@dataclasses.dataclass
class Gone:
    number: int

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise RuntimeError("the record is gone")
        return super().__getattribute__(name)


class Stopped(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise asyncio.CancelledError


class Evil(Exception):
    """Has nothing that can be asked for."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class Unsaid(seqrpc.RpcError, code="test.Unsaid"):
    def __init__(self) -> None:
        """Call no ``__init__`` of the base."""

    @property
    def message(self) -> str:  # type: ignore[override]
        raise asyncio.CancelledError


def with_code(code: Any) -> seqrpc.RpcError:
    error = seqrpc.RpcError("of no use", code="test.Code")
    error.code = code
    return error


VALUES: dict[str, Callable[[], Any]] = {
    "map": lambda: Unread(key=object()),
    "array": lambda: Unfetched([1]),
    "proxy": Outside,
    "proxy within": lambda: [Outside()],
    "map within": lambda: [Unread(key=1), object()],
    "object": lambda: [Gone(1), object()],
}
ERRORS: dict[str, Callable[[], Exception]] = {
    "attributes": Evil,
    "message": Unsaid,
    "code": lambda: with_code([1]),
}


class Odd(seqrpc.Service):
    given: OwnedFd

    @seqrpc.method
    async def give(self, kind: str) -> Any:
        return VALUES[kind]()

    @seqrpc.method
    def give_in_thread(self, kind: str) -> Any:
        return VALUES[kind]()

    @seqrpc.method
    async def fail_with(self, kind: str) -> None:
        raise seqrpc.RpcError("with data", VALUES[kind](), code="test.Data")

    @seqrpc.method
    async def fail(self, kind: str, wait: bool = False) -> None:
        if wait:
            await asyncio.sleep(0)
        error = ERRORS[kind]()
        raise error

    @seqrpc.method
    async def give_descriptor(self) -> Any:
        self.given = OwnedFd.dup(0)
        return [self.given, object(), Unfetched()]

    @seqrpc.method
    async def stop(self) -> Any:
        return [object(), Stopped()]


async def error_of(connection: seqrpc.Connection, method: str, *args: Any) -> seqrpc.RpcError:
    with pytest.raises(seqrpc.RpcError) as caught:
        await asyncio.wait_for(connection.call(method, *args), PATIENCE)
    return caught.value


class Surrounding(seqrpc.Interceptor):
    async def handle(self, call: Any, proceed: Any) -> Any:
        return await proceed()


class Replacing(seqrpc.Interceptor):
    async def handle(self, call: Any, proceed: Any) -> Any:
        await proceed()
        return "another"


@pytest.mark.parametrize("around", [(), (Surrounding(),)], ids=["bare", "surrounded"])
@pytest.mark.parametrize("method", ["give", "give_in_thread"])
@pytest.mark.parametrize("kind", VALUES)
async def test_a_result_that_raises_while_it_is_taken_apart_is_internal(
    kind: str, method: str, around: tuple[seqrpc.Interceptor, ...]
) -> None:
    async with on_a_pair(Odd(), interceptors=around) as connection:
        error = await error_of(connection, f"Odd.{method}", kind)
        assert (type(error), error.message) == (seqrpc.Internal, AN_INCIDENT)


@pytest.mark.parametrize("kind", VALUES)
async def test_a_result_that_raises_so_may_be_replaced(kind: str) -> None:
    async with on_a_pair(Odd(), interceptors=(Replacing(),)) as connection:
        assert await asyncio.wait_for(connection.call("Odd.give", kind), PATIENCE) == "another"


@pytest.mark.parametrize("kind", VALUES)
async def test_an_error_whose_data_raises_so_goes_without_it(kind: str) -> None:
    async with on_a_pair(Odd()) as connection:
        error = await error_of(connection, "Odd.fail_with", kind)
        assert (error.code, error.message, error.data) == ("test.Data", "with data", None)


async def test_descriptors_before_what_raises_so_are_closed() -> None:
    service = Odd()
    async with on_a_pair(service) as connection:
        assert isinstance(await error_of(connection, "Odd.give_descriptor"), seqrpc.Internal)
        assert service.given.closed


async def test_a_call_is_answered_also_if_giving_up_its_result_stops() -> None:
    async with on_a_pair(Odd()) as connection:
        assert isinstance(await error_of(connection, "Odd.stop"), seqrpc.Internal)


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("around", [(), (Surrounding(),)], ids=["bare", "surrounded"])
@pytest.mark.parametrize("kind", ERRORS)
async def test_an_exception_that_raises_while_it_is_looked_at_is_internal_and_logged(
    kind: str, around: tuple[seqrpc.Interceptor, ...], wait: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_pair(Odd(), interceptors=around) as connection:
        error = await error_of(connection, "Odd.fail", kind, wait)
        assert (type(error), error.message) == (seqrpc.Internal, AN_INCIDENT)
        assert "its error can" in caplog.text
        assert error.message.split()[1].strip(";") in caplog.text
