"""What a transport of packets tells: the other half of the pair that :class:`SeqpacketTransport` is one of."""

from __future__ import annotations

import asyncio

from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content


class SeqpacketProtocol(asyncio.BaseProtocol):
    """What a :class:`SeqpacketTransport` calls. Override what you need; none of it may block.

    ``connection_made``, ``connection_lost``, ``pause_writing`` and ``resume_writing`` are asyncio's.
    """

    __slots__ = ()

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:  # noqa: ARG002
        """Take one packet.

        Args:
            data: 1 to 65,536 bytes.
            fds: 0 to 253 descriptors, close-on-exec; from here on they are this protocol's to close.
            credentials: who sent it: on a socket pair the packet's true sender, else whoever made the
                connection (protocol section 9); None if the kernel does not say.
        """
        close_all(fds)

    def descriptors_lost(self, data: bytes, credentials: Credentials | None) -> bool:  # noqa: ARG002
        """Take a packet some of whose descriptors were lost on the way (``MSG_CTRUNC``); the others are closed.

        Returns:
            True to go on; False, as here, aborts the connection.
        """
        return False

    def packet_truncated(self, size: int) -> bool:  # noqa: ARG002
        """Hear of a packet of more than 65,536 bytes (``size``, where the kernel tells it): it is lost.

        Returns:
            True if the protocol ends the connection in its own way; False, as here, aborts it.
        """
        return False

    def packet_too_long(self, data: Content) -> tuple[bytes, OwnedFd] | None:  # noqa: ARG002
        """Say what to send in place of a packet that is longer than 65,536 bytes, or than the kernel takes.

        Returns:
            A short packet and a descriptor to go before its others, which the transport closes; or None, as
            here: ``send_packet`` raises.

        Raises:
            OSError: it cannot be made; ``send_packet`` raises that.
        """
        return None

    def eof_received(self) -> None:
        """Hear that the peer closed, or sent an empty packet; the connection is lost next."""
