"""Two ends of a connection with something between that loses, holds up and breaks what a test tells it to."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Final

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.places import check_loop
from seqrpc.kernel.unread import close_unread
from seqrpc.testing.relays import Relay, shut
from seqrpc.testing.sockets import FaultySocket
from seqrpc.testing.ways import Way

_TURNS: Final = 20
"""Of the loop, in which connections find that they have ended."""


class Pair:
    """Four sockets, of which two are between the others, and what passes packets on between them."""

    def __init__(self) -> None:
        """Connect them."""
        self._loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            ours, self._near = self._sockets(stack)
            theirs, self._far = self._sockets(stack)
            self.client, self.server = FaultySocket(ours), FaultySocket(theirs)
            stack.pop_all()
        self._is_taken = False
        self._failure: Exception | None = None
        self.is_over = False
        """Whether nothing passes any more, because the test said so."""
        self.to_server = Relay(self, self._near, self._far, self.client, self.server)
        self.to_client = Relay(self, self._far, self._near, self.server, self.client)
        self._relays = (self.to_server, self.to_client)

    @staticmethod
    def _sockets(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            stack.enter_context(end)
        ends[1].setblocking(False)
        return ends

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that it passes packets on."""
        return self._loop

    @property
    def facing_client(self) -> socket.socket:
        """What the client's packets go to, borrowed."""
        return self._near

    def take(self) -> tuple[FaultySocket, FaultySocket]:
        """Return the server's end and the client's, for a server that makes connections itself.

        Raises:
            RuntimeError: they were taken before.
            WrongLoop: the pair belongs to another event loop.
        """
        check_loop("this pair", self._loop)
        if self._is_taken or self.client.fileno() < 0:
            raise RuntimeError("this pair is, or was, another connection's: make one for each")
        self._is_taken = True
        return self.server, self.client

    def start(self) -> None:
        """Pass on packets."""
        for relay in self._relays:
            relay.start()

    def disconnect(self) -> None:
        """End the connection now: what has not passed yet is lost, and both sides find the end."""
        self.is_over = True
        for relay in self._relays:
            relay.stop()
        for sock in (self._near, self._far):
            shut(sock)

    def reset(self, unread: socket.socket) -> None:
        """End the connection with something unread in ``unread``; the other way's packets are sent before."""
        other = self.to_client if unread is self._near else self.to_server
        other.read_all()
        self.is_over = True
        for relay in self._relays:
            relay.stop()
        for sock in (self._near, self._far):
            sock.close()

    def fail(self, exc: Exception) -> None:
        """End the connection because of a test's mistake, which is raised at the end of the block."""
        self._failure = exc
        self.disconnect()

    async def close(self) -> None:
        """Close all four sockets, and what is on the way.

        Raises:
            Exception: what a function of the test's raised.
        """
        self.disconnect()
        for sock in (self._near, self._far):
            close_unread(sock, None, discard=True)
        ends = () if self._is_taken else (self.client, self.server)  # else they are others' to close
        for _ in range(_TURNS):  # connections that have the ends close them, once they have found the end
            if all(sock.fileno() < 0 for sock in ends):
                break
            await asyncio.sleep(0)
        for sock in ends:
            sock.close()
        if self._failure is not None:
            raise self._failure


class FaultyPair:
    """Two connected sockets, and the ways between them; what :func:`faulty_pair` gives.

    The sockets are real, and so is what is between: packets pass through two socket pairs of the kernel's, and through
    the event loop on which the pair was made.
    """

    def __init__(self, pair: Pair) -> None:
        """Wrap the machinery."""
        self._pair = pair
        self._to_server, self._to_client = Way(pair.to_server), Way(pair.to_client)

    @property
    def client(self) -> socket.socket:
        """One end, for :func:`seqrpc.connect`, or another client."""
        return self._pair.client

    @property
    def server(self) -> socket.socket:
        """The other end, for :func:`seqrpc.serve`."""
        return self._pair.server

    @property
    def to_server(self) -> Way:
        """The way from client to server."""
        return self._to_server

    @property
    def to_client(self) -> Way:
        """The way from server to client."""
        return self._to_client

    def disconnect(self) -> None:
        """End the connection now: what has not passed yet is lost, and both sides find the end."""
        self._pair.to_server.soon(self._pair.disconnect)

    def __repr__(self) -> str:
        """Return whether it still connects."""
        return f"<FaultyPair {'over' if self._pair.is_over else 'open'}>"


def pair_of(pair: FaultyPair) -> Pair:
    """Return what a pair is made of."""
    return pair._pair  # noqa: SLF001 - this module's own


class _Pairing(AsyncBlock):
    """A faulty pair for the time of a block."""

    __slots__ = ("_pair",)

    def __init__(self) -> None:
        self._pair: Pair

    async def __aenter__(self) -> FaultyPair:
        self._pair = Pair()
        self._pair.start()
        return FaultyPair(self._pair)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._pair.close()

    def __repr__(self) -> str:
        return "seqrpc.testing.faulty_pair()"


def faulty_pair() -> _Pairing:
    """Return two connected sockets with something between that can fail.

    ``async with faulty_pair() as pair: ...``. Then ``seqrpc.serve(..., sock=pair.server)`` and
    ``seqrpc.connect(sock=pair.client)`` take the ends, or ``serve_in_memory(..., pair=pair)`` both. ``pair.to_server``
    and ``pair.to_client`` are told what to do, each time to which packet. Nothing waits for a while: what is to happen
    happens to that packet.

    Returns:
        To be used in ``async with``, which gives the :class:`FaultyPair`; at its end all that it holds is closed.
    """
    return _Pairing()
