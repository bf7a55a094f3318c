"""What is on its way out with a message: an end of a pair that was made for it, or an end that was received before."""

from __future__ import annotations

import socket
from collections.abc import Callable

from seqrpc.aio.accounts import Account
from seqrpc.aio.producers import Producer
from seqrpc.calls.departures import Source
from seqrpc.kernel import forks
from seqrpc.kernel.sockets import never_wait
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import EXT_STREAM


class PairDeparture:
    """A pair that is made for a message: one end stays here, the other leaves.

    Args:
        pair: both ends, owned from now on: first the one that stays.
        dropped: called if the message is not sent.
    """

    def __init__(self, pair: tuple[socket.socket, socket.socket], dropped: Callable[[], object]) -> None:
        """Own both ends."""
        self._ours, self._theirs = pair
        self._dropped = dropped
        forks.register(self, PairDeparture._close)

    def _close(self) -> None:
        """Close both ends: in a forked child, too, where this is a copy."""
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        """Return the end that leaves, lent."""
        return self._theirs.fileno()

    def unsent(self) -> None:
        """Close both ends."""
        self._close()
        self._dropped()


class StreamDeparture(PairDeparture):
    """An async iterable on its way out: a pair is made, and its reading end leaves.

    Args:
        source: what the stream yields.
        encoder: encodes the items.
        started: called with the producer once it runs.
        ended: called with it at its end.
        dropped: called if it is not sent.
        account: of the user who gets it; None: nobody counts.

    Raises:
        OSError: the process has too many descriptors.
    """

    ext_type = EXT_STREAM

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        started: Callable[[Producer], object],
        ended: Callable[[Producer], object],
        *,
        dropped: Callable[[], object],
        account: Account | None = None,
    ) -> None:
        """Make the pair."""
        super().__init__(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET), dropped)
        never_wait(self._ours)
        self._source = source
        self._encoder = encoder
        self._started = started
        self._ended = ended
        self._account = account

    def sent(self) -> None:
        """Let the reading end go, and begin to produce."""
        self._theirs.close()
        producer = Producer(self._ours, self._source, self._encoder, self._account)
        producer.start(self._ended)
        self._started(producer)

    def given_up(self) -> None:
        """Close both ends, and the source: :meth:`unsent` leaves that as it was."""
        self.unsent()
        self._encoder.give_up(self._source)
