"""Streams: values that come one after the other, over a socket pair of their own (protocol section 6).

:class:`Stream` is the reading end; :mod:`seqrpc.aio.producers` writes to the other.
The kernel's socket buffer is the flow control: a reader that does not read makes its producer wait, and nobody else.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.readers import StreamReader
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.received import ItemCheck

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Stream(AsyncBlock, AsyncIterator[T_co], ReceivedStream[T_co]):
    """The reading end of a stream: ``async for item in stream``.

    Calling a method that streams returns one; the call is made when the first item is asked for, or by
    :meth:`open`. A stream outlives its call and its connection. It ends, and its producer stops, when it is
    read to its end, closed (``async with``, :meth:`aclose`), or dropped: breaking out of ``async for
    item in proxy.count()`` drops it. Sent on, as an argument or a result, it goes to the receiver and is over here.

    Only one task may read at a time. Reading raises what a call would raise: the producer's error, as the class
    of its code; Unavailable if the producer died; InvalidResult, or in a handler InvalidParams, for an item
    that does not fit the annotation; RemoteProtocolError. After any of these but DescriptorsLost, which costs
    the items of one packet, the stream is over. In a forked child it raises WrongProcess. While one running event loop
    watches the stream, reading on another raises WrongLoop. These two change nothing.

    Cancel: no item is lost; the stream can be read on.
    """

    def __init__(
        self,
        fd: OwnedFd | None = None,
        reader: ItemReader | None = None,
        opening: Callable[[], Awaitable[Stream[Any]]] | None = None,
    ) -> None:
        """Hold the reading end and what decodes its packets, or know how to get both; calls make streams."""
        self._reader = StreamReader(fd, reader, None if opening is None else functools.partial(_reader_of, opening))
        self._ready = self._reader.items.ready

    @staticmethod
    def of(items: AsyncIterator[T]) -> Stream[T]:
        """Return the same object, typed as the stream that it is: type checkers know it as :class:`Items`.

        ``received = await seqrpc.Stream.of(proxy.count(10)).open()``

        Raises:
            TypeError: the object is no stream, but an async iterator of another kind.
        """
        if not isinstance(items, Stream):
            raise TypeError(f"a stream was expected, got {type(items).__name__}")
        return items

    def _checked(self, check: ItemCheck) -> None:
        self._reader.items.check = check

    async def open(self) -> Self:
        """Make the call now, so that the stream can be passed on; return the stream itself.

        Raises:
            WrongProcess, WrongLoop: it is to be opened in another process, or on another event loop.
            RuntimeError: another task is opening it, which changes nothing.
            Exception: anything else that the call raises; the stream is over then.
        """
        await self._reader.open()
        return self

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{self!r} is read by 'async for', not by 'for'")

    async def __anext__(self) -> T_co:
        """Return the next item."""
        item: T_co
        if self._ready:
            item = self._ready.popleft()
            return item
        item = await self._reader.next()
        return item

    @property
    def closed(self) -> bool:
        """True once it is read to its end, closed, or passed on."""
        return self._reader.is_over

    def close(self) -> None:
        """Do what :meth:`aclose` does, where nothing can be awaited.

        Raises:
            WrongLoop: an event loop in another thread watches it.
        """
        self._reader.drop()

    async def aclose(self) -> None:
        """Stop reading for good: the producer stops, and items that nobody took are dropped.

        In a forked child this does nothing: the stream is the parent's.

        Raises:
            WrongLoop: an event loop in another thread watches it.
        """
        self._reader.drop()

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    def __repr__(self) -> str:
        """Return the state."""
        reader = self._reader
        state = "closed" if reader.is_closed else "unopened" if reader.is_unopened else "open"
        return f"<Stream {state}>"


async def _reader_of(opening: Callable[[], Awaitable[Stream[Any]]]) -> StreamReader:
    return reader_of(await opening())


def reader_of(stream: Stream[Any]) -> StreamReader:
    """Return what does the work of a stream, which users do not see."""
    return stream._reader  # noqa: SLF001 - for this function only
