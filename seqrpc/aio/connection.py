"""A connection, as its users see it."""

from __future__ import annotations

import asyncio

from seqrpc.aio.link import Link
from seqrpc.aio.remote import Remote
from seqrpc.calls.outcomes import unavailable
from seqrpc.errors import not_run
from seqrpc.kernel.credentials import Credentials


class Connection(Remote):
    """A connection to another process: call its services, and be called.

    Made by :func:`seqrpc.connect`; in a handler it is ``current_call().connection``. Use it from its
    own event loop. It ends when either side closes, or breaks the protocol.
    """

    __slots__ = ("__weakref__", "_link")

    def __init__(self, link: Link) -> None:
        """Wrap a link."""
        super().__init__(link.caller)
        self._link = link

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end, by the kernel's word: who connected, or who listens (unix(7)).

        None where each packet tells of its sender, as on a socket pair, and where the kernel does not say.
        """
        return self._link.peer

    @property
    def closed(self) -> bool:
        """True once the connection has ended; a copy in a forked child never was one."""
        return self._link.closed

    @property
    def closing_reason(self) -> str | None:
        """Why the other side takes no new calls, in its own words; None as long as it takes them.

        A server that drains says so, and lets what runs finish. From then on new calls raise
        :class:`~seqrpc.Unavailable`, and this connection is no longer worth keeping: connect again. It stays when the
        connection has ended; a connection may also end without a word (:attr:`closed`).
        """
        return self._link.session.closing_received

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the connection belongs to."""
        return self._link.loop

    async def close(self) -> None:
        """End the connection: what is unsent is sent within ``close_timeout``; calls both ways are given up.

        In a forked child this does nothing: the connection is the parent's. If its event loop has ended, there
        is nobody to wait for, and only the socket is closed.

        Raises:
            WrongLoop: the connection belongs to another event loop.

        Cancel: the closing goes on.
        """
        await self._link.close()

    async def wait_for_ready(self) -> None:
        """Wait until calls can be sent: on a connection that reconnects, until there is one.

        On others, which end once and for all, this returns at once, or raises what calls would.

        Raises:
            ConnectionLost: the connection has ended for good.
            Unavailable: the other side takes no new requests, and the connection is not made anew.
            ConnectError: an attempt to make it anew showed that waiting is no use.
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        link = self._link
        link.check_place()
        if link.session.closing_received is not None:
            raise unavailable(link.session.closing_received)
        if link.closed:
            raise not_run(link.lost_error())

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, whoever ended it.

        Raises:
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        await self._link.wait_closed()

    def __repr__(self) -> str:
        """Return the state, and who is at the other end."""
        return repr(self._link)


def link_of(connection: Connection) -> Link:
    """Return what a connection is made of."""
    return connection._link  # noqa: SLF001 - this module's own
