"""Receiving a connection's packets on an event loop, in each turn only as many as are fair to the others."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, Protocol

from seqrpc.aio.gate import Gate
from seqrpc.aio.lane import Came, Lane
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.polling import Polling
from seqrpc.aio.shares import NOBODYS, Share, share_of
from seqrpc.errors import RemoteProtocolError
from seqrpc.interface.scope import run_in
from seqrpc.kernel import ancillary
from seqrpc.kernel.ancillary import NOTHING, TRUNCATED, WHOLE, Control, Received
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.unread import close_unread
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.inbox import Inbox, Trouble, hides_packets, receive_buffer

LONE_WAKEUPS = 8
"""Wake-ups without a second read after one that found a single packet: the read that finds nothing costs 1 µs."""

_NEVER: Final = float("inf")

_WAKEUP_BYTES = 32_768
"""Received bytes after which a wake-up ends: the largest packets take so long to look at that 64 would be a stall."""

_monotonic: Final = time.monotonic


class Owner(Protocol):
    """Whoever is told what goes wrong."""

    broken: OSError | None
    """Why nothing can be sent any more; what was sent to us is still read, and then the connection is lost."""

    def lose(self, exc: Exception | None) -> None:
        """End the connection now."""
        ...

    def broke(self, reason: OSError) -> None:
        """Hear that nothing can be sent any more."""
        ...

    def fail(self, exc: Exception, message: str) -> None:
        """Hear of an exception of the protocol, which ends the connection."""
        ...


class Intake:
    """Receives from one socket while it is told to.

    Args:
        loop: the running loop.
        sock: a connected socket, borrowed.
        protocol: takes what comes.
        owner: is told what goes wrong.
        inbox: decides what each received packet is.
        uid: whose connection it is, None if that is not known.
        limits: ``max_packets_per_wakeup`` and ``busy_poll_timeout`` are used.
    """

    __slots__ = (
        "_arrived", "_buffer", "_gate", "_inbox", "_lone_wakeups", "_loop", "_owner", "_packets", "_polling",
        "_receive", "_rests", "_round", "_share", "_sock", "_takes_descriptors", "context", "fd", "is_reading", "lane",
        "protocol",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: SeqpacketProtocol,
        owner: Owner,
        inbox: Inbox,
        *,
        uid: int | None,
        limits: Limits,
    ) -> None:
        """Begin without reading."""
        self._loop = loop
        self._sock = sock
        self.fd = sock.fileno()
        """The number that the socket has, or had."""
        self.protocol = protocol
        """Whom to tell."""
        self.context = copy_context()
        """Where packets are received, whoever's call it is that reading is resumed in."""
        self._owner = owner
        self._inbox = inbox
        self._buffer = receive_buffer()
        self._takes_descriptors = inbox.names_senders or PLATFORM.takes_descriptors(sock)
        make_receiver: Callable[..., Any] = ancillary.receiver if self._takes_descriptors else ancillary.plain_receiver
        self._receive = make_receiver(sock, self._buffer)
        self._gate: Gate | None = None  # made when it is first needed
        self._arrived: tuple[Received | OSError, bytes] | None = None  # what the gate received while reading was paused
        self._packets = range(min(limits.max_packets_per_wakeup, _WAKEUP_BYTES))  # none is without a byte
        self._share = share_of(uid, loop)
        self._round = self._share.round  # the round in which this was admitted last
        self._lone_wakeups = 0
        self._rests = 0  # turns of the loop before it is watched again
        self._polling = Polling(loop, self._read_ready, limits.busy_poll_timeout) if limits.busy_poll_timeout else None
        self.lane: Lane | None = None
        """What takes the plainest packets of this protocol, if something native does."""
        self.is_reading = False
        """Whether packets are being received."""

    def start(self) -> None:
        """Receive from now on."""
        if not self.is_reading:
            self.is_reading = True
            if self._arrived is not None:
                run_in(self.context, self._loop.call_soon, self._read_arrived)
            elif not self.is_shut:
                self._watch_readable()

    def stop(self) -> None:
        """Receive not one packet more."""
        if self.is_reading:
            self.is_reading = False
            self._share.forget(self)
            self._loop.remove_reader(self.fd)
            if self._polling is not None:
                self._polling.stop()

    @property
    def has_packet(self) -> bool:
        """Whether a packet was received, or is being received by a thread, that the protocol has not got."""
        return self._arrived is not None or (self._gate is not None and self._gate.receives)

    @property
    def is_shut(self) -> bool:
        """Whether nothing is received for the time being: there is no room for what the next packet brings."""
        return self._gate is not None and self._gate.shut

    def join_share(self, uid: int | None) -> None:
        """Be read in another user's share of the loop's turns, before anything was read."""
        self._share = share_of(uid, self._loop)
        self._round = self._share.round

    def leave_share(self) -> None:
        """Leave the user's share of the loop's turns: the connection is over."""
        self._share = NOBODYS

    def watch_again(self) -> None:
        """Watch the socket again, after this was left out of a turn."""
        if self.is_reading and not self.is_shut:
            self._watch_readable()

    def read_later(self) -> None:
        """Receive nothing before what is on the loop by now has had its turn."""
        if self._rests:
            self._rests = 2  # what is on the loop since it began to rest has the turn after
            return
        self._rests = 1
        self.end_wakeup()
        if self.is_reading:
            self._loop.remove_reader(self.fd)
        self._loop.call_soon(self._rested, context=Context())

    def _rested(self) -> None:
        self._rests -= 1
        if self._rests:
            self._loop.call_soon(self._rested, context=Context())
        elif self.is_reading and not self.is_shut:
            self._watch_readable()
            run_in(self.context, self._ready)  # else as many streams as are opened at once would take two turns each

    def _watch_readable(self) -> None:
        if not self._rests:
            run_in(self.context, self._loop.add_reader, self.fd, self._ready)

    @property
    def _ready(self) -> Callable[[], object]:
        """What reads, and is called when there is something to read."""
        if self._polling is not None:
            return self._polling.read
        return self._read_ready if self.lane is None else self.lane.ready

    def end_wakeup(self) -> None:
        """Let others on the loop run after the packet that is being received: it was much work."""
        self._lone_wakeups = max(1, self._lone_wakeups)

    def _read_ready(self) -> None:  # noqa: C901, PLR0912 - the hottest place of all: a function of its own for a part costs
        """Read what is there, up to three bounds; alone packets are read one a wake-up."""
        share = self._share  # a connection that ends meanwhile no longer has it
        if (CLOSER.careful or share.crowded) and not self._may_receive():
            return
        if self.lane is not None:
            self._read_by_lane(self.lane, share)
            return
        taken, receive, is_plain = 0, self._receive, not self._takes_descriptors
        began = now = _monotonic()
        until = 0.0
        for received in self._packets:
            try:
                if is_plain:  # as ancillary.plain does
                    size, control = receive(), NOTHING
                    flags = WHOLE if size <= MAX_PACKET else TRUNCATED
                else:
                    size, control, flags, _address = receive()
            except OSError as exc:
                if self._receive_failed(exc, received):
                    continue
                break
            fds: list[OwnedFd] = []
            sender = self._inbox.peer
            if control or flags != WHOLE or not size:
                size, sender, trouble = self._inbox.take(size, control, flags, fds)
                if CLOSER.careful:
                    self.end_wakeup()
                if trouble is not None:
                    self._rare_packet(size, sender, trouble)
                    size = 0
            if size:
                try:  # as in _take
                    self.protocol.packet_received(self._buffer[:size].tobytes(), fds, sender)
                except Exception as exc:
                    close_all(fds)
                    self._owner.fail(exc, "the protocol's packet_received failed")
            now = _monotonic()
            if self._lone_wakeups:
                self._lone_wakeups -= 1
                break
            taken += size
            until = until or share.until(began)
            if now >= until or taken >= _WAKEUP_BYTES or not self.is_reading:
                break
        share.used += now - began  # as charge does
        if share.used >= share.look_at:
            share.look(self._loop)

    def use_lane(self, lane: Lane) -> None:
        """Have plain packets taken by something native from now on, and the rest by this as before."""
        self.lane = lane
        if self.is_reading and self._polling is None and not self.is_shut:
            self._watch_readable()

    def _read_by_lane(self, lane: Lane, share: Share) -> None:
        """Do the same, with what takes plain packets by itself."""
        began = _monotonic()
        until = _NEVER if self._lone_wakeups else share.until(began)
        self.read_on(lane, lane.read(len(self._packets), until, 0), share, began, until)

    def read_on(self, lane: Lane, came: Came, share: Share, began: float, until: float) -> None:
        """End a wake-up that a lane began, after it has taken what it takes.

        Args:
            lane: the lane.
            came: what it said.
            share: the user's share as the wake-up began.
            began: when the wake-up began.
            until: when it is to end.
        """
        most = left = len(self._packets)
        while True:
            if isinstance(came, int):
                self._nothing_came(most - left + came)
                break
            taken, received = 0, None
            if came is not None:
                number, taken, received = came
                left -= number + 1
            if isinstance(received, OSError):
                if not self._receive_failed(received, most - left - 1) or left <= 0:
                    break
            else:
                if received is not None:
                    taken += self._take_rare(*received)
                if self._lone_wakeups:
                    self._lone_wakeups -= 1
                    break
                if came is None or left <= 0 or not self.is_reading:
                    break
                if taken >= _WAKEUP_BYTES or _monotonic() >= until:
                    break
            came = lane.read(left, until, taken)
        share.charge(_monotonic() - began, self._loop)

    def _take_rare(self, size: int, control: Control, flags: int, _address: object) -> int:
        """Take what is in the buffer, and return the bytes of the packet, 0 if there is none."""
        was_taken = self._take(size, control, flags, None)
        if CLOSER.careful:
            self.end_wakeup()
        return size if was_taken else 0

    def _may_receive(self) -> bool:
        """Return whether a packet may be received in the ordinary way; if not, reading goes on later by itself."""
        if self._share.crowded:
            if not self._share.admits(self._round, self._loop):
                self._loop.remove_reader(self.fd)
                self._share.leave_out(self, self._round)
                return False
            self._round = self._share.round
        if not CLOSER.careful or not self._takes_descriptors:
            return True
        if self._gate is None:
            self._gate = Gate(self._loop, self._sock, self._inbox, reopened=self._read_on, arrived=self._read_elsewhere)
        self.end_wakeup()
        try:
            if self._gate.is_open():
                return True
        except ConnectionResetError as exc:
            self._receive_failed(exc, 0)
            return False
        self._loop.remove_reader(self.fd)
        return False

    def _read_on(self) -> None:
        """Receive again after there was no room for descriptors."""
        if self.is_reading:
            self._watch_readable()
            if self._owner.broken is not None:
                self.read_rest()

    def _read_arrived(self) -> None:
        """Take what arrived while reading was paused, unless it was taken, or reading is paused again."""
        if self.is_reading and self._arrived is not None:
            self._read_elsewhere(*self._arrived)

    def _read_elsewhere(self, received: Received | OSError, data: bytes) -> None:
        """Take a packet that another thread received, as if it were received now, and go on."""
        if not self.is_reading:
            self._arrived = received, data
            return
        self._arrived = None
        if isinstance(received, OSError):
            self._receive_failed(received, 0)
        else:
            share, began = self._share, _monotonic()
            size, control, flags, _address = received
            self._buffer[: len(data)] = data
            self._take(size, control, flags, data)
            share.charge(_monotonic() - began, self._loop)
        self._read_on()

    def _take(self, size: int, control: Control, flags: int, data: bytes | None) -> bool:
        """Take what was received, and return whether it was a packet; ``data`` is None if it is in the buffer."""
        fds: list[OwnedFd] = []
        size, sender, trouble = self._inbox.take(size, control, flags, fds)
        if trouble is not None:
            self._rare_packet(size, sender, trouble)
            return False
        try:
            self.protocol.packet_received(self._buffer[:size].tobytes() if data is None else data, fds, sender)
        except Exception as exc:
            close_all(fds)
            self._owner.fail(exc, "the protocol's packet_received failed")
        return True

    def read_rest(self) -> None:
        """Read what came before the connection broke. The loop may never call again: there may be no end of file."""
        if self.is_reading and not self.is_shut:
            self._lone_wakeups = 0
            self._read_ready()
            run_in(self.context, self._loop.call_soon, self.read_rest)

    def _receive_failed(self, exc: OSError, received: int) -> bool:
        """Handle a failure to receive; return whether to go on at once."""
        if isinstance(exc, BlockingIOError | InterruptedError):
            self._nothing_came(received)
            return False
        if self._owner.broken is not None or not hides_packets(exc):
            self._owner.lose(bare(exc))
            return False
        self._owner.broke(exc)
        return self.is_reading

    def _nothing_came(self, received: int) -> None:
        """Note that there is no more, after so many in this wake-up."""
        if self._owner.broken is not None:  # everything that was sent to us is read
            self._owner.lose(self._owner.broken)
        elif received == 1:
            self._lone_wakeups = LONE_WAKEUPS

    def _rare_packet(self, size: int, sender: Credentials | None, trouble: Trouble) -> None:
        """Tell the protocol of what came in place of a packet."""
        try:
            if trouble is Trouble.END:
                self.protocol.eof_received()
                self._owner.lose(self._owner.broken)
            elif trouble is Trouble.TOO_LONG:
                if not self.protocol.packet_truncated(size):
                    self._owner.lose(RemoteProtocolError(f"a packet has at most {MAX_PACKET} bytes, this one {size}"))
            elif not self.protocol.descriptors_lost(self._buffer[:size].tobytes(), sender):
                self._owner.lose(OSError(errno.EMFILE, "descriptors were lost on the way in"))
        except Exception as exc:
            self._owner.fail(exc, "the protocol failed")

    # Ending

    def close(self, *, discard: bool) -> None:
        """Close the socket, and drop what came and nobody took.

        Args:
            discard: throw away what is unread first, so that the peer is not reset.
        """
        if self._gate is not None and self._gate.leave():
            return
        if self._arrived is not None and not isinstance(self._arrived[0], OSError):
            fds: list[OwnedFd] = []
            self._inbox.take(*self._arrived[0][:3], fds)
            close_all(fds)
        close_unread(self._sock, self._inbox.uid, discard=discard)

    def let_go(self) -> None:
        """Tell nobody anything more: the connection has ended."""
        self._gate = self._polling = self.lane = None
        del self._owner

    def let_go_in_child(self) -> None:
        """Receive nothing, and ask nothing of the loop: this is a copy in a forked child."""
        self.is_reading = False
        self._packets = range(0)
        self._share = NOBODYS


def bare(exc: OSError) -> OSError:
    """Return why a connection ends without the frames that it was raised in, which refer to the connection."""
    exc.__context__ = None
    return exc.with_traceback(None)
