"""Where in a value the descriptor is that is closed: looked for once sending has failed, to tell whoever wrote it."""

from __future__ import annotations

from typing import Any, Final

from seqrpc.protocol.culprit import Search
from seqrpc.protocol.kinds import lends_descriptor

_DEEPEST: Final = 64  # levels inside a value, as many as a message has by default


def closed_in(value: Any, name: str) -> str | None:
    """Return the path to the first descriptor in a value that cannot be lent, and why; None if there is none.

    No more values are looked at than where one is looked for that cannot be sent at all.

    Args:
        value: what was to be sent.
        name: what it is called.
    """
    try:
        found = Search(lends_descriptor, _lend, _DEEPEST).find(value, name)
    except Exception:  # there is too much of it, or its parts cannot be looked at
        return None
    return None if found is None else f"{found[0]}: {found[1]}"


def _lend(value: Any) -> None:
    if not lends_descriptor(value):
        return
    try:
        number = value.fileno()
    except OSError:  # it never had one (io.UnsupportedOperation), which is told already
        return
    if number < 0:
        raise ValueError("the socket is closed")
