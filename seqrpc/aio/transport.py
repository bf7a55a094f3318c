"""Packets on an event loop: a transport and protocol pair in asyncio's manner, useful without the RPC above it.

asyncio's and uvloop's own transports refuse ``SOCK_SEQPACKET``; this one needs only ``add_reader`` and
``add_writer`` of them. One ``send_packet`` is one ``packet_received`` at the other end, or none.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from seqrpc.aio.carrier import Carrier
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.calls.unclosed import close_dropped
from seqrpc.kernel.ancillary import SEND_FLAGS
from seqrpc.kernel.descriptors import HasFileno
from seqrpc.kernel.pieces import Content
from seqrpc.limits import DEFAULT_LIMITS, MAX_PACKET, Limits


class SeqpacketTransport(asyncio.ReadTransport):
    """A connected SEQPACKET socket on an event loop.

    Made by :func:`seqrpc.create_connection` and :class:`SeqpacketServer`. Use it from its loop's thread.
    It has what :class:`asyncio.Transport` has, with ``send_packet`` in place of ``write``. As there, the loop
    holds one that is read, and its protocol; one that is dropped unclosed is closed with a ResourceWarning.
    ``get_extra_info`` knows ``socket``, ``sockname``, ``peername``, ``credentials`` (who connected, or who
    listens; None on a socket pair, where each packet tells) and ``connected_uid`` (whose connection it is, also where
    each packet tells; on a pair, who made it; None if the kernel does not say).

    Args:
        loop: the running loop.
        sock: a connected socket; the transport owns it.
        protocol: is told what happens.
        limits: ``max_packets_per_wakeup``, ``high_water_bytes`` and ``low_water_bytes`` are used.
        names_senders: whether each packet tells who sent it, as on a socket pair; by default the transport
            finds that out from the socket's names, which whoever made the socket may have chosen.
    """

    __slots__ = ("__weakref__", "_carrier")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: SeqpacketProtocol,
        limits: Limits = DEFAULT_LIMITS,
        *,
        names_senders: bool | None = None,
    ) -> None:
        """Own the socket and begin reading; ``connection_made`` is called before this returns."""
        self._begin(sock, Carrier(loop, sock, protocol, limits, names_senders=names_senders))

    def _begin(self, sock: socket.socket, carrier: Carrier) -> None:
        names = {"sockname": sock.getsockname(), "peername": sock.getpeername(), "connected_uid": carrier.uid}
        super().__init__({"socket": sock, "credentials": carrier.peer, **names})
        self._carrier = carrier
        carrier.begin(self)

    # Reading

    def is_reading(self) -> bool:
        """Return whether packets are being received."""
        return self._carrier.intake.is_reading

    def pause_reading(self) -> None:
        """Stop receiving: not one more packet is read. The kernel then makes the peer wait.

        A connection over which nothing can be sent any more ends here: nothing else would notice its end.
        """
        self._carrier.pause_reading()

    def resume_reading(self) -> None:
        """Receive again; does nothing on a closing transport."""
        self._carrier.resume_reading()

    # Writing

    def send_packet(
        self,
        data: Content,
        fds: Sequence[HasFileno] = (),
        failed: Callable[[OSError], object] | None = None,
    ) -> None:
        """Send one packet now if the kernel takes it, else as soon as it does; never wait.

        ``fds`` are borrowed until this returns: those of a packet that must wait are duplicated. One that is too long
        goes as the protocol's :meth:`SeqpacketProtocol.packet_too_long` says.

        Args:
            data: 1 to 65,536 bytes.
            fds: up to 253 things with a descriptor; they are duplicated at the peer.
            failed: called, with the reason, if the packet had to wait and was then refused for a reason
                of its own, as by a peer that takes no descriptors; without it that ends the connection.

        Raises:
            ValueError: too few or too many bytes, too many descriptors, this connection's own, or one of
                ``fds`` has none to lend.
            ConnectionLost: the connection is closing or ended; nothing was sent.
            WrongProcess: this is a fork of the process that it belongs to; nothing was sent.
            OSError: the kernel refuses this packet, and takes others: ``EMSGSIZE``, ``ENOBUFS``,
                ``ETOOMANYREFS``, ``EPERM`` (:func:`seqrpc.kernel.ancillary.send`), ``EMFILE``.
        """
        carrier = self._carrier
        if carrier.sends_at_once and not fds and 0 < len(data) <= MAX_PACKET:
            send = carrier.send  # calling carrier.send directly would look it up the slow way (3.11)
            try:
                send(data, SEND_FLAGS)  # type: ignore[arg-type] # data in pieces is longer
                return
            except OSError:  # rare enough to be tried again in the slow way
                pass
        carrier.send_packet(data, fds, failed)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait to be sent."""
        outlet = self._carrier.outlet
        return 0 if outlet is None else outlet.outbox.unsent_bytes

    def get_write_buffer_packets(self) -> int:
        """Return the packets that wait to be sent."""
        outlet = self._carrier.outlet
        return 0 if outlet is None else len(outlet.outbox.packets)

    def get_write_buffer_progress(self) -> int:
        """Return how many packets that had to wait were sent since: a number that stands still if nobody reads."""
        outlet = self._carrier.outlet
        return 0 if outlet is None else outlet.outbox.taken

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high water mark in bytes."""
        return self._carrier.marks

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks in bytes: above ``high`` ``pause_writing`` is called, at ``low`` ``resume_writing``.

        Raises:
            ValueError: not ``0 <= low <= high``.
        """
        self._carrier.make_outlet().outbox.set_marks(high, low)
        self._carrier.check_high_water()

    # Ending

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._carrier.closing

    def close(self) -> None:
        """Stop receiving, send what waits, then close; ``connection_lost(None)`` is called at the end.

        What the peer sent and nobody read is thrown away first, so that the peer is not reset.
        """
        self._carrier.close()

    def abort(self) -> None:
        """Close at once; what waits is not sent."""
        self._carrier.lose(None)

    def detach(self) -> socket.socket | None:
        """Give the socket back, owned by the caller, and end without telling the protocol; None if packets wait."""
        return self._carrier.detach()

    def get_protocol(self) -> SeqpacketProtocol:
        """Return whom this transport tells."""
        return self._carrier.intake.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another protocol from now on.

        Raises:
            TypeError: it is no :class:`SeqpacketProtocol`.
        """
        if not isinstance(protocol, SeqpacketProtocol):
            raise TypeError(f"a SeqpacketProtocol was expected, got {type(protocol).__name__}")
        self._carrier.intake.protocol = protocol

    def __del__(self) -> None:
        """Close a dropped transport, and say so; the loop holds one that is read."""
        carrier = getattr(self, "_carrier", None)
        if carrier is not None:
            close_dropped(carrier, self)

    def __repr__(self) -> str:
        """Return the state and the descriptor."""
        carrier = self._carrier
        state = "closed" if carrier.lost else "closing" if carrier.closing else "open"
        return f"<SeqpacketTransport {state} fd={carrier.intake.fd} queued={self.get_write_buffer_size()}>"


def carrier_of(transport: SeqpacketTransport) -> Carrier:
    """Return what does the work of a transport, which users do not see."""
    return transport._carrier  # noqa: SLF001 - for this function only
