"""What lends descriptors to a message, and hears what became of it."""

from __future__ import annotations

from collections.abc import Iterable

from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.logs import get_logger
from seqrpc.protocol.values import Departure

_log = get_logger("seqrpc.codec")

Lender = HasFileno | Departure | Buffer
"""What lends a descriptor to one message."""

Packed = tuple[Content, list[Lender]]
"""An encoded message, and what lends its descriptors, in order.

If it is longer than a packet it is a memoryview, or pieces if it has long bytes."""


def tell_sent(lenders: Iterable[Lender]) -> None:
    """Tell the departures among what lent descriptors that their message is on its way."""
    for lender in lenders:
        sent = getattr(lender, "sent", None)
        if sent is not None:
            try:
                sent()
            except Exception:  # the message has left: what it refers to ends at once for its receiver
                _log.exception("! what was sent cannot be kept alive")
                give_up_lenders([lender])


def tell_unsent(lenders: Iterable[Lender]) -> None:
    """Tell the departures among what lent descriptors that their message will not be sent."""
    for lender in lenders:
        unsent = getattr(lender, "unsent", None)
        if unsent is not None:
            unsent()


def give_up_lenders(lenders: Iterable[Lender]) -> None:
    """Let go of what lent descriptors to a message that was given away, and that nobody gets."""
    for lender in lenders:
        given_up = getattr(lender, "given_up", None)
        if given_up is not None:
            given_up()
        elif isinstance(lender, OwnedFd):
            close_all([lender])
