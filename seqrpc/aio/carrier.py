"""What does the work of one end of a connection: its intake, the outlet for packets that wait, and how it ends.

Users see it as a transport (:mod:`seqrpc.aio.transport`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from seqrpc.aio.intake import Intake, bare
from seqrpc.aio.outlet import Outlet
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.places import runs_here
from seqrpc.aio.shares import TURN_SECONDS
from seqrpc.errors import ConnectionLost, not_run
from seqrpc.interface.scope import run_in
from seqrpc.kernel import forks, sockets
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all
from seqrpc.kernel.forks import wrong_process
from seqrpc.kernel.pieces import Content
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import Limits
from seqrpc.logs import get_logger, tell_loop
from seqrpc.protocol.inbox import Inbox
from seqrpc.protocol.outbox import Outbox, Packet, lending

_log = get_logger("seqrpc.transport")

_monotonic: Final = time.monotonic


class Carrier:
    """Owns a connected socket, which it closes at the end.

    Args:
        loop: the running loop.
        sock: the socket.
        protocol: is told what happens.
        limits: as for the transport.
        names_senders: whether each packet tells who sent it; if None, the socket's names tell.
        peer: who is at the other end, by somebody else's word than the kernel's. Only what tests pretend gives one
            (:mod:`seqrpc.testing`), on a socket pair of its own.
    """

    __slots__ = (
        "__weakref__", "_forked", "_inbox", "_limits", "_loop", "_sock", "_transport", "broken", "closing", "intake",
        "lost", "outlet", "send", "sends_at_once", "tells_unclosed", "uid",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: SeqpacketProtocol,
        limits: Limits,
        *,
        names_senders: bool | None,
        peer: Credentials | None = None,
    ) -> None:
        """Own the socket; :meth:`begin` begins."""
        if peer is None:
            peer = PLATFORM.peer_credentials(sock)
        if names_senders is None:
            names_senders = sockets.names_senders(sock)
        if names_senders:
            PLATFORM.ask_for_senders(sock)
        sockets.never_wait(sock)
        self._loop = loop
        self._sock = sock
        self._limits = limits
        self._transport: asyncio.BaseTransport
        self.uid = None if peer is None else peer.uid
        """Whose connection it is, None if the kernel does not say."""
        self._inbox = Inbox(None if names_senders else peer, names_senders=names_senders)
        self.intake = Intake(loop, sock, protocol, self, self._inbox, uid=self.uid, limits=limits)
        self.outlet: Outlet | None = None
        """Made when a packet does not leave in the quick way, which on most connections none ever does."""
        self.send = sock.send
        self.sends_at_once = True
        """Whether nothing waits, and neither end has begun to close: then :attr:`send` may be called."""
        self.closing = False
        """Whether this end has begun to close."""
        self.lost = False
        """Whether the end was told, or is about to be."""
        self.broken: OSError | None = None
        """Why nothing can be sent any more; what was sent to us is still read."""
        self.tells_unclosed = True
        """Whether its transport warns if it is dropped unclosed; False where somebody else does."""
        self._forked = False  # whether this is a copy in a forked child

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end; None where each packet tells."""
        return self._inbox.peer

    def begin(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, and tell the protocol of its transport.

        Raises:
            Exception: what the protocol raises; then whoever made the socket owns it again.
        """
        self._transport = transport
        forks.register(self, Carrier._let_go_in_child)
        self.intake.start()
        try:
            self.intake.protocol.connection_made(transport)
        except BaseException:  # nobody hears of this connection: its maker closes the socket
            self._end()
            raise

    def pause_reading(self) -> None:
        """Stop reading. A connection over which nothing can be sent any more ends: nothing else would notice."""
        if self.intake.is_reading:
            self.intake.stop()
            if self.broken is not None:
                self.lose(self.broken)

    def resume_reading(self) -> None:
        """Read again, unless it is closing."""
        if not self.closing:
            self.intake.start()

    # Writing

    def send_packet(
        self, data: Content, fds: Sequence[HasFileno], failed: Callable[[OSError], object] | None = None
    ) -> None:
        """Send a packet in the slow way: with descriptors, or behind others, or after the quick way failed.

        Raises:
            ValueError, ConnectionLost, WrongProcess, OSError: as the transport's ``send_packet``.
        """
        if self.closing or self.broken is not None:
            if self._forked:
                raise wrong_process("this transport")
            raise not_run(ConnectionLost("the connection is closed")) from self.broken
        packet = lending(data, fds, self.too_long, failed, own=self.intake.fd)
        outlet = self.outlet or self.make_outlet()
        try:
            outlet.send(packet, self._inbox.uid)
        finally:
            if outlet.outbox.packets:
                self.sends_at_once = False
                self.check_high_water()
            elif outlet.room.narrow:
                outlet.room.change(narrow=False)

    def make_outlet(self) -> Outlet:
        """Return the outlet where packets wait; make it if there is none."""
        if self.outlet is None:
            outbox = Outbox(self._limits.high_water_bytes, self._limits.low_water_bytes)
            self.outlet = Outlet(self._loop, self._sock, self, outbox, self.intake.context, keeps=True)
        return self.outlet

    @property
    def marks(self) -> tuple[int, int]:
        """The low and the high water mark in bytes."""
        if self.outlet is None:
            return self._limits.low_water_bytes, self._limits.high_water_bytes
        return self.outlet.outbox.low, self.outlet.outbox.high

    def check_high_water(self) -> None:
        """Tell the protocol to pause if more waits than the high water mark allows."""
        if self.outlet is not None and self.outlet.outbox.begins_pause():
            self._call_protocol("pause_writing")

    def too_long(self, data: Content) -> tuple[bytes, OwnedFd] | None:
        """Return what to send in place of data that is too long."""
        return self.intake.protocol.packet_too_long(data)

    def writable(self) -> None:
        """Send what waits until the kernel takes no more, or until others on the loop have waited long enough."""
        outlet = self.make_outlet()
        is_empty = outlet.flush(_monotonic() + TURN_SECONDS)
        if self.broken is not None:
            return
        if outlet.outbox.ends_pause():
            self._call_protocol("resume_writing")
            is_empty = not outlet.outbox.packets
        if is_empty:
            outlet.room.change(narrow=False)
            self.sends_at_once = not self.closing and self.broken is None
            if self.closing and not self.lost:
                self._finish_soon(None)

    def refused(self, packet: Packet, reason: Exception) -> None:
        """Tell whoever sent a packet that the kernel refuses it; if nobody asked to be told, end the connection."""
        assert isinstance(reason, OSError)
        if packet.failed is None:
            self.lose(reason)
            return
        try:
            packet.failed(reason)
        except Exception as failure:
            self.fail(failure, "the callback of a packet that was not sent failed")

    def broke(self, reason: OSError) -> None:
        """Give up sending. What the peer had sent before it went away is still to be read."""
        self.broken = bare(reason)
        self.sends_at_once = False
        self._drop_queue()
        if not self.intake.is_reading:
            self.lose(reason)
            return
        run_in(self.intake.context, self._loop.call_soon, self.intake.read_rest)
        outlet = self.outlet
        if outlet is not None and outlet.outbox.ends_pause():  # nothing else would end it; a send then tells of the end
            self._call_protocol("resume_writing")

    def _drop_queue(self) -> None:
        if self.outlet is not None:
            self.outlet.drop()

    # Ending

    def close(self) -> None:
        """Stop receiving, send what waits, then end."""
        if self.closing:
            return
        self.intake.stop()
        self.closing = True
        self.sends_at_once = False
        if not self._waits():
            self._finish_soon(None)

    def detach(self) -> socket.socket | None:
        """Give the socket back, and end without telling the protocol; None if that cannot be."""
        if self._waits() or self.closing or self.broken is not None or self.intake.has_packet:
            return None
        self._end()
        return self._sock

    def _waits(self) -> bool:
        return self.outlet is not None and len(self.outlet.outbox.packets) > 0

    def _end(self) -> None:
        """End without telling anybody."""
        self.intake.stop()
        self.intake.leave_share()
        self.closing = self.lost = True
        self.sends_at_once = False
        self._drop_queue()

    def _let_go_in_child(self) -> None:
        """Close without telling anybody: this is a copy in a forked child.

        An inherited loop may still call methods of this; they do nothing, and ask nothing of that loop.
        """
        self._forked = self.closing = self.lost = True
        self.sends_at_once = False
        self.intake.let_go_in_child()
        if self.outlet is not None:
            for packet in self.outlet.let_go_in_child():
                close_all(packet.fds)
        self._sock.close()

    def lose(self, exc: Exception | None) -> None:
        """End now."""
        if not self.lost:
            self._end()
            self._finish_soon(exc)

    @property
    def is_unclosed(self) -> bool:
        """Whether only its transport could close it, and has not begun to."""
        return self.tells_unclosed and not self.closing and not self.lost and self._sock.fileno() >= 0

    def abandon(self) -> None:
        """End without waiting for it; from any thread, and also when the loop runs no more."""
        loop = self._loop
        if loop.is_running() and not runs_here(loop):
            loop.call_soon_threadsafe(self.lose, None)
            return
        if not loop.is_closed():
            self.lose(None)
        if not loop.is_running():
            self._sock.close()

    def _finish_soon(self, exc: Exception | None) -> None:
        self.lost = True
        self.intake.leave_share()
        run_in(self.intake.context, self._loop.call_soon, self._finish, exc)

    def _finish(self, exc: Exception | None) -> None:
        if self._forked:
            return
        self._drop_queue()
        try:
            self.intake.protocol.connection_lost(exc)
        except Exception as failure:
            self._tell_loop(failure, "the protocol's connection_lost failed")
        finally:
            self.intake.close(discard=exc is None)
            self.intake.let_go()
            self.outlet = None
            del self._transport  # all of this is freed with it, without the garbage collector

    def fail(self, exc: Exception, message: str) -> None:
        """End because of an exception that the protocol raised."""
        self._tell_loop(exc, message)
        self.lose(exc)

    def _tell_loop(self, exc: Exception, message: str) -> None:
        context = {"message": message, "exception": exc, "transport": self._transport, "protocol": self.intake.protocol}
        tell_loop(self._loop, _log, context)

    def __repr__(self) -> str:
        """Return what the transport is for people."""
        return f"<SeqpacketTransport ended fd={self.intake.fd}>" if self.lost else repr(self._transport)

    def _call_protocol(self, name: str) -> None:
        try:
            getattr(self.intake.protocol, name)()
        except Exception as exc:
            self.fail(exc, f"the protocol's {name} failed")
