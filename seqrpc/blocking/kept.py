"""Sockets that are closed with what uses them, and not before: also where Python collects both in one go."""

from __future__ import annotations

import socket
import weakref
from typing import Any

from seqrpc.kernel.unread import close_unread


def keep(owner: object, *socks: socket.socket, discard: bool = False) -> weakref.finalize[Any, Any]:
    """Close sockets when ``owner`` has gone, unless they are closed by then.

    A circle of objects, such as an error makes that is kept with its traceback, is collected in any order. A socket
    that went first would warn that nobody has closed it.

    Args:
        owner: what uses the sockets.
        socks: the sockets.
        discard: whether to throw away what is unread, so that the peer is not reset.

    Returns:
        Whose ``detach`` is to be called once they are closed: what a signal handler raises while the owner goes would
        be lost otherwise.
    """
    kept = weakref.finalize(owner, _close, socks, discard=discard)
    kept.atexit = False
    return kept


def _close(socks: tuple[socket.socket, ...], *, discard: bool) -> None:
    for sock in socks:
        close_unread(sock, None, discard=discard)
