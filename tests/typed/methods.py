"""What type checkers make of methods, on the object itself and on a proxy; nothing here is run.

mypy --strict and pyright --strict pass it. A line with ``type: ignore`` must be an error in both of them: each
complains of an ignore that nothing needs.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, Self, TypeVar, assert_type

import seqrpc
from seqrpc import policy

T = TypeVar("T")


class Kinds(seqrpc.Service):
    """Each kind of function, each with and without what mypy takes for ambiguous: Any."""

    @seqrpc.method
    async def coroutine(self, a: int, b: str = "", *, c: bool = False) -> int:
        return a

    @seqrpc.method(idempotent=True)
    def plain_idempotent(self, a: int) -> int:
        return a

    @seqrpc.method(allow=policy.root, errors=[seqrpc.Unavailable, seqrpc.PermissionDenied])
    async def coroutine_of_anything(self, a: Any, b: dict[str, Any]) -> list[Any]:
        return [a, b]

    @seqrpc.method
    async def coroutine_gives_anything(self) -> Any:
        return 1

    @seqrpc.method
    def plain(self, a: int, b: str = "", *, c: bool = False) -> int:
        return a

    @seqrpc.method(allow=lambda caller: caller.uid == 0)
    def plain_of_anything(self, a: Any, b: dict[str, Any]) -> list[Any]:
        return [a, b]

    @seqrpc.method
    def plain_gives_anything(self) -> Any:
        return 1

    @seqrpc.method
    def plain_nothing(self) -> None: ...

    @seqrpc.method
    def plain_optional(self) -> str | None:
        return None

    @seqrpc.method
    def plain_file(self, name: str) -> seqrpc.OwnedFd:
        raise NotImplementedError

    @seqrpc.method
    def plain_callable(self) -> type[int]:
        raise NotImplementedError

    @seqrpc.method(oneway=True)
    def told(self, text: str) -> None: ...

    @seqrpc.method(oneway=True)
    async def told_on_the_loop(self, text: Any) -> None: ...

    @seqrpc.method
    async def stream(self, to: int) -> AsyncIterator[int]:
        yield to

    @seqrpc.method(allow=policy.root)
    async def stream_of_anything(self, to: Any) -> AsyncIterator[int]:
        yield 1

    @seqrpc.method
    async def stream_gives_anything(self, to: int) -> AsyncIterator[Any]:
        yield to

    @seqrpc.method
    async def generator(self, to: Any) -> AsyncGenerator[int, None]:
        yield 1

    @seqrpc.method
    async def iterable(self, to: int) -> AsyncIterable[int]:
        yield to

    @seqrpc.method
    def declared(self, to: int) -> AsyncIterator[int]:
        raise NotImplementedError

    @seqrpc.method
    def declared_as_items(self, to: int) -> seqrpc.Items[int]:
        raise NotImplementedError

    @seqrpc.method
    def declared_as_stream(self, to: int) -> seqrpc.Stream[int]:
        raise NotImplementedError

    @seqrpc.method
    async def stream_to_await(self, to: int) -> AsyncIterator[int]:
        return self.stream(to)

    @seqrpc.method
    async def optional_stream(self) -> AsyncIterator[int] | None:
        return None


async def use_both(itself: Kinds, connection: seqrpc.Connection) -> None:
    for kinds in (itself, connection.proxy(Kinds)):
        assert_type(kinds, Kinds)
        await use(kinds)


async def use(kinds: Kinds) -> None:
    assert_type(await kinds.coroutine(1, "b", c=True), int)
    assert_type(await kinds.coroutine(a=1), int)
    assert_type(await kinds.coroutine_of_anything(1, {}), list[Any])
    assert_type(await kinds.coroutine_gives_anything(), Any)
    assert_type(await kinds.plain(1, "b", c=True), int)
    assert_type(await kinds.plain(a=1), int)
    assert_type(await kinds.plain_idempotent(1), int)
    assert_type(await kinds.plain_of_anything(1, {}), list[Any])
    assert_type(await kinds.plain_gives_anything(), Any)
    await kinds.plain_nothing()
    assert_type(await kinds.plain_optional(), str | None)
    assert_type(await kinds.plain_file("name"), seqrpc.OwnedFd)
    assert_type(await kinds.plain_callable(), type[int])
    await kinds.told("text")
    await kinds.told_on_the_loop("text")
    assert_type([number async for number in kinds.stream(5)], list[int])
    assert_type([number async for number in kinds.stream_of_anything(5)], list[int])
    assert_type([number async for number in kinds.stream_gives_anything(5)], list[Any])
    assert_type([number async for number in kinds.generator(5)], list[int])
    assert_type([number async for number in kinds.iterable(5)], list[int])
    assert_type([number async for number in kinds.declared(5)], list[int])
    assert_type([number async for number in kinds.declared_as_items(5)], list[int])
    assert_type([number async for number in kinds.declared_as_stream(5)], list[int])
    assert_type([number async for number in await kinds.stream_to_await(5)], list[int])
    if (optional := await kinds.optional_stream()) is not None:
        assert_type([number async for number in optional], list[int])


async def misuse(kinds: Kinds) -> None:
    kinds.coroutine(1)  # type: ignore[unused-coroutine]
    kinds.plain(1)  # type: ignore[unused-coroutine]
    kinds.told("text")  # type: ignore[unused-coroutine]
    await kinds.coroutine("1")  # type: ignore[arg-type]
    await kinds.plain("1")  # type: ignore[arg-type]
    await kinds.plain()  # type: ignore[call-arg]
    await kinds.plain(1, c=1)  # type: ignore[arg-type]
    await kinds.plain(1, d=1)  # type: ignore[call-arg]
    await kinds.plain(1, "b", True)  # type: ignore[call-arg]
    await kinds.plain_file(b"name")  # type: ignore[arg-type]
    await kinds.told(5)  # type: ignore[arg-type]
    await kinds.stream(5)  # type: ignore[misc]
    await kinds.subtract(1)  # type: ignore[attr-defined]
    kinds.stream("5")  # type: ignore[arg-type]
    async for _number in kinds.stream_to_await(5):  # type: ignore[attr-defined]
        pass
    number: int = kinds.plain(1)  # type: ignore[assignment]
    text: str = await kinds.plain(number)  # type: ignore[assignment]
    await kinds.told(text)
    for _item in kinds.stream(5):  # type: ignore[attr-defined]
        pass
    strings: seqrpc.Items[str] = kinds.stream(5)  # type: ignore[assignment]
    await strings.asend(None)  # type: ignore[attr-defined]


async def every(items: AsyncIterable[T]) -> list[T]:
    return [item async for item in items]


async def use_streams(kinds: Kinds) -> None:
    items = kinds.stream(5)
    assert_type(await anext(items), int)
    assert_type(await anext(aiter(items)), int)
    assert_type(await every(items), list[int])
    await items.aclose()
    async with kinds.stream(5) as numbers:
        assert_type(numbers, seqrpc.Items[int])
        assert_type([number async for number in numbers], list[int])
        await numbers.aclose()
    as_items: seqrpc.Items[int] = kinds.generator(5)
    as_iterator: AsyncIterator[int] = as_items
    assert_type(seqrpc.Stream.of(as_iterator), seqrpc.Stream[int])
    async with await seqrpc.Stream.of(kinds.stream(5)).open() as stream:
        assert_type(stream, seqrpc.Stream[int])
        assert_type(stream.closed, bool)
        again: seqrpc.Items[int] = stream
        await again.aclose()
        stream.close()


# Overriding


class Narrower(Kinds):
    @seqrpc.method
    async def coroutine(self, a: int, b: str = "", *, c: bool = False) -> bool:
        return c

    @seqrpc.method
    async def plain(self, a: int, b: str = "", more: int = 0, *, c: bool = False) -> bool:
        return c

    @seqrpc.method
    def coroutine_of_anything(self, a: Any, b: dict[str, Any]) -> list[Any]:
        return [a, b]

    @seqrpc.method
    async def stream(self, to: int) -> AsyncGenerator[bool, None]:
        yield True

    @seqrpc.method
    def generator(self, to: Any) -> AsyncGenerator[bool, None]:
        raise NotImplementedError


class Wider(Kinds):
    @seqrpc.method
    async def coroutine(self, a: int, b: str = "", *, c: bool = False) -> str:  # type: ignore[override]
        return b

    def plain(self, a: int, b: str = "", *, c: bool = False) -> int:  # type: ignore[override]
        return a

    @seqrpc.method
    def plain_optional(self, a: int) -> str | None:  # type: ignore[override]
        return None

    @seqrpc.method
    async def stream(self, to: int) -> AsyncIterator[str]:  # type: ignore[override]
        yield ""

    @seqrpc.method
    async def declared(self, to: int) -> int:  # type: ignore[override]
        return to


class Fluent(seqrpc.Service):
    @seqrpc.method
    async def itself(self) -> Self:
        return self


async def give_itself(fluent: Fluent) -> None:
    assert_type(await fluent.itself(), Fluent)


# Interfaces


class Declared(Protocol):
    """What a service has to offer."""

    async def coroutine(self, a: int) -> int: ...

    async def plain(self, a: int) -> int: ...

    def stream(self, to: int) -> AsyncIterator[int]: ...

    def generator(self, to: int) -> seqrpc.Items[int]: ...


class Abstract(abc.ABC):
    """The same for those who like to derive from it."""

    @abc.abstractmethod
    async def plain(self, a: int) -> int: ...

    @abc.abstractmethod
    def stream(self, to: int) -> seqrpc.Items[int]: ...


class AbstractService(seqrpc.Service, abc.ABC):
    """The same as a service."""

    @seqrpc.method
    @abc.abstractmethod
    def plain(self, a: int) -> int: ...

    @seqrpc.method
    @abc.abstractmethod
    async def coroutine(self, a: int) -> int: ...

    @seqrpc.method
    @abc.abstractmethod
    def stream(self, to: int) -> AsyncIterator[int]: ...


class Implements(seqrpc.Service, Declared, Abstract):
    @seqrpc.method
    def coroutine(self, a: int) -> int:
        return a

    @seqrpc.method
    def plain(self, a: int) -> int:
        return a

    @seqrpc.method
    async def stream(self, to: int) -> AsyncIterator[int]:
        yield to

    @seqrpc.method
    async def generator(self, to: int) -> AsyncGenerator[int, None]:
        yield to


class ImplementsService(AbstractService):
    @seqrpc.method
    async def plain(self, a: int) -> int:
        return a

    @seqrpc.method
    def coroutine(self, a: int) -> int:
        return a

    @seqrpc.method
    async def stream(self, to: int) -> AsyncIterator[int]:
        yield to


class DoesNot(seqrpc.Service, Declared):
    @seqrpc.method
    async def coroutine(self, a: str) -> int:  # type: ignore[override]
        return 1

    def plain(self, a: int) -> int:  # type: ignore[override]
        return a

    @seqrpc.method
    async def stream(self, to: int) -> AsyncIterator[str]:  # type: ignore[override]
        yield ""

    @seqrpc.method
    async def generator(self, to: int) -> int:  # type: ignore[override]
        return 1


async def use_interfaces(connection: seqrpc.Connection, channel: seqrpc.Channel) -> None:
    declared = connection.proxy(Declared)
    assert_type(declared, Declared)
    assert_type(await declared.plain(1), int)
    assert_type([number async for number in declared.stream(1)], list[int])
    async with declared.generator(1) as items:
        assert_type([number async for number in items], list[int])
    assert_type(channel.proxy(Abstract), Abstract)
    assert_type(connection.proxy(AbstractService), AbstractService)
    assert_type(await connection.proxy(AbstractService).plain(1), int)
    fits: Declared = Implements()
    fits = connection.proxy(Implements)
    await declared.plain("1")  # type: ignore[arg-type]
    await fits.missing()  # type: ignore[attr-defined]
    AbstractService()  # type: ignore[abstract]
    fits = Kinds()
    fits = seqrpc.Service()  # type: ignore[assignment]
    connection.proxy(Implements())  # type: ignore[arg-type]
    connection.proxy("Implements")  # type: ignore[arg-type]


# Decorators


def timed(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
    return function


class Decorated(seqrpc.Service):
    @seqrpc.method
    @timed
    async def timed(self, a: int) -> int:
        return a

    @seqrpc.method
    @staticmethod
    def static(a: int) -> int:
        return a


async def use_decorated(decorated: Decorated) -> None:
    assert_type(await decorated.timed(1), int)
    awaitable: Awaitable[int] = decorated.timed(1)
    await awaitable


seqrpc.method(5)  # type: ignore[call-overload]
seqrpc.method(allow="root")  # type: ignore[call-overload]
seqrpc.method(oneway=1)  # type: ignore[call-overload]
seqrpc.method(one_way=True)  # type: ignore[call-overload]
