"""What a client brings to its connection: services for the other side to call, their lifespans, and their threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from seqrpc.aio.accounts import Ledger
from seqrpc.aio.caller import Caller
from seqrpc.aio.calls import Line
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.held import HeldValues
from seqrpc.aio.interception import Interception
from seqrpc.aio.lifespans import Lifespans
from seqrpc.aio.link import Link, LinkOwner
from seqrpc.aio.living import LivingValues
from seqrpc.aio.registry import Registry
from seqrpc.interface.scope import outside
from seqrpc.limits import Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.values import Living

_log = get_logger("seqrpc.client")

_ENDED = "the connection of its service ended"


class Brought:
    """Lives as long as its owner does, over all the connections that it makes.

    Args:
        registry: the services.
        limits: bounds of each connection; ``close_timeout`` and ``lifespan_timeout`` are used here.
        interception: what surrounds the calls of each connection.
        owner: makes and keeps the connections; its ``abandon`` is called when a lifespan ends before.
        link_class: makes the machinery of one.
    """

    def __init__(
        self,
        registry: Registry,
        limits: Limits,
        interception: Interception,
        owner: ClientOwner,
        link_class: Callable[..., Link] = Link,
    ) -> None:
        """Enter nothing yet."""
        self._registry = registry
        self._limits = limits
        self._interception = interception
        self._owner = owner
        self._link_class = link_class
        self._held = HeldValues()
        self._ledger = Ledger(limits, is_shared=False)
        self.living: Living = LivingValues(limits, self._held, account=self._ledger.account_of(None))
        """What streams and objects are here."""
        self.lifespans = Lifespans(registry.services, limits, owner.abandon)
        """The lifespans of the services; whoever makes the first connection enters them."""
        self._loop = asyncio.get_running_loop()
        self._surroundings = outside()  # of all connections, whoever calls as one of them is made
        self._lives_ended: asyncio.Future[None] = self._loop.create_future()
        self._ending: asyncio.Task[None] | None = None

    def new_link(self, guard: Callable[[], object | None] = lambda: None) -> Link:
        """Return the machinery of one connection, for its transport, over which the services can be called.

        Args:
            guard: returns what those who call over the connection are to hold (:class:`~seqrpc.calls.unclosed.Guard`).
        """
        calls = self._interception

        def new_caller(line: Line, limits: Limits) -> Caller:
            caller = calls.new_caller(line, limits)
            caller.guard = guard()
            return caller

        living = LivingValues(self._limits, self._held, interception=calls, surroundings=self._surroundings)
        dispatcher, ledger = calls.new_dispatcher(self._registry), self._ledger
        return self._link_class(dispatcher, self._limits, living, self._owner, new_caller, ledger=ledger)

    def end_when_quiet(self) -> None:
        """End once no calls run on whose connections ended, which may be now; :meth:`wait_left` waits for it."""
        self._registry.when_quiet(self._end)

    def _end(self) -> None:
        self._ledger.close()
        if self.lifespans:
            self._held.stop(_ENDED)
            self._ending = asyncio.ensure_future(self._leave())
            # Also if all tasks are cancelled, and this one before it began.
            self._ending.add_done_callback(lambda _ending: self._lives_ended.set_result(None))

    async def _leave(self) -> None:
        """Leave the lifespans, once nothing of the services runs any more."""
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                await self._registry.wait_ended()
                await self._held.wait_stopped()
        except TimeoutError:
            _log.warning("= handlers are still running that were cancelled with their connection; %r", self._owner)
        finally:  # also if all tasks are cancelled
            await self.lifespans.end()

    async def wait_left(self) -> None:
        """Wait until the lifespans are left, and raise what one raised."""
        if self.lifespans and not self._loop.is_closed():
            await self.lifespans.wait(self._lives_ended)


class ClientOwner(LinkOwner, Protocol):
    """Whoever makes the connections of a client."""

    def abandon(self) -> None:
        """Close them without waiting."""
        ...


def dispatcher_of(link: Link) -> Dispatcher:
    """Return what answers the requests of a connection that :class:`Brought` made."""
    assert isinstance(link.handler, Dispatcher)
    return link.handler
