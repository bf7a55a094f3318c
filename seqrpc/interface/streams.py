"""What a stream is to those who look at it from outside: as type checkers see it, and as the base of reading ends."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from seqrpc.protocol.received import ItemCheck

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A_co = TypeVar("A_co", bound=AsyncIterable[Any], covariant=True)
S = TypeVar("S", bound="ReceivedStream[Any]")


class Items(Protocol[T_co]):
    """The items of a stream: what calling a method that streams gives, on a proxy and on the object itself.

    ``async for`` takes them one by one; ``async with`` closes the stream at the end of its block. On a proxy it is a
    :class:`seqrpc.Stream`. As the annotation of a result it declares a stream in an interface:
    ``def count(self, to: int) -> seqrpc.Items[int]: ...``.
    """

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Return what gives the items."""
        ...

    async def __anext__(self) -> T_co:
        """Return the next item."""
        ...

    async def aclose(self) -> None:
        """Want no more: the producer stops."""
        ...

    async def __aenter__(self) -> Items[T_co]:
        """Return itself; it is closed at the end of the block."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        ...


if TYPE_CHECKING:

    class ItemsOf(Protocol[A_co]):
        """What :func:`seqrpc.method` makes of a method that is annotated with ``A``: the :class:`Items` of that.

        It has the annotation for its argument and not the type of the items, because mypy does not choose between
        overloads with the types of a function that has Any among its parameters.
        """

        def __aiter__(self: ItemsOf[AsyncIterable[T]]) -> AsyncIterator[T]: ...
        async def __anext__(self: ItemsOf[AsyncIterable[T]]) -> T: ...
        async def aclose(self) -> None: ...  # noqa: D102 - Items has the docstrings
        async def __aenter__(self: ItemsOf[AsyncIterable[T]]) -> Items[T]: ...
        async def __aexit__(
            self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
        ) -> None: ...


class LocalItems(AsyncIterator[T_co]):
    """The :class:`Items` of a method that was called on the object itself.

    Args:
        items: what the method gave.
    """

    def __init__(self, items: AsyncIterable[T_co]) -> None:
        """Begin where they begin."""
        self._iterator = aiter(items)
        self.__qualname__ = getattr(items, "__qualname__", type(items).__qualname__)  # for logs

    def __aiter__(self) -> LocalItems[T_co]:
        """Return itself."""
        return self

    async def __anext__(self) -> T_co:
        """Return the next item."""
        return await anext(self._iterator)

    async def aclose(self) -> None:
        """End what gives the items."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> LocalItems[T_co]:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()


class ReceivedStream(Generic[T_co]):
    """Base of the reading ends of streams: a class of this kind is an annotation as ``AsyncIterator`` is."""

    def _checked(self, check: ItemCheck) -> None:
        """Let ``check`` convert the items from now on, several at a time."""
        raise NotImplementedError


def checked(stream: S, check: ItemCheck) -> S:
    """Let ``check`` convert the items of a stream from now on, several at a time; return the stream itself."""
    stream._checked(check)  # noqa: SLF001 - for this function only: users see no such method
    return stream
