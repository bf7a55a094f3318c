"""Where things may be used: in the process, and on the event loop, that they were made in."""

from __future__ import annotations

import asyncio

from seqrpc.errors import WrongLoop


def runs_here(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Return whether this thread runs ``loop``."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def wrong_loop(what: str, loop: asyncio.AbstractEventLoop) -> WrongLoop:
    """Return what to raise where something of ``loop`` is used in another thread, or on another loop."""
    if loop.is_closed():
        return WrongLoop(f"{what} belongs to an event loop that has ended: connect again on this one")
    return WrongLoop(
        f"{what} belongs to another event loop: use asyncio.run_coroutine_threadsafe(..., loop) with that one,"
        " or seqrpc.current_call().run(...) in a handler that is a plain function"
    )


def check_loop(what: str, loop: asyncio.AbstractEventLoop) -> None:
    """Check that this thread runs ``loop``.

    Raises:
        WrongLoop: it does not.
    """
    if not runs_here(loop):
        raise wrong_loop(what, loop)
