"""Hearing, on an event loop, what a daemon's predecessor or successor says."""

from __future__ import annotations

import asyncio

from seqrpc.kernel.handover import Heard, Talk


class Conversation:
    """One end of the pair between them, on the running loop. One task at a time hears.

    Args:
        talk: the end; it is this object's.
    """

    def __init__(self, talk: Talk) -> None:
        """Own the end."""
        self._talk = talk
        self.say = talk.say
        self.give = talk.give
        self.closed = False
        """Whether this end is closed."""

    def hear_now(self) -> Heard | None:
        """Return what was said already; None if that is nothing, or nothing will be said any more."""
        try:
            return None if self.closed else self._talk.hear()
        except BlockingIOError:
            return None

    async def hear(self) -> Heard | None:
        """Wait until something is said, and return it; None once nothing will be any more.

        Cancel: nothing that was said is lost.
        """
        while not self.closed:
            try:
                return self._talk.hear()
            except BlockingIOError:
                await _readable(self._talk.sock.fileno())
        return None

    def close(self) -> None:
        """Say nothing more, and hear nothing; nobody may be hearing."""
        self.closed = True
        self._talk.close()


async def _readable(fd: int) -> None:
    """Wait until a descriptor can be read from, which is not closed meanwhile."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(fd, lambda: None if readable.done() else readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(fd)


async def ends(fd: int, seconds: float) -> bool:
    """Wait until a process has ended, whose pidfd this is; return whether it has, in so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await _readable(fd)
    except TimeoutError:
        return False
    return True
