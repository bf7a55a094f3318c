"""What a process and its successor say to each other, over a socket pair of which the successor inherits an end.

==================  ============  ===================================================================================
:class:`Word`       from          means
==================  ============  ===================================================================================
``ASK``             successor     it is ready but for the socket
``GIVE``            predecessor   what is listened with: an :class:`~seqrpc.kernel.listening.Offer`, socket and lock
``SERVING``         successor     it accepts connections
``YOURS``           predecessor   it accepts none any more; socket, lock and file are the successor's
``CONNECTION``      predecessor   one connection, on which nothing is under way
``TAKEN``           successor     it has the connection, and has read nothing of it yet: the answer to ``CONNECTION``
``LOST``            successor     it could not take the connection: the other answer
``STOPPING``        successor     it stops: nobody serves here any more
==================  ============  ===================================================================================

Each packet is one word and what belongs to it. The end of the pair after ``YOURS`` is the end of either process, or
says that all connections were handed over.
"""

from __future__ import annotations

import enum
import os
import re
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from seqrpc.errors import AddressError
from seqrpc.kernel import ancillary, forks, sockets
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.listening import ListeningSocket, Offer
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.processes import Process, start
from seqrpc.text import shown

VARIABLE: Final = "SEQRPC_PREDECESSOR"
"""The environment variable that has the number of the inherited end."""

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_MOST_BYTES: Final = 8_192  # an Offer has a path of at most 4,095 bytes, of which JSON may need two for one


class Word(enum.Enum):
    """What can be said."""

    ASK = b"?"
    GIVE = b"="
    SERVING = b"!"
    YOURS = b"+"
    CONNECTION = b"c"
    TAKEN = b"t"
    LOST = b"l"
    STOPPING = b"."


class Heard:
    """What was said, with descriptors that the hearer owns."""

    __slots__ = ("data", "fds", "word")

    def __init__(self, word: Word, data: bytes, fds: list[OwnedFd]) -> None:
        """Hold it."""
        self.word = word
        self.data = data
        self.fds = fds

    @property
    def offer(self) -> Offer:
        """What ``GIVE`` says.

        Raises:
            AddressError: it is not what was expected, as from another version of seqrpc.
        """
        try:
            return msgspec.json.decode(self.data, type=Offer)
        except msgspec.DecodeError as exc:
            raise AddressError(f"the process that serves here says what this one does not understand: {exc}") from None


class Talk:
    """One end of the pair. In a forked child it is closed.

    Args:
        sock: the end; it is this object's.
        pid: the process at the other end; what another says is not heard.
    """

    __slots__ = ("__weakref__", "_buffer", "_receive", "pid", "sock")

    def __init__(self, sock: socket.socket, pid: int) -> None:
        """Own the end."""
        sock.setblocking(False)
        PLATFORM.ask_for_senders(sock)
        self.sock = sock
        self.pid = pid
        self._buffer = memoryview(bytearray(_MOST_BYTES + 1))
        self._receive = ancillary.receiver(sock, self._buffer)
        forks.register(self, Talk.close)

    def say(self, word: Word, data: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Say something; descriptors are borrowed.

        Raises:
            OSError: it was not said: the other process has gone, or has not heard enough of what was said before, or
                too many descriptors are under way.
        """
        ancillary.send(self.sock, word.value + data, fds)

    def give(self, listening: ListeningSocket) -> None:
        """Say ``GIVE``.

        Raises:
            OSError: as for :meth:`say`.
        """
        offer, fds = listening.offer()
        self.say(Word.GIVE, msgspec.json.encode(offer), fds)

    def hear(self) -> Heard | None:
        """Return what was said; None if nothing will be any more: the other end is closed, or makes no sense.

        Raises:
            BlockingIOError: nothing was said yet.
        """
        try:
            size, control, flags, _address = self._receive()
        except BlockingIOError:
            raise
        except ConnectionResetError:  # once, where the other end was closed with something unread (protocol 1.6)
            return self.hear()
        except OSError:
            return None
        fds: list[OwnedFd] = []
        size, sender, _lost = ancillary.take_control(size, control, flags, len(self._buffer), fds)
        try:
            if sender is None or sender.pid != self.pid or size > _MOST_BYTES:
                raise ValueError
            return Heard(Word(bytes(self._buffer[:1]) if size else b""), bytes(self._buffer[1:size]), fds)
        except ValueError:
            close_all(fds)
            return None

    def close(self) -> None:
        """Say nothing more; closing twice does nothing."""
        self.sock.close()


def start_successor(end: int, environment: dict[str, str]) -> Process:
    """Start this program again, as it was started, with one end of a pair; it is killed if this process ends.

    It has this process's working directory and streams.

    Args:
        end: the descriptor, lent.
        environment: what the environment has besides that of this process.

    Raises:
        OSError: it cannot be started.
    """
    # Not by the name that the shell was given: Python finds its environment (venv) by the path of its own program.
    argv = [sys.executable, *sys.orig_argv[1:]]
    variables = {**os.environ, **environment}
    return start(argv, end, name="the successor", environment=variables, stdin=None, variable=VARIABLE)


def take_predecessor() -> Talk | None:
    """Return the end of the pair that the predecessor left to this process, owned by the caller; None if there is none.

    The variable is taken out of the environment, so that children do not take this process for their predecessor.

    Raises:
        AddressError: the variable is set, but names no end of a pair that this process's parent made.
    """
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    name = f"{VARIABLE}={shown(text, 100)}"
    try:
        if not _NUMBER.fullmatch(text):
            raise AddressError(f"{name}: the number of a descriptor was expected")
        duplicate = OwnedFd.dup(int(text))
    except (OSError, OverflowError):
        raise AddressError(f"{name}: the descriptor is not open") from None
    # A wrong number may belong to somebody else: take the descriptor only once it fits.
    with sockets.adopt(duplicate, name) as sock:
        maker = PLATFORM.peer_credentials(sock)
        made_by = None if maker is None or sockets.is_listening(sock) else (maker.pid, maker.uid)
        parent = os.getppid()
        if made_by != (parent, os.geteuid()):
            raise AddressError(f"{name}: a socket pair that this process's parent made was expected")
    return Talk(sockets.adopt(OwnedFd(int(text)), name), parent)
