"""Two sessions back to back, with no socket in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, MAX_PACKET, Limits
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.lenders import Packed, tell_sent
from seqrpc.protocol.messages import Cancel, Closing, Request, Response
from seqrpc.protocol.session import Session
from seqrpc.protocol.spilled import write_spilled
from support.admission import new_session

Event = Request | Response | Cancel | Closing | Refused | None


@dataclass
class SessionPair:
    """Two sessions and the packets on their way, in order in each direction, as a socket pair would hold them."""

    limits: Limits = DEFAULT_LIMITS
    sessions: tuple[Session[Any, Any], Session[Any, Any]] = field(init=False)
    under_way: tuple[deque[Packed], deque[Packed]] = field(init=False)
    """Packets that each side has sent, with what lends their descriptors."""
    received: list[OwnedFd] = field(default_factory=list)
    """Every descriptor that ever arrived."""

    def __post_init__(self) -> None:
        self.sessions = (new_session(self.limits), new_session(self.limits))
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
        if isinstance(event, Refused) and event.call_id is not None:
            self.post(1 - sender, self.sessions[1 - sender].send_error(event.call_id, event.code, event.message))
        return event

    def send_and_deliver(self, side: int, packet: Packed | None) -> Event:
        """Let a side send a packet and the other receive it at once."""
        self.post(side, packet)
        assert len(self.under_way[side]) == 1, "an older packet is still under way"
        return self.deliver(side)


def on_the_way(session: Session[Any, Any], packed: Packed, *, spilled: bool = False) -> tuple[bytes, list[OwnedFd]]:
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
