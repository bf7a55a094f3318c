"""One direction of a faulty pair, as a test sees it: what can be done to packets on it."""

from __future__ import annotations

import errno

from seqrpc.testing.faults import Fault, Rule, Which
from seqrpc.testing.relays import Relay


class Way:
    """One direction of a :class:`FaultyPair`. Each method tells it what to do to some packet, and returns at once.

    Which packet is told by a number, a text or a function: None is the next, a number the n-th from now on, a text the
    next that has it in its bytes, as a request has the name of its method, and a function the next :class:`Packet` for
    which it returns True. If several faults would take a packet, the one that was told first does.
    """

    def __init__(self, relay: Relay) -> None:
        """Wrap a relay."""
        self._relay = relay

    def drop(self, which: Which = None, *, times: int | None = 1) -> Fault:
        """Lose a packet, as no kernel does: the other side never hears of it.

        Args:
            which: the packet.
            times: to how many such packets it happens, here and below; None is to all.
        """
        return self._add(Rule(self._relay, which, times, lambda: False))

    def hold(self, which: Which = None) -> Fault:
        """Delay a packet, and all behind it, for packets never overtake one another, until ``release()``.

        Whoever sends meanwhile soon finds no room: see :meth:`stop_reading`.
        """

        def hold() -> bool:
            self._relay.hold(rule)
            return True

        rule = Rule(self._relay, which, 1, hold)
        return self._add(rule)

    def stop_reading(self) -> Fault:
        """Be a peer that reads no more, from now on, until ``release()``: what is sent fills the kernel's buffers."""
        rule = Rule(self._relay, None, 0)
        self._relay.hold(rule)
        rule.happens()
        return Fault(rule)

    def cut_control(self, which: Which = None, *, times: int | None = 1) -> Fault:
        """Lose the descriptors of a packet: whoever receives it sees ``MSG_CTRUNC``, as with a full table.

        Packets without descriptors are passed over. The receiver must be in this process.
        """

        def cut() -> bool:
            self._relay.cut()
            return True

        return self._add(Rule(self._relay, which, times, cut, needs_descriptors=True))

    def refuse_descriptors(self, which: Which = None, *, times: int | None = None) -> Fault:
        """Refuse packets with descriptors, by default all from now on: their sender gets ``EPERM``.

        So does a peer that takes none (``SO_PASSRIGHTS``); where the kernel has that, it is the kernel that refuses.
        The sender must be in this process.
        """
        return self._refuse(errno.EPERM, Rule(self._relay, which, times, needs_descriptors=True))

    def fail(self, number: int, which: Which = None, *, times: int | None = 1) -> Fault:
        """Let sending a packet fail: ``ENOBUFS``, ``EMSGSIZE``, ``ETOOMANYREFS``, ``EAGAIN``, ``EPIPE``.

        No kernel does this to order, so the sender's socket object does: that one, and no other of the process. The
        sender must be in this process. Each attempt counts: a packet that is sent again is asked for again.

        Args:
            number: the errno.
            which: the packet, or the attempt.
            times: how many attempts fail.
        """
        return self._refuse(number, Rule(self._relay, which, times))

    def disconnect(self, which: Which = None) -> Fault:
        """End the connection in place of a packet, which is lost: both sides find the end.

        Of a request the handler never hears. Of an answer the handler has done its work, and its caller cannot know.
        """

        def end() -> bool:
            self._relay.pair.disconnect()
            return False

        return self._add(Rule(self._relay, which, 1, end))

    def reset(self, which: Which = None) -> Fault:
        """End the connection with a packet unread, as a process does that dies: its sender gets ``ECONNRESET``.

        That comes ahead of what is queued for the sender, which can still be read: all that the other side has sent so
        far, also what a :meth:`hold` of the other way holds.
        """
        rule = Rule(self._relay, which, 1)
        self._relay.add_reset(rule)
        return Fault(rule)

    def _add(self, rule: Rule) -> Fault:
        self._relay.add(rule)
        return Fault(rule)

    def _refuse(self, number: int, rule: Rule) -> Fault:
        self._relay.add_refusal(rule, number)
        return Fault(rule)
