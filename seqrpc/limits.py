"""Every bound and every time-out, with its unit in its name and its reason beside it.

Times are seconds as ``float``, like the standard library's, unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

MAX_PACKET = 65_536
"""Bytes in one packet at most (protocol 1.2): what every receiver can take."""

MAX_DESCRIPTORS = 253
"""Descriptors in one packet at most: the kernel's ``SCM_MAX_FD`` (unix(7))."""


RESERVED_DESCRIPTORS = 64
"""Descriptors of ``RLIMIT_NOFILE`` that connections of a server leave free: to accept one more and tell it why
it is refused, for what comes with messages, and for the program's own files. 64 is what one wake-up accepts."""

LOG_BURST = 10
"""Lines of one kind that are logged in :data:`LOG_WINDOW`, and then one that counts the others: enough to see what
happens, and who does it; what a kernel's ``printk_ratelimit`` takes."""

LOG_WINDOW = 1.0
"""Seconds. Ten tracebacks of 3 KB in one are 30 KB/s, where a caller could have written megabytes."""


LOOP_LOOK_INTERVAL = 1.0
"""Seconds after which a thread that waits for an event loop looks whether that was closed: nothing would ever wake
it. That comes once in the life of a loop, and looking more often would take processor time from threads that wait."""

MAX_VALUES_SEARCHED = 16_384
"""Values of one message, or of one result that nobody gets, that are looked at one by one for what is to be closed:
a few milliseconds. What lies behind them Python's garbage collector closes."""

MAX_CONVERTED_VALUES = 131_072
"""Values of one message that are converted in Python and not by msgspec: those whose annotation mixes descriptors with
other types, and dataclasses with streams, services or such a mixture in them. They take up to a second."""

CLOSING_THREADS = 16
"""Threads of a process that close what others sent, at most: each may have to wait for as long as somebody else likes.
They are started when they are needed."""

CLOSING_THREADS_OF_ONE = 4
"""Threads of those that one sender's descriptors keep at most, so that there are some for the others."""

MAX_UNCLOSED_OF_ONE = 256
"""Descriptors of one sender that may wait to be closed, about as many as a packet can bring. While more do, his packets
that bring some stay in the kernel's queue, and those behind them on the same connection; others are read."""

MAX_UNCLOSED = 2_048
"""Descriptors of all senders together that may wait to be closed, before those who have some among them are held up as
if they had too many: it takes eight of them. Whoever has none is heard all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a server or a connection; pass one as ``limits=`` to change some of them.

    All are positive, ``busy_poll_timeout`` may be 0; a wrong one is a :class:`ValueError` that names it.
    """

    max_depth: int = 64
    """Arrays and maps inside one another, the message's own array included. D-Bus allows 64 too."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Bytes of one message, both ways, at least ``MAX_PACKET``: longer ones than a packet go as a memfd."""

    max_containers: int = 2 * 1024 * 1024
    """Arrays and maps in a received message that is longer than a packet. An empty one takes one byte there and
    sixty here: without a bound 64 MiB would become 4 GiB, and keep the loop for half a minute."""

    max_other_keys: int = 1024
    """Keys of maps in one received message, and elements of one set, that are neither strings nor byte strings. Their
    hashes have no secret in them, so whoever chooses them can make all of them collide: a thousand then take some 3 ms,
    and ten times as many a hundred times as long. More are answered ``rpc.TooLarge`` (protocol 2.3), in a set
    ``rpc.InvalidParams``."""

    max_held_bytes: int = 256 * 1024 * 1024
    """Bytes of requests longer than a packet whose handlers run, of one connection, and of their buffers that had to be
    copied since they do not begin at a page; one more is answered ``rpc.Overloaded``, unless it is alone. Short
    requests are bounded by ``max_calls_in_flight``."""

    max_buffer_bytes: int = 16 * 1024 * 1024 * 1024
    """Bytes of one received :class:`~seqrpc.Buffer`. It takes address space at first, memory as it is looked at."""

    max_living_values: int = 1024
    """Streams and channels that one connection, with the channels that came of it, keeps open for its other side at
    once; more are refused with ``rpc.Overloaded``. Each is a descriptor here: a server, or a client connection, keeps
    at most half of ``RLIMIT_NOFILE`` less ``RESERVED_DESCRIPTORS``."""

    max_calls_in_flight: int = 1024
    """Unanswered calls of one connection, each way: this side's own wait their turn beyond it, the other
    side's are answered ``rpc.Overloaded``. Between two sides with the same bound nothing is refused."""

    max_connections: int = 4096
    """Connections of one server; more are told so and closed. As deep as the usual ``somaxconn``. Where the
    process may not have so many descriptors it is ``RLIMIT_NOFILE`` less ``RESERVED_DESCRIPTORS``. One user has all but
    a sixty-fourth of them at most, so that others can connect."""

    max_threads: int = 16
    """Threads that run the plain-function handlers of one server."""

    max_packets_per_wakeup: int = 64
    """Packets read from one socket before the loop looks at others: a chatty peer must not starve them."""

    high_water_bytes: int = 65_536
    """Unsent bytes at which ``pause_writing`` is called; asyncio's own default."""

    low_water_bytes: int = 16_384
    """Unsent bytes at which ``resume_writing`` is called; a quarter of the high mark, as in asyncio."""

    max_unsent_bytes: int = 16 * 1024 * 1024
    """Bytes of answers, besides one of ``max_message_bytes``, kept for a peer that does not read them, whenever it
    asked. Results that come after are answered ``rpc.Overloaded``."""

    connect_timeout: float = 10.0
    """Seconds that connecting may take, full backlogs included."""

    close_timeout: float = 2.0
    """Seconds that a closing connection waits for its peer to take what is still unsent, and a closing server
    for handlers that it cancelled."""

    stall_timeout: float = 5.0
    """Seconds without any progress after which what waits is refused with ``rpc.Overloaded``: a call of this side for
    one of ``max_calls_in_flight`` while none is answered, one of the other side for one of ``max_threads`` while none
    comes free. What they wait for may be waiting for them."""

    drain_timeout: float = 30.0
    """Seconds that a stopping server waits for running handlers; service managers kill after 90."""

    lifespan_timeout: float = 30.0
    """Seconds that the ends of the lifespans of a server's services may take together, to write down what they hold:
    as long as what runs before, so that both are over before service managers kill."""

    busy_poll_timeout: float = 0.0
    """Seconds that a loop goes on looking for events after a packet before it sleeps; 0, as here, is not at all.
    A call that comes meanwhile need not wake a processor, which is most of a lone call's time; the processor is kept
    busy that long after each packet, so it is for processes that have one to themselves. 0.001 suits most of them."""

    def __post_init__(self) -> None:
        """Refuse bounds that would mean nothing."""
        for field in fields(self):
            value = getattr(self, field.name)
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


DEFAULT_LIMITS = Limits()
