"""Every bound and every time-out, with its unit in its name and its reason beside it.

Times are seconds as ``float``, like the standard library's, unless the name says otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from seqrpc.text import offered, shown

MAX_PACKET = 65_536
"""Bytes in one packet at most (protocol 1.2): what every receiver can take."""

MAX_DESCRIPTORS = 253
"""Descriptors in one packet at most: the kernel's ``SCM_MAX_FD`` (unix(7))."""


RESERVED_DESCRIPTORS = 64
"""Descriptors of ``RLIMIT_NOFILE`` that the connections of a server leave free, but no more than half of all: to accept
one more connection and tell it why it is refused, for what comes with messages, and for the program's own files, which
are some sixteen. One wake-up accepts 64."""

SHORTAGE_QUIET = 60.0
"""Seconds for which something must not have been short before the log says again that it is: what is short now and then
may be so for hours, at each of a thousand calls."""

LOG_BURST = 10
"""Lines of one kind that are logged in :data:`LOG_WINDOW` before one line counts the others: enough to see what
happens, and who does it. The kernel's ``printk_ratelimit`` allows as many."""

LOG_WINDOW = 1.0
"""Seconds. Ten tracebacks of 3 KB in a second are 30 KB/s, where a caller could have written megabytes."""


LOOP_LOOK_INTERVAL = 1.0
"""Seconds after which a thread that waits for an event loop checks whether the loop was closed, which would never wake
the thread. A loop closes once in its life, and checking more often would take processor time from waiting threads."""

MOST_OFFERS = 10
"""Names of methods that are offered in :data:`OFFERS_WINDOW` to callers of names that no service has. No person
mistypes more often, and a program that does could make others compare names all the time."""

OFFERS_WINDOW = 1.0
"""Seconds. Ten comparisons of a hundred names that are alike take some milliseconds, and never more than 0.2 s."""

MOST_DOCUMENTS = 16
"""Documents of one server that are kept for those who ask ``rpc.discover``, one for each outcome of its policies: few
servers tell more than a handful of kinds of callers apart. One of 200 methods has some 50 KB, and takes ten to twenty
milliseconds to make."""

NOTIFY_TIMEOUT = 1.0
"""Seconds that a daemon waits for its service manager to take what it is told, which is microseconds unless that is
stuck: the daemon stands still meanwhile, a few times in its life."""

STATUS_INTERVAL = 5.0
"""Seconds between two looks at what a daemon does, for its service manager to show: who looks at it is a person."""

IDLE_LOOKS = 4
"""How often a daemon that ends when it is idle looks whether it is, in the time for which it must be: it stays a
quarter longer at most."""

CANCEL_GRACE = 0.05
"""Seconds after which a server is closed because somebody cancelled the lifespan of its service, and an object because
somebody cancelled its close before it began. Most often that is an event loop that ends, and cancels all tasks: it does
not run so long, and no new task may be left in it."""

LONGEST_TIMER = 30 * 24 * 3600.0
"""Seconds that a timer of an event loop is set to at most: somewhere above that timers overflow."""

MAX_VALUES_SEARCHED = 16_384
"""Values of one message, or of one result that nobody gets, that are searched one by one for what must be closed,
which takes a few milliseconds. Python's garbage collector closes what lies behind them."""

MAX_CONVERTED_VALUES = 131_072
"""Values of one message that are converted in Python and not by msgspec: those whose annotation mixes descriptors with
other types, objects with streams, services or such a mixture in them, paths, addresses, flags and what an application
registered, and each value of a type that has itself in it and is no class. Each counts once, however many types of a
union are tried. They take up to a second."""

MAX_PATH_BYTES = 4_095
"""Bytes of a path that an argument, a result or an item is made into: the kernel's ``PATH_MAX`` without the null at the
end. ``pathlib`` has the interpreter intern each part of a path, in a table that keeps its size once it has grown."""

KEPT_FILE_BYTES = 4 * 1024 * 1024
"""Bytes of a message whose memory file a connection keeps for a moment after it was sent. Whoever closes the last copy
frees its memory, which is best done by the process that fills the next, and on the processor where it runs: freed by
the reader, 1 MiB took up to twice as long in all. Of longer ones, two at a time would be too much memory."""

KEPT_FILES = 16
"""How many such files a process keeps at a time, whichever connections they were sent over: each takes one of its
descriptors, which nobody's account knows of, and memory."""

KEPT_FILE_SECONDS = 0.02
"""Seconds for which it is kept if no other follows: as long as whoever sends one after the other needs for the next."""

