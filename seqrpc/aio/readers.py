"""What does the work of a stream's reading end; users see it as a :class:`~seqrpc.aio.streams.Stream`."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from seqrpc.aio.gate import Gate
from seqrpc.aio.places import check_loop, runs_here, wrong_loop
from seqrpc.errors import (
    ConnectionLost,
    DescriptorsLost,
    LocalProtocolError,
    RemoteProtocolError,
    WrongLoop,
    WrongProcess,
)
from seqrpc.kernel import ancillary, forks
from seqrpc.kernel.ancillary import WHOLE, Received
from seqrpc.kernel.closing import CLOSER, Sender
from seqrpc.kernel.descriptors import OwnedFd, close_all, sender_of, socket_of, value_fd
from seqrpc.kernel.forks import wrong_process
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.sockets import never_wait
from seqrpc.kernel.unread import close_unread, close_value
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol.inbox import Inbox, Trouble, hides_packets, receive_buffer
from seqrpc.protocol.items import End, ItemReader, failure_of, producer_gone
from seqrpc.protocol.received import ReceivedItems

_PACKETS_A_TURN = 8
"""Packets that are read without waiting before others on the loop get a turn."""


class StreamReader:
    """Reads a stream when it is asked for an item and has none ready.

    It holds the reading end and what decodes its packets, or knows how to get both.

    Args:
        fd: the reading end.
        reader: decodes packets.
        opening: makes the call that returns the stream, and returns the reader of that stream.
    """

    __slots__ = (
        "__weakref__", "_busy", "_closed", "_fd", "_forked", "_gate", "_inbox", "_loop", "_moved", "_opening",
        "_reader", "_sock", "_unwaited", "_waiter", "items",
    )  # fmt: skip

    def __init__(
        self,
        fd: OwnedFd | None = None,
        reader: ItemReader | None = None,
        opening: Callable[[], Awaitable[StreamReader]] | None = None,
    ) -> None:
        """Read nothing yet."""
        self._fd = fd
        self._reader = reader
        self._opening = opening
        self.items = ReceivedItems()
        """What came in and nobody has taken."""
        self._sock: socket.socket | None = None
        self._inbox: Inbox  # made together with the socket
        self._gate: Gate | None = None  # made when it is first needed
        self._closed = False
        self._moved = False
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop that watches the socket, or None
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False  # whether a task reads, or makes the call
        self._unwaited = 0
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, StreamReader._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """End without telling anybody: this is a copy in a forked child."""
        self._forked = self._closed = True
        self.items.forget()  # what was received is the parent's to read
        self._opening = self._loop = self._waiter = None
        for end in (self._sock, self._fd):
            if end is not None:
                end.close()
        self._sock = self._fd = None

    @property
    def is_unopened(self) -> bool:
        """Whether the call has not been made yet."""
        return self._opening is not None

    @property
    def is_closed(self) -> bool:
        """Whether no more is received; there may still be items that nobody has taken."""
        return self._closed

    @property
    def is_over(self) -> bool:
        """Whether it will give no more items."""
        return self._closed and not self.items and self.items.failure is None

    # Reading

    async def open(self) -> None:
        """Make the call now, if it was not made yet.

        Raises:
            WrongProcess, WrongLoop: it is to be opened in another process, or on another event loop.
            RuntimeError: another task is opening it, which changes nothing.
            Exception: anything else that the call raises; the stream is over then.
        """
        self._check_process()
        if self._opening is None:
            return
        if self._busy:
            self._check_reader()
        self._busy = True
        try:
            await self._open(self._opening)
        finally:
            self._busy = False

    async def _open(self, opening: Callable[[], Awaitable[StreamReader]]) -> None:
        try:
            opened = await opening()
        except (asyncio.CancelledError, WrongLoop, WrongProcess):  # whoever reads next makes the call again
            raise
        except BaseException:
            self.close()
            raise
        if not self._closed:
            self._opening = None
            self._fd, opened._fd = opened._fd, None  # noqa: SLF001 - of the same class
            self._reader, self.items.check = opened._reader, opened.items.check  # noqa: SLF001 - as above
        opened.close()

    async def next(self) -> Any:
        """Wait for the next item and return it; called when none is ready.

        Raises:
            StopAsyncIteration: there is none.
            Exception: as :class:`~seqrpc.aio.streams.Stream` tells.
        """
        if self._busy or (self._loop is not None and self._loop is not asyncio.get_running_loop()):
            self._check_reader()
        items = self.items
        self._busy = True
        try:
            if self._opening is not None:
                await self._open(self._opening)
            while not items.is_ready:
                if items.has_more:
                    items.look()
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
        return items.take()

    def _check_process(self) -> None:
        if self._forked:
            raise wrong_process("this stream")

    def _check_reader(self) -> None:
        """Refuse a second reader, but let one read on if the loop of the reader before it no longer runs."""
        self._check_process()
        if not self._busy:
            self._unwatch()
            return
        if self._loop is not None:
            check_loop("this stream", self._loop)
        doing = "reading" if self._opening is None else "opening"
        raise RuntimeError(f"another task is {doing} this stream already")

    def _raise_if_over(self) -> None:
        if self.items.failure is not None:
            self._raise_failure()
        if self._moved:
            raise ConnectionLost("the stream was passed on to somebody else")
        if self._closed:
            self._check_process()
            raise StopAsyncIteration

    def _raise_failure(self) -> None:
        failure, self.items.failure = self.items.failure, None
        assert failure is not None
        if self.items.has_ended or not isinstance(failure, DescriptorsLost):
            self.close()
        try:
            raise failure
        finally:
            del failure  # else it and this frame would hold each other, and what was received, until collected

    def _socket(self) -> socket.socket:
        if self._sock is None:
            assert self._fd is not None
            self._inbox = Inbox(uid=sender_of(self._fd))
            self._sock = socket_of(self._fd)
            never_wait(self._sock)
        return self._sock

    # Receiving

    def _receive(self) -> bool:
        """Take one packet if one is there; return whether there was one, or an end."""
        buffer = receive_buffer()
        try:
            size, control, flags, _address = ancillary.receive(self._sock or self._socket(), buffer)
        except OSError as exc:
            return self._receive_failed(exc)
        if control or flags != WHOLE or not size:
            self._take(size, control, flags, buffer)
        else:
            self._take_packet(buffer[:size].tobytes(), [])
        return True

    def _receive_failed(self, exc: OSError) -> bool:
        """Handle a failure to receive; return whether to go on at once."""
        if isinstance(exc, BlockingIOError | InterruptedError):
            return False
        if not hides_packets(exc):
            self.items.failure = producer_gone(f"the stream cannot be read: {exc.strerror}")
        return True

    def _take(self, size: int, control: ancillary.Control, flags: int, data: memoryview | bytes) -> None:
        """Handle what came with more than a packet, or in place of one."""
        fds: list[OwnedFd] = []
        size, _sender, trouble = self._inbox.take(size, control, flags, fds)
        if trouble is Trouble.END:
            self.items.failure = producer_gone("the producer of the stream died")
        elif trouble is Trouble.TOO_LONG:
            self.items.failure = RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size}")
        else:
            self._take_packet(bytes(data[:size]), fds, lost=trouble is not None)

    def _take_packet(self, data: bytes, fds: list[OwnedFd], *, lost: bool = False) -> None:
        assert self._reader is not None
        try:
            event = self._reader.receive_packet(data, fds, lost=lost)
        except Exception as exc:
            self.items.failure = exc
            return
        if event is None:
            return
        if not isinstance(event, End):
            self.items.add(event.values, event.fds)
        elif event.error is None:
            close_all(event.fds)
            self.close()
        else:
            self.items.failure, self.items.has_ended = failure_of(event), True

    async def _pass_gate(self) -> bool:
        """Return whether a packet may be received in the ordinary way; if not, wait until it is time to ask again."""
        loop = asyncio.get_running_loop()
        gate = self._gate
        if gate is None:
            sock = self._socket()
            self._inbox.names_senders = PLATFORM.asks_for_senders(sock)
            gate = Gate(loop, sock, self._inbox, reopened=self._reopened, arrived=self._take_elsewhere)
            try:
                if gate.is_open():
                    return True
            except ConnectionResetError:  # what the producer sent before is still there
                return True
            self._gate = gate
        self._waiter = waiter = loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
            if self._gate is gate and not gate.receives:
                gate.leave()  # else the gate would keep the stream alive
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
            size, control, flags, _address = received
            self._take(size, control, flags, data)
        self._reopened()

    # Watching

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

    def readable(self) -> None:
        """Take a packet for the task that waits; if none waits, stop watching: the kernel makes the producer wait."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._unwatch()
        elif CLOSER.careful:  # the task must ask first
            self._unwatch()
            waiter.set_result(None)
        elif self._receive() and not waiter.done():  # at an end it has been woken already
            waiter.set_result(None)

    def _unwatch(self) -> None:
        """Stop the loop's watching of the socket: this loop, or that of an earlier asyncio.run.

        Raises:
            WrongLoop: the loop runs in another thread; only that thread could tell it.
        """
        loop = self._loop
        if loop is None:
            return
        if loop.is_running() and not runs_here(loop):
            raise wrong_loop("this stream", loop)
        self._loop = None
        if self._sock is not None and not loop.is_closed():
            loop.remove_reader(self._sock.fileno())

    # Ending

    def detach(self) -> OwnedFd | None:
        """Give up the reading end, to be passed on.

        Returns:
            The reading end, owned by the caller; None if the stream has to be relayed, because items were received
            that nobody took yet, or because the call was not made yet.

        Raises:
            LocalProtocolError: a task is reading or opening it, or it is over here.
            WrongProcess, WrongLoop: it belongs to another process, or an event loop in another thread watches it.
        """
        self._check_process()
        if self._busy:
            doing = "reading" if self._opening is None else "opening"
            raise LocalProtocolError(f"a stream that a task is {doing} cannot be passed on")
        if self.items or self.items.failure is not None or self._opening is not None:
            return None
        if self._gate is not None:  # another thread is receiving a packet
            return None
        if self._closed:
            over = "was passed on already" if self._moved else "is closed, or was read to its end,"
            raise LocalProtocolError(f"a stream that {over} cannot be passed on")
        self._unwatch()
        fd = self._fd if self._sock is None else value_fd(self._sock.detach(), self._inbox.uid)
        self._fd, self._sock, self._closed, self._moved = None, None, True, True
        return fd

    def attach(self, fd: OwnedFd) -> None:
        """Take back what :meth:`detach` returned: it was not passed on."""
        self._fd, self._closed, self._moved = fd, False, False

    def close(self) -> None:
        """Stop reading for good: the producer stops. If it had not ended, items that nobody took are dropped."""
        self._unwatch()
        self._closed = True
        self._opening = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._sock is not None:
            if self._gate is None or not self._gate.leave():
                close_unread(self._sock, self._inbox.uid, discard=False)
            self._sock = self._gate = None
        if self._fd is not None:
            close_value(self._fd)
            self._fd = None

    def drop(self) -> None:
        """Stop reading for good, and let go of the items that nobody took."""
        self.close()
        self.items.failure = None
        self.items.drop()

    def __del__(self) -> None:
        """Close: nobody refers to it any more."""
        if not hasattr(self, "_forked"):  # __init__ failed
            return
        self.items.drop()
        if self._sock is None:
            if self._fd is not None:
                self.close()
            return
        loop = self._loop
        if loop is not None and loop.is_running() and not runs_here(loop):
            # Collected in another thread: the loop watches the descriptor until it has run this.
            loop.call_soon_threadsafe(_unwatch_and_close, loop, self._sock, self._inbox.uid)
            return
        self.close()


def _unwatch_and_close(loop: asyncio.AbstractEventLoop, sock: socket.socket, sender: Sender) -> None:
    loop.remove_reader(sock.fileno())
    close_unread(sock, sender, discard=False)


def _readable(reader: weakref.ref[StreamReader]) -> None:
    alive = reader()
    if alive is not None:
        alive.readable()
