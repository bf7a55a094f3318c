"""Streams: values that come one after the other, over a socket pair of their own (protocol section 6).

:class:`Stream` is the reading end; :mod:`seqrpc.aio.producers` writes to the other.
The kernel's socket buffer is the flow control: a reader that does not read holds up its producer, and nobody else.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from seqrpc.aio.gate import Gate
from seqrpc.aio.places import check_loop, runs_here, wrong_loop, wrong_process
from seqrpc.errors import (
    ConnectionLost,
    DescriptorsLost,
    LocalProtocolError,
    RemoteProtocolError,
    RpcError,
    Unavailable,
    WrongLoop,
    WrongProcess,
)
from seqrpc.interface.streams import ReceivedStream
from seqrpc.kernel import ancillary, forks
from seqrpc.kernel.ancillary import Received
from seqrpc.kernel.closing import CLOSER, Sender
from seqrpc.kernel.descriptors import OwnedFd, close_all, sender_of, value_fd
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.unread import close_unread, close_value
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import Inbox, receive_buffer
from seqrpc.protocol.items import End, ItemReader
from seqrpc.protocol.values import not_in, owners_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_ITEMS_A_TURN = 1_024
"""Items of one message that are there to be read without waiting before others on the loop get a turn."""

_PACKETS_A_TURN = 8
"""Packets that are read without waiting before others on the loop get a turn."""


class Stream(AsyncIterator[T_co], ReceivedStream[T_co]):
    """The reading end of a stream: ``async for item in stream``.

    Calling a method that streams returns one; the call is made when the first item is asked for, or by
    :meth:`open`. A stream outlives its call and its connection. It ends, and its producer stops, when it is
    read to its end, closed (``async with``, :meth:`aclose`), or dropped: breaking out of ``async for
    item in proxy.count()`` drops it. Sent on, as an argument or a result, it goes to the receiver and is over here.

    Only one task may read at a time. Reading raises what a call would raise: the producer's error, as the class
    of its code; Unavailable if the producer died; InvalidResult, or in a handler InvalidParams, for an item
    that does not fit the annotation; RemoteProtocolError. After any of these but DescriptorsLost, which costs
    the items of one packet, the stream is over. In a forked child it raises WrongProcess, and on another event loop
    than one that runs and watches the stream WrongLoop: these change nothing.

    Cancel: no item is lost; the stream can be read on.
    """

    def __init__(
        self,
        fd: OwnedFd | None = None,
        reader: ItemReader | None = None,
        opening: Callable[[], Awaitable[Stream[Any]]] | None = None,
    ) -> None:
        """Hold the reading end and what takes its packets apart, or know how to get both; calls make streams."""
        self._fd = fd
        self._reader = reader
        self._opening = opening
        self._check: Callable[[list[Any]], list[Any]] | None = None
        self._sock: socket.socket | None = None
        self._sender: Sender = None
        self._gate: Gate | None = None  # made when it is needed first
        self._items: deque[Any] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._moved = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that watches the socket, or None
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
        self._unwaited = 0
        # What came with descriptors is not in _items: it need never be searched for them when nobody takes it.
        self._carried: tuple[Any, list[OwnedFd]] | None = None  # an item, and what is to be closed if nobody takes it
        self._backlog: list[Any] = []  # items of a message that were not looked at yet, the last first
        self._owners: dict[int, list[OwnedFd]] = {}  # the descriptors of some in the backlog, by their index there
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, Stream._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Be over, without a word to anybody: this is a copy in a forked child."""
        self._forked = self._closed = True
        self._items, self._backlog = deque(), []  # what was received is the parent's to read
        self._carried, self._owners = None, {}
        self._failure = self._opening = self._loop = self._waiter = None
        for end in (self._sock, self._fd):
            if end is not None:
                end.close()
        self._sock = self._fd = None

    @staticmethod
    def of(items: AsyncIterator[T]) -> Stream[T]:
        """Return the same object as the stream that it is: for type checkers, which know a method's annotation only.

        ``async with seqrpc.Stream.of(proxy.count(10)) as items: ...``

        Raises:
            TypeError: it is no stream, but an async iterator of another kind.
        """
        if not isinstance(items, Stream):
            raise TypeError(f"a stream was expected, got {type(items).__name__}")
        return items

    def checked(self, check: Callable[[list[Any]], list[Any]]) -> Self:
        """Let ``check`` convert the items from now on, several at a time; return the stream itself."""
        self._check = check
        return self

    def _checked(self, check: Callable[[list[Any]], list[Any]]) -> None:
        self._check = check

    async def open(self) -> Self:
        """Make the call now, so that the stream can be passed on; return the stream itself.

        Raises:
            WrongProcess, WrongLoop: it is to be opened in another process, or on another event loop.
            Exception: what else the call raises; the stream is over then.
        """
        self._check_process()
        opening, self._opening = self._opening, None
        if opening is not None:
            try:
                opened = await opening()
            except (asyncio.CancelledError, WrongLoop, WrongProcess):
                self._opening = None if self._closed else opening  # the next to read makes the call again
                raise
            except BaseException:
                self.close()
                raise
            if self._closed:
                opened.close()
            else:
                self._fd, opened._fd = opened._fd, None  # noqa: SLF001 - of the same class
                self._reader, self._check = opened._reader, opened._check  # noqa: SLF001 - as above
                opened.close()
        return self

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> T_co:
        """Return the next item."""
        if self._items:
            item: T_co = self._items.popleft()
            return item
        return await self._next()

    async def _next(self) -> T_co:
        if self._busy or (self._loop is not None and self._loop is not asyncio.get_running_loop()):
            self._check_reader()
        self._busy = True
        try:
            if self._opening is not None:
                await self.open()
            while not self._items and self._carried is None:
                if self._backlog:
                    self._take_some()
                    await asyncio.sleep(0)
                    continue
                self._raise_if_over()
                if (CLOSER.careful or self._gate is not None) and not await self._pass_gate():
                    continue
                if not self._receive():
                    self._unwaited = 0
                    await self._wait_readable()
                elif (unwaited := self._unwaited + 1) < _PACKETS_A_TURN:
                    self._unwaited = unwaited
                else:
                    self._unwaited = 0
                    await asyncio.sleep(0)
        finally:
            self._busy = False
        item: T_co
        if self._carried is not None:
            item, self._carried = self._carried[0], None
        else:
            item = self._items.popleft()
        return item

    def _check_process(self) -> None:
        if self._forked:
            raise wrong_process("this stream")

    def _check_reader(self) -> None:
        """Refuse one reader too many; let one go on that comes after the loop that was read on before."""
        self._check_process()
        if not self._busy:
            self._unwatch()
            return
        if self._loop is not None:
            check_loop("this stream", self._loop)
        raise RuntimeError("another task is reading this stream already")

    def _raise_if_over(self) -> None:
        if self._failure is not None:
            self._raise_failure()
        if self._moved:
            raise ConnectionLost("the stream was passed on to somebody else")
        if self._closed:
            self._check_process()
            raise StopAsyncIteration

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        assert failure is not None
        if not isinstance(failure, DescriptorsLost):
            self.close()
        try:
            raise failure
        finally:
            del failure  # else it would hold this frame, which holds it, and keep what came until it is collected

    def _socket(self) -> socket.socket:
        if self._sock is None:
            assert self._fd is not None
            self._sender = sender_of(self._fd)
            self._sock = socket.socket(fileno=self._fd.take())
            if self._sock.gettimeout():  # Python would wait for packets, for so long, before it asks the kernel
                self._sock.setblocking(False)
        return self._sock

    def _receive(self) -> bool:
        """Take one packet if one is there; return whether there was one, or an end."""
        buffer = receive_buffer()
        try:
            size, fds, _sender, lost = ancillary.receive(self._socket(), buffer, self._sender)
        except OSError as exc:
            return self._receive_failed(exc)
        self._take_packet(size, buffer[: min(size, MAX_PACKET)].tobytes(), fds, lost=lost)
        return True

    def _receive_failed(self, exc: OSError) -> bool:
        """Take a failure to receive; return whether to go on at once."""
        if isinstance(exc, BlockingIOError | InterruptedError):
            return False
        if not isinstance(exc, ConnectionResetError):  # it hides packets that came before (protocol 1.6), comes once
            self._failure = Unavailable(f"the stream cannot be read: {exc.strerror}")
        return True

    def _take_packet(self, size: int, data: bytes, fds: list[OwnedFd], *, lost: bool) -> None:
        if size == 0:
            close_all(fds)
            self._failure = Unavailable("the producer of the stream died")
        elif size > MAX_PACKET:
            close_all(fds)
            self._failure = RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size}")
        else:
            self._take(data, fds, lost=lost)

    async def _pass_gate(self) -> bool:
        """Return whether a packet may be received in the ordinary way; if not, wait until that may be asked again."""
        loop = asyncio.get_running_loop()
        gate = self._gate
        if gate is None:
            sock = self._socket()
            inbox = Inbox(uid=self._sender, names_senders=PLATFORM.asks_for_senders(sock))
            gate = Gate(loop, sock, inbox, reopened=self._reopened, arrived=self._take_elsewhere)
            if gate.is_open():
                return True
            self._gate = gate
        self._waiter = waiter = loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
            if self._gate is gate and not gate.receives:
                gate.leave()  # else it would keep the stream
                self._gate = None
        return False

    def _reopened(self) -> None:
        self._gate = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_elsewhere(self, received: Received | OSError, data: bytes) -> None:
        """Take a packet that another thread received."""
        if isinstance(received, OSError):
            self._receive_failed(received)
        else:
            fds: list[OwnedFd] = []
            size, control, flags, _address = received
            size, _by, lost = ancillary.take_control(size, control, flags, MAX_PACKET + 1, fds, uid=self._sender)
            self._take_packet(size, data, fds, lost=lost)
        self._reopened()

    def _take(self, data: bytes, fds: list[OwnedFd], *, lost: bool) -> None:
        assert self._reader is not None
        try:
            event = self._reader.receive_packet(data, fds, lost=lost)
        except Exception as exc:
            self._failure = exc
            return
        if event is None:
            return
        if isinstance(event, End):
            self._finish(event)
        elif event.fds:
            self._take_carried(event.values, event.fds)
        elif len(event.values) <= _ITEMS_A_TURN:
            self._take_items(event.values)
        else:
            self._backlog = event.values[::-1]
            self._take_some()

    def _take_carried(self, values: list[Any], fds: list[OwnedFd]) -> None:
        """Take the items of a message that brought descriptors. A seqrpc producer sends those one by one."""
        if len(values) == 1:
            self._take_one(values[0], fds)
            return
        last = len(values) - 1
        # What is not found belongs to streams, channels and buffers, which go with whoever refers to them.
        self._owners = {last - position: found for position, found in owners_of(values, fds).items()}
        self._backlog = values[::-1]
        self._take_some()

    def _take_some(self) -> None:
        """Take some of the items in the backlog: one that has descriptors by itself."""
        backlog = self._backlog
        fds = self._owners.pop(len(backlog) - 1, None)
        if fds is not None:
            self._take_one(backlog.pop(), fds)
            return
        count = min(_ITEMS_A_TURN, len(backlog) - 1 - max(self._owners, default=-1))  # up to the next that has some
        some = backlog[: -count - 1 : -1]
        del backlog[-count:]
        self._take_items(some)

    def _take_one(self, value: Any, fds: list[OwnedFd]) -> None:
        """Take an item and its descriptors."""
        if self._check is not None:
            try:
                (value,) = self._check([value])
            except Exception as exc:
                self._fail(exc)
                close_all(fds)
                return
            # Those in fields that the annotation does not have are nobody's.
            close_all(not_in(value, [fd for fd in fds if type(fd) is OwnedFd]))
        self._carried = value, fds

    def _take_items(self, values: list[Any]) -> None:
        """Take items without descriptors."""
        if self._check is None:
            self._items.extend(values)
            return
        try:
            self._items.extend(self._check(values))
        except Exception as exc:  # one of them does not fit: those before it do
            self._fail(exc if len(values) == 1 else self._first_failure(values, self._check))

    def _first_failure(self, values: list[Any], check: Callable[[list[Any]], list[Any]]) -> Exception | None:
        """Take the items up to the one that does not fit; return why it does not."""
        for value in values:
            try:
                self._items.extend(check([value]))
            except Exception as exc:
                return exc
        return None

    def _fail(self, failure: Exception | None) -> None:
        """End, if there was a failure, after the items that are there; those in the backlog are dropped."""
        if failure is not None:
            self._failure = failure
            self._drop_backlog()

    def _drop_backlog(self) -> None:
        """Let go of the items in the backlog, and close what is known to be in them."""
        for fds in self._owners.values():
            close_all(fds)
        self._owners.clear()
        self._backlog.clear()

    def _drop_items(self) -> None:
        """Let go of the items that nobody took, and close what is in them; they are not searched for it."""
        if self._carried is not None:
            close_all(self._carried[1])
            self._carried = None
        self._items.clear()
        self._drop_backlog()

    def _has_items(self) -> bool:
        return bool(self._items or self._backlog or self._carried is not None)

    def _finish(self, end: End) -> None:
        if end.error is None:
            close_all(end.fds)
            self.close()
        else:
            self._failure = RpcError.from_wire(*end.error)

    async def _wait_readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        if self._loop is None:
            self._loop = loop
            # The loop must not keep a stream that nobody else refers to.
            loop.add_reader(self._socket().fileno(), _readable, weakref.ref(self))
        try:
            await waiter
        finally:
            self._waiter = None

    def _on_readable(self) -> None:
        """Take a packet for the task that waits; if none does, stop looking: the kernel holds up the producer."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._unwatch()
        elif CLOSER.careful:  # the task is to look first
            self._unwatch()
            waiter.set_result(None)
        elif self._receive() and not waiter.done():  # an end has woken it already
            waiter.set_result(None)

    def _unwatch(self) -> None:
        """Let the loop look away: this one, or that of an earlier asyncio.run.

        Raises:
            WrongLoop: it runs in another thread; only that one could tell it.
        """
        loop = self._loop
        if loop is None:
            return
        if loop.is_running() and not runs_here(loop):
            raise wrong_loop("this stream", loop)
        self._loop = None
        if self._sock is not None and not loop.is_closed():
            loop.remove_reader(self._sock.fileno())

    def detach(self) -> OwnedFd | None:
        """Give up the reading end, to be passed on.

        Returns:
            The reading end, owned by the caller; None if it has to be relayed, since items were received that
            nobody took yet, or the call was not made yet.

        Raises:
            LocalProtocolError: a task is reading it, or it is over here.
            WrongProcess, WrongLoop: it belongs to another process, or an event loop in another thread watches it.
        """
        self._check_process()
        if self._busy:
            raise LocalProtocolError("a stream that a task is reading cannot be passed on")
        if self._has_items() or self._failure is not None or self._opening is not None:
            return None
        if self._gate is not None:  # a packet is being received elsewhere
            return None
        if self._closed:
            over = "was passed on already" if self._moved else "is closed, or was read to its end,"
            raise LocalProtocolError(f"a stream that {over} cannot be passed on")
        self._unwatch()
        fd = self._fd if self._sock is None else value_fd(self._sock.detach(), self._sender)
        self._fd, self._sock, self._closed, self._moved = None, None, True, True
        return fd

    def attach(self, fd: OwnedFd) -> None:
        """Take back what :meth:`detach` returned: it was not passed on."""
        self._fd, self._closed, self._moved = fd, False, False

    @property
    def closed(self) -> bool:
        """True once it is read to its end, closed, or passed on."""
        return self._closed and not self._has_items() and self._failure is None

    def close(self) -> None:
        """Want no more: the producer stops; items that nobody took are dropped unless the producer had ended."""
        self._unwatch()
        self._closed = True
        self._opening = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._sock is not None:
            if self._gate is None or not self._gate.leave():
                close_unread(self._sock, self._sender, discard=False)
            self._sock = self._gate = None
        if self._fd is not None:
            close_value(self._fd)
            self._fd = None

    async def aclose(self) -> None:
        """Want no more: the producer stops, and items that nobody took are dropped.

        In a forked child this does nothing: the stream is the parent's.

        Raises:
            WrongLoop: an event loop in another thread watches it.
        """
        self.drop()

    def drop(self) -> None:
        """Do what :meth:`aclose` does, where nothing can be awaited."""
        self.close()
        self._failure = None
        self._drop_items()

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    def __del__(self) -> None:
        """Close: nobody refers to it any more."""
        if not hasattr(self, "_owners"):  # its making failed
            return
        self._drop_items()
        if self._sock is None:
            if self._fd is not None:
                self.close()
            return
        loop = self._loop
        if loop is not None and loop.is_running() and not runs_here(loop):
            # Collected in another thread: the loop watches the number until it has run this.
            loop.call_soon_threadsafe(_unwatch_and_close, loop, self._sock, self._sender)
            return
        self.close()

    def __repr__(self) -> str:
        """Return the state."""
        state = "closed" if self._closed else "unopened" if self._opening is not None else "open"
        return f"<Stream {state}>"


def _unwatch_and_close(loop: asyncio.AbstractEventLoop, sock: socket.socket, sender: Sender) -> None:
    loop.remove_reader(sock.fileno())
    close_unread(sock, sender, discard=False)


def _readable(stream: weakref.ref[Stream[Any]]) -> None:
    alive = stream()
    if alive is not None:
        alive._on_readable()  # noqa: SLF001 - a method would be a reference to the stream
