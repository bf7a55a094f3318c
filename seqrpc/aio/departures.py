"""Streams on their way out: of one that is made here, and of one that was received, the reading end leaves."""

from __future__ import annotations

import socket
from collections.abc import Callable

from seqrpc.aio.producers import Producer, Source
from seqrpc.kernel import forks
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.sockets import never_wait
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import EXT_STREAM


class StreamDeparture:
    """An async iterable on its way out: a pair is made, and its reading end leaves.

    Args:
        source: what the stream yields.
        encoder: encodes the items.
        started: called with the producer once it runs.
        ended: called with it at its end.
        dropped: called if it is not sent.

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
        dropped: Callable[[], object] | None = None,
    ) -> None:
        """Make the pair."""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        never_wait(self._ours)
        self._source = source
        self._encoder = encoder
        self._started = started
        self._ended = ended
        self._dropped = dropped
        forks.register(self, StreamDeparture._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Close both ends: this is a copy in a forked child."""
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        """Return the reading end, lent."""
        return self._theirs.fileno()

    def sent(self) -> None:
        """Let the reading end go, and begin to produce."""
        self._theirs.close()
        producer = Producer(self._ours, self._source, self._encoder)
        producer.start(self._ended)
        self._started(producer)

    def unsent(self) -> None:
        """Close both ends; the source is left as it was."""
        self._ours.close()
        self._theirs.close()
        if self._dropped is not None:
            self._dropped()

    def given_up(self) -> None:
        """Close both ends, and the source."""
        self.unsent()
        self._encoder.give_up(self._source)


class MovedStream:
    """A stream that was received, and goes on to somebody else.

    Args:
        fd: its reading end.
        back: takes that back if it is not sent.
    """

    ext_type = EXT_STREAM

    def __init__(self, fd: OwnedFd, back: Callable[[OwnedFd], object]) -> None:
        """Hold the reading end."""
        self._fd = fd
        self._back = back

    def fileno(self) -> int:
        """Return the reading end, lent."""
        return self._fd.fileno()

    def sent(self) -> None:
        """Let the reading end go."""
        self._fd.close()

    def unsent(self) -> None:
        """Give the reading end back."""
        self._back(self._fd)

    def given_up(self) -> None:
        """Close the reading end."""
        self._fd.close()
