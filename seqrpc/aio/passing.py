"""Handing a server's connections to its successor, each while nothing is under way on it."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from weakref import WeakSet

from seqrpc.aio.conversation import Conversation
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.hub import Hub
from seqrpc.aio.link import Link
from seqrpc.kernel.handover import Word
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.server")

_MOST_ON_THE_WAY = 64
"""Connections that the successor has not yet taken: they fit into the pair, and into what one may have under way."""

_FIRST_PAUSE = 0.005
_LAST_PAUSE = 1.0
"""Seconds for which a busy connection is not read, and then is again for as long, twice as many each time. Its calls
end meanwhile, and what its peer sends next waits for the successor; but a handler may wait for that, as for a CANCEL.
"""


class Passing:
    """Hands connections over. What this side has sent of each is unread by the successor until it says ``TAKEN``.

    Until then this process keeps a copy of the socket: if the successor dies, it serves the connection again.

    Args:
        hub: has the connections.
        conversation: with the successor.
    """

    def __init__(self, hub: Hub, conversation: Conversation) -> None:
        """Begin with none on the way."""
        self._hub = hub
        self._conversation = conversation
        self._on_the_way: deque[socket.socket] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._staying: WeakSet[Link] = WeakSet()
        self._arrived = asyncio.Event()  # whether nothing is on the way
        self._arrived.set()
        self.successor_stops = False
        """Whether the successor said that it stops, so that nobody serves after it."""

    async def run(self) -> bool:
        """Hand over all that can be; return whether the successor lives, or ended as it was told to.

        Those of which the application keeps the :class:`~seqrpc.Connection` stay: it may have promised the peer
        something that only this process knows of.

        Cancel: those that were not handed over are served here, as before.
        """
        hearing = asyncio.ensure_future(self._hear())
        passing = asyncio.ensure_future(self._pass_all())
        try:
            await asyncio.wait([hearing, passing], return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                passing.result()
                return True
            return self.successor_stops
        finally:
            for task in (hearing, passing):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def let_go(self, *, take_back: bool) -> None:
        """Let go of the connections on the way: the successor has them, or they are served here again."""
        while self._on_the_way:
            sock = self._on_the_way.popleft()
            if take_back:
                self._hub.adopt(sock)
            else:
                sock.close()

    async def _hear(self) -> None:
        """Hear what becomes of connections, until nothing is said any more."""
        while (heard := await self._conversation.hear()) is not None:
            if heard.word is Word.STOPPING:
                self.successor_stops = True
            elif heard.word in (Word.TAKEN, Word.LOST) and self._on_the_way:
                sock = self._on_the_way.popleft()
                if heard.word is Word.TAKEN:
                    sock.close()  # the successor has it
                else:
                    self._stay(self._hub.adopt(sock))
                self._room.set()
                if not self._on_the_way:
                    self._arrived.set()

    def _stay(self, link: Link | None) -> None:
        if link is not None:
            self._staying.add(link)

    async def _pass_all(self) -> None:
        busy = await self._pass_idle(self._hub.dispatchers.items())
        kept = [(link, dispatcher) for link, dispatcher in busy if link in self._staying]
        if kept:  # some may be kept by what is garbage already
            gc.collect()
            self._staying.clear()
            await self._pass_idle(kept)
        await asyncio.gather(*(self._pass_busy(link, dispatcher) for link, dispatcher in busy))
        await self._arrived.wait()

    async def _pass_idle(self, connections: Iterable[tuple[Link, Dispatcher]]) -> list[tuple[Link, Dispatcher]]:
        """Hand over those that are idle now; return the others."""
        busy = []
        for link, dispatcher in connections:
            if not self._room.is_set():
                await self._room.wait()
            if not self._pass(link, dispatcher):
                busy.append((link, dispatcher))
        return busy

    async def _pass_busy(self, link: Link, dispatcher: Dispatcher) -> None:
        """Hand a connection over as soon as nothing is under way on it.

        Cancel: it is read again.
        """
        pause = _FIRST_PAUSE
        while not (link.transport.is_closing() or link.session.closing_received or link in self._staying):
            await self._room.wait()
            if self._pass(link, dispatcher):
                return
            if not link.session.calls and not link.session.given_up:  # else their answers must be read
                link.transport.pause_reading()
                try:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await dispatcher.running.wait_idle()
                    if self._pass(link, dispatcher):
                        return
                finally:
                    if not link.writing_paused:  # else it is read again once there is room for answers
                        link.transport.resume_reading()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)

    def _pass(self, link: Link, dispatcher: Dispatcher) -> bool:
        """Hand a connection over, if it is idle and need not stay; return whether this was done."""
        if link in self._staying or not self._room.is_set():
            return False
        if dispatcher.running.is_idle and dispatcher.is_kept:
            self._staying.add(link)
            return False
        sock = self._hub.give_away(link)
        if sock is None:
            return False
        try:
            self._conversation.say(Word.CONNECTION, fds=[sock.fileno()])
        except OSError as exc:
            _log.info("= a connection is not handed over: %s", exc)
            self._stay(self._hub.adopt(sock))
            return True
        self._on_the_way.append(sock)
        self._arrived.clear()
        if len(self._on_the_way) >= _MOST_ON_THE_WAY:
            self._room.clear()
        return True
