"""Streams: values that come one after the other, over a socket pair of their own (protocol section 6)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from seqrpc.blocking.blocks import Block
from seqrpc.blocking.family import Family
from seqrpc.blocking.readers import StreamReader
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.received import ItemCheck

T_co = TypeVar("T_co", covariant=True)


class Stream(Block, Iterator[T_co], ReceivedStream[T_co]):
    """The reading end of a stream: ``for item in stream``.

    Calling a method that streams returns one; the call is made when the first item is asked for, or by
    :meth:`open`. A stream outlives its call and its connection. It ends, and its producer stops, when it is
    read to its end, closed (``with``, :meth:`close`), or dropped: breaking out of ``for item in proxy.count()`` drops
    it. Sent on, as an argument or a result, it goes to the receiver and is over here.

    While a thread waits for an item, what is asked of this side over the stream's connection is served. Only one thread
    may read at a time. Reading raises what a call would raise: the producer's error, as the class
    of its code; Unavailable if the producer died; InvalidResult, or in a handler InvalidParams, for an item
    that does not fit the annotation; RemoteProtocolError. After any of these but DescriptorsLost, which costs
    the items of one packet, the stream is over. In a forked child it raises WrongProcess, and DeadlineExceeded when the
    time given by :func:`seqrpc.timeout` is up; these two, and what a signal handler raises while it waits, change
    nothing: the stream can be read on.
    """

    def __init__(
        self,
        family: Family | None = None,
        fd: OwnedFd | None = None,
        reader: ItemReader | None = None,
        opening: Callable[[], Stream[Any]] | None = None,
    ) -> None:
        """Hold the reading end and what decodes its packets, or know how to get both; calls make streams."""
        how = None if opening is None else functools.partial(_reader_of, opening)
        self._reader = StreamReader(family, fd, reader, how)
        self._ready = self._reader.items.ready

    def _checked(self, check: ItemCheck) -> None:
        self._reader.items.check = check

    def open(self) -> Self:
        """Make the call now, so that the stream can be passed on; return the stream itself.

        Raises:
            WrongProcess: it is to be opened in another process.
            RuntimeError: it is being opened already, in another thread or around this, which changes nothing.
            Exception: anything else that the call raises; the stream is over then.
        """
        self._reader.open()
        return self

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> T_co:
        """Return the next item."""
        item: T_co
        if self._ready:
            item = self._ready.popleft()
            return item
        item = self._reader.next()
        return item

    def take_ready(self) -> list[T_co]:
        """Return the items that are there, without waiting: for GUI loops, which watch :meth:`fileno`.

        The list is empty if there are none now, and at the end: :attr:`closed` tells.

        Raises:
            Exception: as reading, once the items before are taken.
        """
        return self._reader.take_ready()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something for :meth:`take_ready`, lent.

        Raises:
            ValueError: the stream is closed, or was passed on.
            Exception: what the call raises that begins the stream, if it was not made yet.
        """
        return self._reader.fileno()

    @property
    def closed(self) -> bool:
        """True once it is read to its end, closed, or passed on."""
        return self._reader.is_over

    def close(self) -> None:
        """Stop reading for good: the producer stops, and items that nobody took are dropped.

        In a forked child this does nothing: the stream is the parent's.
        """
        self._reader.drop()

    def __enter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Stop the producer: nobody will read."""
        reader = getattr(self, "_reader", None)
        if reader is not None and not reader.is_closed:
            reader.drop()

    def __repr__(self) -> str:
        """Return the state."""
        reader = self._reader
        state = "closed" if reader.is_closed else "unopened" if reader.is_unopened else "open"
        return f"<Stream {state}>"


def _reader_of(opening: Callable[[], Stream[Any]]) -> StreamReader:
    """Return what does the work of a stream that was opened for another one, and is dropped."""
    opened = opening()
    reader, opened._reader = opened._reader, StreamReader()  # noqa: SLF001 - this module's own
    return reader


def reader_of(stream: Stream[Any]) -> StreamReader:
    """Return what does the work of a stream, which users do not see."""
    return stream._reader  # noqa: SLF001 - for this function only
