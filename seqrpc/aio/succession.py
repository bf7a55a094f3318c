"""A restart without a gap: a daemon starts its successor, and hands it the listening socket and the connections."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from typing import Any, Protocol

from seqrpc.aio.conversation import Conversation, ends
from seqrpc.aio.hub import Hub
from seqrpc.aio.listener import Listener
from seqrpc.aio.passing import Passing
from seqrpc.errors import ListenError
from seqrpc.interface.scope import run_outside
from seqrpc.kernel.addresses import Address
from seqrpc.kernel.handover import Talk, Word, start_successor
from seqrpc.kernel.listening import ListeningSocket, inherit
from seqrpc.kernel.processes import Process, how_it_ended
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import Limits
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.server")


class Tellable(Protocol):
    """The service manager, as far as it is told of restarts (:class:`seqrpc.kernel.systemd.Manager`)."""

    def environment(self) -> dict[str, str]:
        """Return the variables with which a successor tells it."""
        ...

    def ready(self) -> None:
        """Say that the daemon is ready."""
        ...

    def reloading(self) -> None:
        """Say that it is not, for a while."""
        ...

    def main_pid(self, pid: int) -> None:
        """Say which process is the daemon."""
        ...


class Predecessor:
    """What a successor has of the daemon that started it, whose place it takes.

    Args:
        talk: the end of the pair with it; it is this object's.
    """

    def __init__(self, talk: Talk) -> None:
        """Begin; nothing is said."""
        self._talk = talk
        self._conversation: Conversation | None = None
        self._listening: ListeningSocket | None = None
        self._backlog = 0
        self._taking: asyncio.Task[None] | None = None

    def _converse(self) -> Conversation:
        if self._conversation is None:
            self._conversation = Conversation(self._talk)
        return self._conversation

    async def ask(self, address: Address, backlog: int, **asked: Any) -> ListeningSocket:
        """Return what the predecessor listens with, which is still its own.

        Args:
            address: where this process is to listen.
            backlog: how many may wait to be accepted.
            asked: as for :func:`seqrpc.kernel.listening.inherit`.

        Raises:
            AddressError, AddressInUse, ListenError: as for :func:`~seqrpc.kernel.listening.inherit`.
            ListenError: the predecessor has gone.
        """
        conversation = self._converse()
        try:
            conversation.say(Word.ASK)
        except OSError:
            raise _gone() from None
        heard = await conversation.hear()
        if heard is None:
            raise _gone()
        self._listening = inherit(heard.offer, heard.fds, address, **asked)
        self._backlog = backlog
        return self._listening

    async def relieve(self, hub: Hub) -> None:
        """Accept connections in the predecessor's place, and take its own.

        Raises:
            ListenError: the predecessor has gone.
        """
        conversation = self._converse()
        hub.accept()
        try:
            conversation.say(Word.SERVING)
        except OSError:
            raise _gone() from None
        heard = await conversation.hear()
        if heard is None:
            raise _gone()
        self._own()
        self._taking = run_outside(asyncio.ensure_future, self._take(hub))

    def _own(self) -> None:
        assert self._listening is not None
        self._listening.renew(self._backlog)

    async def _take(self, hub: Hub) -> None:
        """Take connections until the predecessor has no more."""
        conversation = self._converse()
        assert self._listening is not None
        while (heard := await conversation.hear()) is not None:
            with suppress(OSError):  # the predecessor has gone
                # Said before anything is read: until then the predecessor could serve it just as well.
                conversation.say(Word.TAKEN if heard.fds else Word.LOST)
            for fd in heard.fds:
                sock = socket.socket(fileno=fd.detach())
                self._listening.renew_descriptors(sock)
                hub.adopt(sock)
            await asyncio.sleep(0)  # there may be thousands
        conversation.close()

    async def wait_gone(self) -> None:
        """Wait until the predecessor has no connection left to hand over.

        Cancel: nothing changes.
        """
        if self._taking is not None:
            await asyncio.wait([self._taking])

    async def end(self) -> None:
        """Tell the predecessor, if it is still there, that this process serves no longer."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])
        conversation = self._converse()
        if self._listening is not None and self._listening.is_anothers:
            heard = conversation.hear_now()
            if heard is not None and heard.word is Word.YOURS:
                self._own()
        if self._listening is not None and not self._listening.is_anothers and not conversation.closed:
            with suppress(OSError):
                conversation.say(Word.STOPPING)
        conversation.close()


def _gone() -> ListenError:
    return ListenError("the daemon that started this process to be its successor has gone")


