"""Objects as values: the holder's end of a channel (protocol section 7)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from seqrpc.blocking.dispatch import Dispatcher
from seqrpc.blocking.family import Family
from seqrpc.blocking.interception import caller_of
from seqrpc.blocking.interceptors import Interception
from seqrpc.blocking.line import Line
from seqrpc.blocking.proxy import Callee
from seqrpc.blocking.remote import Remote
from seqrpc.errors import ConnectionLost, LocalProtocolError, not_run
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.entries import MethodTable
from seqrpc.kernel import forks
from seqrpc.kernel.closing import Sender
from seqrpc.kernel.descriptors import OwnedFd, sender_of, socket_of, value_fd
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.unread import close_value
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Params
from seqrpc.protocol.values import Living


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the lines of channels and objects have in common with the connection that they came over."""

    limits: Limits
    family: Family
    interception: Interception
    living_of: Callable[[ChannelEnd | None], Living]
    """Makes what streams and channels are on the line of a channel; None at its serving end."""


class ChannelEnd:
    """The holder's end of a channel: held by the :class:`Channel` and by its proxies.

    When nothing refers to it any more, the object is let go.

    Args:
        fd: one end of a socket pair.
        around: what its line has in common with the connection that it came over.
    """

    __slots__ = ("__weakref__", "_around", "_caller", "_fd", "_forked", "_line", "_lock", "_sender")

    def __init__(self, fd: OwnedFd, around: Surroundings) -> None:
        """Hold the descriptor; the line is made when it is first used."""
        self._fd: OwnedFd | None = fd
        self._around = around
        self._line: Line | None = None
        self._caller: Callee | None = None
        self._sender: Sender = None
        self._lock = threading.RLock()  # held while the line is made, or taken
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, ChannelEnd._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Hold nothing: this is a copy in a forked child. The line, if there is one, hears of it by itself."""
        self._forked = True
        self._lock = threading.RLock()  # a thread of the parent may hold the other one
        if self._fd is not None:
            self._fd.close()
            self._fd = None

    def _check_process(self) -> None:
        if self._forked:
            raise forks.wrong_process("this channel")

    def _open(self) -> Callee:
        self._check_process()
        caller = self._caller
        if caller is not None:
            return caller
        with self._lock, Uninterrupted():
            if self._caller is None:
                if self._fd is None:
                    raise not_run(ConnectionLost("the channel was closed, or passed on, on this side"))
                self._sender = sender_of(self._fd)
                sock = socket_of(self._fd)
                self._fd = None
                around = self._around
                handler = Dispatcher(MethodTable(()), around.limits, around.interception)
                by_packet = PLATFORM.asks_for_senders(sock)
                # The living values hold no reference to this end, which must be dropped when nobody uses it any more.
                living = around.living_of(self)
                self._line = Line(sock, handler, around.limits, around.family, living, by_packet=by_packet)
                self._caller = caller_of(self._line, around.interception)
            return self._caller

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call, as :meth:`seqrpc.blocking.caller.Caller.request`; the channel is held meanwhile."""
        return self._open().request(method, params, deadline, meta, finish)

    request_idempotent = request

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        self._open().send_notify(method, params, deadline, meta)

    @property
    def closed(self) -> bool:
        """True once it was let go or passed on here, or the object is known to be gone."""
        return self._fd is None and (self._line is None or self._line.is_lost)

    @property
    def closing_reason(self) -> str | None:
        """Why the object takes no new calls; None as long as it takes them, or has said nothing."""
        return None if self._line is None else self._line.session.closing_received

    def let_go(self) -> None:
        """Let go of the object."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            close_value(fd)
        if self._line is not None:
            self._line.close()

    drop = let_go

    def detach(self) -> OwnedFd:
        """Give up the socket, to be passed on.

        Raises:
            LocalProtocolError: calls are under way on it, or it is closed.
            WrongProcess: it belongs to another process.
        """
        self._check_process()
        with self._lock, Uninterrupted():
            if self._fd is not None:
                fd, self._fd = self._fd, None
                return fd
            sock = None if self._line is None else self._line.detach()
            if sock is None:
                what = "is closed" if self.closed else "has calls under way, or was revoked,"
                raise LocalProtocolError(f"a channel that {what} cannot be passed on")
            self._line = self._caller = None
            return value_fd(sock.detach(), self._sender)

    def attach(self, fd: OwnedFd) -> None:
        """Take back what :meth:`detach` returned: it was not passed on."""
        self._fd = fd

    def __del__(self) -> None:
        """Let go of the object: nothing refers to this end any more."""
        line, fd = getattr(self, "_line", None), getattr(self, "_fd", None)
        if line is not None and not line.is_lost:
            line.abandon()
        if fd is not None:
            close_value(fd)

    def __repr__(self) -> str:
        """Return the state, as people know it."""
        return f"<Channel {'closed' if self.closed else 'open'}>"


class Channel(Remote):
    """The right to call one object at the other side, held by whoever has this.

    A method that returns a service gives one, as the service's proxy; :meth:`~seqrpc.blocking.Connection.call` gives
    the channel itself. It may be sent on, as an argument or a result: then the receiver owns it, and it is over here.
    It is let go by :meth:`close`, ``with``, or when nothing refers to it or its proxies any more.

    It belongs to the process that received it: in a fork of that, every method raises WrongProcess and sends nothing.
    """

    __slots__ = ("__weakref__", "_end")

    def __init__(self, end: ChannelEnd) -> None:
        """Wrap an end."""
        super().__init__(end)
        self._end = end

    @property
    def closed(self) -> bool:
        """True once it was let go or passed on here, or the object is known to be gone."""
        return self._end.closed

    @property
    def closing_reason(self) -> str | None:
        """Why the object takes no new calls, in the other side's words; None as long as it does.

        So it is when the object was revoked. What a channel is told is read while one of its calls waits.
        """
        return self._end.closing_reason

    def close(self) -> None:
        """Let go of the object: if nobody else holds it, it is closed at the other side.

        In a forked child this does nothing: the channel is the parent's.
        """
        self._end.let_go()

    def __enter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return the state."""
        return repr(self._end)


def end_of(channel: Channel) -> ChannelEnd:
    """Return what a channel is made of."""
    return channel._end  # noqa: SLF001 - this module's own