CLOSING_THREADS = 16
"""The most threads of a process that close what others sent: each may have to wait as long as somebody else likes.
They are started when they are needed."""

CLOSING_THREADS_OF_ONE = 4
"""The most of these threads that may be busy with one sender's descriptors, so that some are left for the others."""

MAX_UNCLOSED_OF_ONE = 256
"""Descriptors of one sender that may wait to be closed, about as many as a packet can bring. While more wait, the
sender's packets that bring descriptors stay in the kernel's queue, with those behind them on the same connection;
other packets are read."""

MAX_UNCLOSED = 2_048
"""Descriptors of all senders together that may wait to be closed: as many as eight senders may have. While more wait,
every sender that has some among them is held up as if it had too many. Senders that have none are still read."""


def free_descriptors(soft: int) -> int:
    """Return how many descriptors connections, and what they keep, may have of a soft ``RLIMIT_NOFILE``."""
    return max(1, soft - min(RESERVED_DESCRIPTORS, soft // 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a server or a connection; pass one as ``limits=`` to change some of them.

    Of what a server has for all its connections together (``max_connections``, ``max_threads``, ``max_total_...`` and
    the descriptors of the process) one user may have three quarters, root and the server's own user seven eighths; what
    is left then is for others, the last sixteenth for root and the server's own user, so that an administrator gets in.

    All are positive, only ``busy_poll_timeout`` may be 0; a wrong one raises a :class:`ValueError`, or one that is none
    a :class:`TypeError`, that names it.
    """

    max_depth: int = 64
    """Arrays and maps inside one another, the message's own array included. D-Bus allows 64 too."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Bytes of one message, both ways, at least ``MAX_PACKET``: a message longer than a packet travels as a memfd."""

    max_containers: int = 2 * 1024 * 1024
    """Arrays and maps in a received message that is longer than a packet. An empty one takes one byte in the message
    and sixty in memory: without a bound 64 MiB would become 4 GiB, and keep the loop busy for half a minute."""

    max_other_keys: int = 1024
    """Keys of maps in one received message, and elements of one set, that are neither strings nor byte strings. Their
    hashes have no secret in them, so whoever chooses them can make them all collide: a thousand then take some 5 ms,
    and ten times as many a hundred times as long. All sets of a message may take as long together as six of so many
    integers; elements count for more if comparing them takes longer: one of so many UUIDs is all, and networks, and
    objects, may be half as many. Small sets, of up to 64 integers or eight others, are not counted. If there are more,
    the answer is ``rpc.TooLarge`` (protocol 2.3), or ``rpc.InvalidParams`` for sets."""

    max_held_bytes: int = 256 * 1024 * 1024
    """Bytes, on one connection, of requests longer than 4,096 bytes whose handlers run, and of their buffers that had
    to be copied because they do not begin at a page. One more request is answered ``rpc.Overloaded``, unless it is
    alone. ``max_calls_in_flight`` bounds short requests."""

    max_buffer_bytes: int = 16 * 1024 * 1024 * 1024
    """Bytes of one received :class:`~seqrpc.Buffer`. It takes address space at once, and memory as it is read."""

    max_living_values: int = 1024
    """Streams and channels that one connection, with the channels that came of it, keeps open for its other side at
    once; more are refused with ``rpc.Overloaded``. Each takes a descriptor of this process."""

    max_total_calls: int = 16_384
    """Calls whose handlers run for all connections of a server together: as many as sixteen connections may have. Each
    takes some 8 KB, so all take 128 MiB."""

    max_total_held_bytes: int = 512 * 1024 * 1024
    """Bytes of long requests that all connections of a server keep together: twice ``max_held_bytes``, so that one
    connection may have what it may, and another user's, too."""

    max_total_unsent_bytes: int = 256 * 1024 * 1024
    """Bytes of answers that are kept for all peers that do not read them: sixteen times ``max_unsent_bytes``. Those of
    long ones, and of long items of streams, count until they are read, also when they have left this process, in memory
    files."""

    max_total_living_values: int = 16_384
    """Streams and objects that a server keeps alive for all its clients: as many as sixteen connections may have. Each
    takes some 10 KB, so all take 160 MiB."""

    max_calls_in_flight: int = 1024
    """Unanswered calls of one connection, each way. Beyond it, calls of this side wait their turn, and calls of the
    other side are answered ``rpc.Overloaded``. Between two sides with the same bound nothing is refused."""

    max_connections: int = 4096
    """Connections of one server; further ones are told the reason and closed. As many as the usual ``somaxconn``. If
    the process may not have that many descriptors, ``RLIMIT_NOFILE`` less ``RESERVED_DESCRIPTORS`` are accepted, and
    further ones wait in the backlog until one ends: this is a shortage, which passes, and no decision."""

    max_threads: int = 16
    """Threads that run the plain-function handlers of one server."""

    max_packets_per_wakeup: int = 64
    """Packets read from one socket before the loop looks at others: a chatty peer must not starve them."""

    high_water_bytes: int = 65_536
    """Unsent bytes at which ``pause_writing`` is called; asyncio's own default."""

    low_water_bytes: int = 16_384
    """Unsent bytes at which ``resume_writing`` is called; a quarter of the high mark, as in asyncio."""

    max_unsent_bytes: int = 16 * 1024 * 1024
    """Bytes of answers, besides one of ``max_message_bytes``, that are kept for a peer that does not read them,
    whenever it asked. Further results are answered ``rpc.Overloaded``."""

    connect_timeout: float = 10.0
    """Seconds that connecting may take, full backlogs included."""

    close_timeout: float = 2.0
    """Seconds that a closing connection waits for its peer to take what is still unsent, and a closing server
    for handlers that it cancelled."""

    stall_timeout: float = 5.0
    """Seconds without any progress after which a waiting call is refused with ``rpc.Overloaded``: a call of this side
    that waits for one of ``max_calls_in_flight`` while none is answered, or one of the other side that waits for one of
    ``max_threads`` while none comes free. What they wait for may be waiting for them."""

    unread_timeout: float = 300.0
    """Seconds for which a peer may leave its answers unread, once more than ``high_water_bytes`` of them wait, or one
    is longer than a packet, before its connection is ended: they keep memory and descriptors of this process. A program
    that is alive reads within seconds; five minutes are for one that is stopped in a debugger. Time in which the
    machine sleeps does not count."""

    idle_timeout: float = float("inf")
    """Seconds after which a server closes a connection on which nothing came, and nothing runs; by default never, for
    an idle connection costs next to nothing, and its client would have to connect anew."""

    drain_timeout: float = 30.0
    """Seconds that a stopping server waits for running handlers; service managers kill after 90."""

    lifespan_timeout: float = 30.0
    """Seconds that the ends of the lifespans of a server's services may take together, to write down what they hold:
    as long as what runs before, so that both are over before service managers kill."""

    restart_timeout: float = 60.0
    """Seconds that a daemon's successor may take until it serves: to start Python, to import what it needs, and to
    enter the lifespans of its services. Nobody waits for it, but a restart that hangs should be known to hang."""

    busy_poll_timeout: float = 0.0
    """Seconds for which a loop looks for more events after a packet before it sleeps; by default it sleeps at once.
    A call that comes meanwhile need not wake a processor, which is most of a lone call's time. This keeps the processor
    busy that long after each packet, so it suits processes that have one to themselves, most of them with 0.001."""

    def __post_init__(self) -> None:
        """Refuse bounds that would mean nothing."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float):
                raise TypeError(f"limits.{field.name} is a number, got {value!r}")
            if not value > 0 and field.name != "busy_poll_timeout":
                raise ValueError(f"limits.{field.name} must be positive, got {value!r}")
        if not 0 <= self.busy_poll_timeout <= 1:
            raise ValueError(f"limits.busy_poll_timeout is 0 to 1 second, got {self.busy_poll_timeout!r}")
        if self.max_message_bytes < MAX_PACKET:
            raise ValueError(f"limits.max_message_bytes is at least {MAX_PACKET}, got {self.max_message_bytes}")
        if self.low_water_bytes > self.high_water_bytes:
            raise ValueError(
                f"limits.low_water_bytes ({self.low_water_bytes}) is above"
                f" limits.high_water_bytes ({self.high_water_bytes})"
            )


def _telling(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def telling(self: Limits, /, **bounds: Any) -> None:
        for name in bounds.keys() - Limits.__dataclass_fields__.keys():
            raise TypeError(f"Limits has no bound {name!r}{offered(name, Limits.__dataclass_fields__)}")
        init(self, **bounds)

    return telling


# Python names the argument that it does not know, but not the nearest that there is.
Limits.__init__ = _telling(Limits.__init__)  # type: ignore[method-assign]


def check_limits(limits: object) -> None:
    """Check that what is given as ``limits=`` is some.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(limits, Limits):
        raise TypeError(f"limits= takes a seqrpc.Limits, got {shown(repr(limits))}: write seqrpc.Limits(max_threads=8)")


DEFAULT_LIMITS = Limits()