class Succession:
    """Starts a successor when that is wanted, and makes way for it.

    Args:
        hub: what serves here.
        manager: who is told.
        limits: ``restart_timeout`` and ``close_timeout`` are used.
        drain_timeout: seconds for which busy connections, and what clients hold, are waited for.
        predecessor: of this process; a restart begins once it has no connections left.
    """

    def __init__(
        self, hub: Hub, manager: Tellable, limits: Limits, drain_timeout: float, predecessor: Predecessor | None
    ) -> None:
        """Begin without a successor."""
        self._hub = hub
        self._manager = manager
        self._limits = limits
        self._drain_timeout = drain_timeout
        self._predecessor = predecessor
        self._wanted = False
        self._process: Process | None = None  # while it starts, and from then on
        self._serves = False  # whether the successor does, in this process's place
        self._task: asyncio.Task[None] | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the successor serves, and this process is to end."""

    @property
    def is_under_way(self) -> bool:
        """Whether a successor is being started, or takes over."""
        return self._task is not None and not self._task.done()

    @property
    def is_relieved(self) -> bool:
        """Whether the address is the successor's."""
        return self._serves

    def begin_soon(self) -> None:
        """Restart: now, or again once the successor that is starting serves, which then does it.

        That one may have read its configuration already.
        """
        if self._serves:
            assert self._process is not None
            self._process.send_signal(signal.SIGHUP)
            return
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = run_outside(asyncio.ensure_future, self._restart())

    async def end(self) -> None:
        """Start no successor any more; one that does not serve yet is killed, one that does lives on.

        What was to be handed over and was not stays here.
        """
        self._wanted = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _restart(self) -> None:
        while self._wanted:
            if self._predecessor is not None:
                await self._predecessor.wait_gone()
            self._wanted = False
            self._manager.reloading()
            conversation = await self._started()
            if conversation is not None and await self._hand_over(conversation):
                self.done.set_result(None)
                return
            self._manager.ready()

    async def _started(self) -> Conversation | None:
        """Start a successor; return the conversation with it once it serves, None if it never does."""
        environment = self._manager.environment()
        try:
            ours, theirs = socket_pair()
            try:
                with theirs:  # while this process had it, too, the end of the other would not be heard
                    self._process = start_successor(theirs.fileno(), environment)
            except BaseException:
                ours.close()
                raise
        except OSError as exc:
            _log.error("! restart: no successor could be started, and this process serves on: %s", exc)
            return None
        conversation = Conversation(Talk(ours, self._process.pid))
        try:
            reason = await self._wait_until_it_serves(conversation, self._process)
            if reason is None:
                self._step_back()
                try:
                    conversation.say(Word.YOURS)
                except OSError:
                    reason = await self._how_it_ended(self._process)
                    self._step_forward()
        except BaseException:
            conversation.close()
            await self._kill()
            raise
        if reason is None:
            return conversation
        conversation.close()
        await self._kill()
        _log.error("! restart: the successor %s; this process serves on", reason)
        return None

    async def _wait_until_it_serves(self, conversation: Conversation, process: Process) -> str | None:
        """Give a successor what it asks for; return None once it serves, and else what became of it."""
        listener = self._hub.listener
        assert isinstance(listener, Listener)
        try:
            async with asyncio.timeout(self._limits.restart_timeout):
                while (heard := await conversation.hear()) is not None:
                    if heard.word is Word.ASK:
                        try:
                            conversation.give(listener.listening)
                        except (BrokenPipeError, ConnectionResetError):  # it has ended: nothing more will be heard
                            continue
                        except OSError as exc:  # too many descriptors are under way
                            return f"could not be given the socket, and is killed: {exc}"
                    elif heard.word is Word.SERVING:
                        return None
        except TimeoutError:
            return f"did not serve within {self._limits.restart_timeout:g} s (restart_timeout), and is killed"
        return await self._how_it_ended(process)

    async def _how_it_ended(self, process: Process) -> str:
        """Wait for a process that says nothing any more, and return what became of it."""
        if not await ends(process.fileno(), self._limits.close_timeout) or not process.poll():
            return "said nothing any more, and is killed"
        return how_it_ended(process.returncode)

    def _step_back(self) -> None:
        """Accept no more: the name is the successor's."""
        listener = self._hub.listener
        assert isinstance(listener, Listener)
        assert self._process is not None
        self._hub.stand_aside()
        listener.listening.is_anothers = True
        self._process.unleash()
        self._serves = True
        self._manager.main_pid(self._process.pid)

    def _step_forward(self) -> None:
        """Accept again: there is no successor any more."""
        listener = self._hub.listener
        assert isinstance(listener, Listener)
        self._serves = False
        listener.listening.is_anothers = False
        self._hub.accept()
        self._manager.main_pid(os.getpid())

    async def _kill(self) -> None:
        """Have the successor ended, and waited for."""
        process = self._process
        if process is not None and not process.poll():
            process.kill()
            await ends(process.fileno(), self._limits.close_timeout)
            process.poll()
        self._process = None

    async def _hand_over(self, conversation: Conversation) -> bool:
        """Hand over connections, and wait for what clients hold; return False if the successor dies meanwhile."""
        assert self._process is not None
        _log.info("= restart: process %d serves", self._process.pid)
        if self._wanted:  # since it began to start
            self._wanted = False
            self._process.send_signal(signal.SIGHUP)
        passing = Passing(self._hub, conversation)
        lives = True
        try:
            async with asyncio.timeout(self._drain_timeout):
                lives = await passing.run()
                if lives:
                    conversation.close()
                    self._hub.watches.end()  # all calls are the successor's now, but for those on objects
                    await self._hub.held.wait_gone()
        except TimeoutError:
            _log.info("= restart: what is still busy or held after %g s ends here", self._drain_timeout)
        finally:
            if lives:
                passing.let_go(take_back=passing.successor_stops)
                conversation.close()
        if not lives:
            conversation.close()
            reason = await self._how_it_ended(self._process)
            await self._kill()
            self._step_forward()
            passing.let_go(take_back=True)
            _log.error("! restart: the successor %s while it took over; this process serves on", reason)
        return lives
