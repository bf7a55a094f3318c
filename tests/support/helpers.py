"""What several test files share: how hypothesis runs, values for it, and two sessions back to back."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, MAX_PACKET, Limits
from seqrpc.protocol.codec import Packed, tell_sent
from seqrpc.protocol.messages import Cancel, Closing, Request, Response
from seqrpc.protocol.session import Refused, Session
from seqrpc.protocol.spilled import write_spilled

PROPERTY = settings(
    derandomize=True,  # the same examples on every run: a failure in CI is one on the desk
    deadline=None,  # a busy machine is no failure
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""How property tests run."""

Event = Request | Response | Cancel | Closing | Refused | None


class _Incident:
    """Equal to what the other side is told of a failure that nobody foresaw: a number, and no word of the inside."""

    def __eq__(self, other: object) -> bool:
        pattern = r"incident [0-9a-f]{8}; the log of the other side has more"
        return isinstance(other, str) and re.fullmatch(pattern, other) is not None

    __hash__ = None  # type: ignore[assignment] # as of whatever is equal to things that are not equal

    def __repr__(self) -> str:
        return "<an incident>"


AN_INCIDENT: Any = _Incident()


class Lender:
    """Something with a descriptor to lend that stays as good as it was."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


def scalars() -> st.SearchStrategy[Any]:
    """Return values without parts that arrive as they were sent, NaN left out because it equals nothing."""
    return (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
        | st.binary(max_size=40)
    )


def keys() -> st.SearchStrategy[Any]:
    """Return keys of maps that arrive as they were sent."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.integers(-(2**63), 2**64 - 1)


def values(leaves: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Any]:
    """Return values that arrive as they were sent."""
    return st.recursive(
        scalars() if leaves is None else leaves,
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys(), inner, max_size=6),
        max_leaves=20,
    )


@contextmanager
def owned(number: int) -> Iterator[list[OwnedFd]]:
    """Return descriptors of the null device; those that are still open at the end are closed."""
    fds = [OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) for _ in range(number)]
    every = list(fds)
    try:
        yield fds
    finally:
        close_all(every)


def memory_file(
    content: bytes = b"", *, size: int | None = None, seals: int = memfd.SEALS, whole: bool = False
) -> OwnedFd:
    """Return a memory file as a peer might make one: of any size, with any seals, with holes unless it is whole."""
    file = memfd.create("of a peer")
    os.write(file.fileno(), content)
    if size is not None:
        os.ftruncate(file.fileno(), size)
        if whole:
            os.posix_fallocate(file.fileno(), 0, size)
    if seals:
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
    return file


def write_only(file: OwnedFd) -> OwnedFd:
    """Return a descriptor of the same file that cannot be read from."""
    return OwnedFd(os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_CLOEXEC))


@contextmanager
def address_space_used_up(left: int = 16 * 1024 * 1024) -> Iterator[None]:
    """Let this process map only so many bytes more inside the block."""
    bounds = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + left, bounds[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, bounds)


def peak_bytes(function: Callable[[], object]) -> int:
    """Return how many bytes a call had allocated when it had allocated most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclass
class SessionPair:
    """Two sessions and the packets on their way, in order in each direction, as a socket pair would hold them."""

    limits: Limits = DEFAULT_LIMITS
    sessions: tuple[Session[Any], Session[Any]] = field(init=False)
    under_way: tuple[deque[Packed], deque[Packed]] = field(init=False)
    """Packets that each side has sent, with what lends their descriptors."""
    received: list[OwnedFd] = field(default_factory=list)
    """Every descriptor that ever arrived."""

    def __post_init__(self) -> None:
        self.sessions = (Session(self.limits), Session(self.limits))
        self.under_way = (deque(), deque())

    def post(self, side: int, packet: Packed | None) -> None:
        """Let a side send a packet that its session made, if it made one."""
        if packet is not None:
            self.under_way[side].append(packet)

    def deliver(self, sender: int, *, lost: bool = False, spilled: bool = False) -> Event:
        """Let the other side receive the sender's next packet, with or without its descriptors.

        A message longer than a packet goes as a memory file, others where they are to be ``spilled``.
        """
        packed = self.under_way[sender].popleft()
        data, fds = on_the_way(self.sessions[sender], packed, spilled=spilled)
        if lost:
            close_all(fds)
        self.received.extend(fds)
        event = self.sessions[1 - sender].receive_packet(data, fds, lost=lost)
        if isinstance(event, Refused):
            self.post(1 - sender, self.sessions[1 - sender].send_error(event.call_id, event.code, event.message))
        return event

    def send_and_deliver(self, side: int, packet: Packed | None) -> Event:
        """Let a side send a packet and the other receive it at once."""
        self.post(side, packet)
        assert len(self.under_way[side]) == 1, "an older packet is still under way"
        return self.deliver(side)


def on_the_way(session: Session[Any], packed: Packed, *, spilled: bool = False) -> tuple[bytes, list[OwnedFd]]:
    """Return the packet that a session's message goes as, and what the kernel makes of its descriptors."""
    data, lenders = packed
    fds = duplicates(lenders)
    if spilled or len(data) > MAX_PACKET:
        fds.insert(0, write_spilled(data))
        data = session.spill(data)
    tell_sent(lenders)
    return bytes(data), fds


def duplicates(lenders: Sequence[HasFileno]) -> list[OwnedFd]:
    """Return what the kernel makes of lent descriptors on their way."""
    return [OwnedFd.dup(lender) for lender in lenders]


@contextmanager
def steps_of_python() -> Iterator[list[int]]:
    """Count calls, of functions of either kind, and resumptions: what looks at values one by one makes one for each."""
    count = [0]

    def step(_frame: Any, _event: str, _argument: Any) -> None:
        count[0] += 1

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        yield count
    finally:
        sys.setprofile(before)
