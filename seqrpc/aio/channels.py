"""Objects as values: a service that is given away with a connection of its own (protocol section 7)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from seqrpc.aio.caller import Caller
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.interception import NO_INTERCEPTION, Interception
from seqrpc.aio.link import Link
from seqrpc.aio.registry import Registry
from seqrpc.aio.remote import Remote
from seqrpc.errors import ConnectionLost, LocalProtocolError, not_run
from seqrpc.interface.answers import Finish, result_of
from seqrpc.kernel import forks
from seqrpc.kernel.closing import Sender
from seqrpc.kernel.descriptors import OwnedFd, sender_of, socket_of, value_fd
from seqrpc.kernel.forks import wrong_process
from seqrpc.kernel.unread import close_value
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Params
from seqrpc.protocol.values import Living

LivingOf = Callable[["ChannelEnd | None"], Living]
"""Makes what streams and channels are on the connection of a channel; None at its serving end."""


class ChannelEnd:
    """The holder's end of a channel: held by the :class:`Channel` and by its proxies.

    When nothing refers to it any more, the object is let go.

    Args:
        fd: one end of a socket pair.
        limits: bounds of the connection over it.
        living_of: makes what carries streams and channels over that connection.
        interception: what surrounds calls on the connection that the channel came over.
    """

    def __init__(
        self, fd: OwnedFd, limits: Limits, living_of: LivingOf, interception: Interception = NO_INTERCEPTION
    ) -> None:
        """Hold the descriptor; the connection is made when it is first used."""
        self._fd: OwnedFd | None = fd
        self._limits = limits
        self._living_of = living_of
        self._interception = interception
        self._link: Link | None = None
        self._caller: Caller | None = None
        self._sender: Sender = None
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, ChannelEnd._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Hold nothing: this is a copy in a forked child. The connection, if there is one, hears of it by itself."""
        self._forked = True
        if self._fd is not None:
            self._fd.close()
            self._fd = None

    def _check_process(self) -> None:
        if self._forked:
            raise wrong_process("this channel")

    def _open(self) -> Caller:
        self._check_process()
        if self._caller is None:
            if self._fd is None:
                raise not_run(ConnectionLost("the channel was closed, or passed on, on this side"))
            self._sender = sender_of(self._fd)
            sock = socket_of(self._fd)
            self._fd = None
            # It holds the registry and not this end, which must be dropped when nobody uses it any more.
            calls = self._interception
            dispatcher = calls.new_dispatcher(Registry((), limits=self._limits))
            link = Link(dispatcher, self._limits, self._living_of(self), None, calls.new_caller)
            link.run_outside(open_transport, sock, link, self._limits)
            self._link, self._caller = link, link.caller
        return self._caller

    async def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call, as :meth:`seqrpc.aio.caller.Caller.request`; the channel is held meanwhile."""
        return await self._open().request(method, params, deadline, meta, finish)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do the same: the object behind a channel that ended is gone."""
        return self.request(method, params, deadline, meta, finish)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        await self._open().send_notify(method, params, deadline, meta)

    @property
    def closed(self) -> bool:
        """True once it was let go or passed on here, or the object is known to be gone."""
        return self._fd is None and (self._link is None or self._link.closed)

    @property
    def closing_reason(self) -> str | None:
        """Why the object takes no new calls; None as long as it takes them, or has said nothing."""
        return None if self._link is None else self._link.session.closing_received

    async def let_go(self) -> None:
        """Let go of the object.

        Raises:
            WrongLoop: it belongs to another event loop.
        """
        self._close_unused()
        if self._link is not None:
            await self._link.close()

    def _close_unused(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            close_value(fd)

    def drop(self) -> None:
        """Begin to let go of the object, where nothing can be awaited."""
        self._close_unused()
        if self._link is not None and not self._link.closed:
            self._link.abandon()

    async def wait_closed(self) -> None:
        """Wait until the object is gone, or the channel was closed here."""
        self._open()
        assert self._link is not None
        await self._link.wait_closed()

    def detach(self) -> OwnedFd:
        """Give up the socket, to be passed on.

        Raises:
            LocalProtocolError: calls are under way on it, or it is closed.
            WrongProcess, WrongLoop: it belongs to another process, or to another event loop.
        """
        self._check_process()
        if self._fd is not None:
            fd, self._fd = self._fd, None
            return fd
        sock = None if self._link is None else self._link.detach()
        if sock is None:
            what = "is closed" if self.closed else "has calls under way, or was revoked,"
            raise LocalProtocolError(f"a channel that {what} cannot be passed on")
        self._link = self._caller = None
        return value_fd(sock.detach(), self._sender)

    def attach(self, fd: OwnedFd) -> None:
        """Take back what :meth:`detach` returned: it was not passed on."""
        self._fd = fd

    def __del__(self) -> None:
        """Let go of the object: nothing refers to this end any more."""
        link, fd = getattr(self, "_link", None), getattr(self, "_fd", None)
        if link is not None and not link.closed:
            link.abandon()
        if fd is not None:
            close_value(fd)

    def __repr__(self) -> str:
        """Return the state, as people know it."""
        return f"<Channel {'closed' if self.closed else 'open'}>"


class Channel(Remote):
    """The right to call one object at the other side, held by whoever has this.

    A method that returns a service gives one, as the service's proxy; :meth:`~seqrpc.Connection.call` gives the
    channel itself. It may be sent on, as an argument or a result: then the receiver owns it, and it is over here.
    It is let go by :meth:`close`, or when nothing refers to it or its proxies any more.

    It belongs to the process that received it, and to the event loop on which it is first used: in other places, every
    method raises WrongProcess or WrongLoop, and nothing is sent.
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

        So it is when the object was revoked. What a channel is told is read from its first use on.
        """
        return self._end.closing_reason

    async def close(self) -> None:
        """Let go of the object: if nobody else holds it, it is closed at the other side.

        In a forked child this does nothing: the channel is the parent's.

        Raises:
            WrongLoop: it belongs to another event loop.
        """
        await self._end.let_go()

    async def wait_closed(self) -> None:
        """Wait until the object is gone, or the channel was closed here.

        Raises:
            ConnectionLost: it was closed, or passed on, before.
            WrongProcess, WrongLoop: it belongs to another process, or to another event loop.
        """
        await self._end.wait_closed()

    def __repr__(self) -> str:
        """Return the state."""
        return repr(self._end)


def end_of(channel: Channel) -> ChannelEnd:
    """Return what a channel is made of."""
    return channel._end  # noqa: SLF001 - this module's own
