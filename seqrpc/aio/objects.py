"""The objects that others hold as channels: the serving end (protocol section 7)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Container
from typing import Any

from seqrpc.aio.channels import LivingOf
from seqrpc.aio.connection import link_of
from seqrpc.aio.current import HandledCall, handled_call
from seqrpc.aio.departures import PairDeparture
from seqrpc.aio.interception import NO_INTERCEPTION, Interception
from seqrpc.aio.link import Link
from seqrpc.aio.places import wrong_loop
from seqrpc.aio.registry import Registry
from seqrpc.aio.remote import Remote
from seqrpc.aio.running import RunningCalls
from seqrpc.interface.policy import anyone
from seqrpc.interface.scope import run_outside
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.services import check_service
from seqrpc.interface.tallies import UNSEEN, Tallies
from seqrpc.kernel import forks
from seqrpc.kernel.forks import wrong_process
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import CANCEL_GRACE, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.values import EXT_CHANNEL, Living

_log = get_logger("seqrpc.objects")

_REVOKED = "the object was revoked"


class _HeldObject:
    """A service object that others hold, over one connection each, or will once a message has left."""

    def __init__(self, service: Service, limits: Limits, key: tuple[asyncio.AbstractEventLoop, int]) -> None:
        self.service = service
        self._limits = limits
        self._registry: Registry | None = None
        self.ends: set[ObjectEnd] = set()
        self.pending: set[ObjectDeparture] = set()
        self.was_held = False  # since its close() last ran
        self.closing: asyncio.Task[None] | None = None
        self._key = key
        _held[key] = self
        forks.register(self, _HeldObject._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Be held by nobody: this is a copy in a forked child, and those who hold the object hold the parent's."""
        if _held.get(self._key) is self:
            del _held[self._key]
            _held_by_parent[id(self.service)] = self

    @staticmethod
    def of(service: Service, limits: Limits) -> _HeldObject:
        """Return the record of a service on the running loop; make it if there is none."""
        loop = asyncio.get_running_loop()
        for key in [key for key in _held if key[0].is_closed()]:
            del _held[key]  # nobody can hold those any more
        return _held.get((loop, id(service))) or _HeldObject(service, limits, (loop, id(service)))

    def make_registry(self, tallies: Tallies = UNSEEN) -> Registry:
        """Return what serves the object; it is made when it is first needed, and counts in ``tallies`` for good.

        Raises:
            TypeError: a method of it cannot be called from elsewhere.
        """
        if self._registry is None:
            # Holding it is the right to call it, unless its class or a method says otherwise.
            self._registry = Registry([self.service], anyone, self._limits, tallies)
            self._registry.answer_as_bases(self.service)
        return self._registry

    def let_go(self) -> None:
        """Close the object if nobody holds it any more; forget it if nobody ever did."""
        if self.ends or self.pending or self.closing is not None:
            return
        if self.was_held and type(self.service).close is not Service.close:
            run_outside(self._begin_closing)
        else:
            self._forget()

    def _begin_closing(self) -> None:
        # Not by the loop's task factory: its task might begin, and even end, before it is known here.
        self.closing = asyncio.Task(self._close(), loop=self._key[0])
        self.closing.add_done_callback(self._closed)

    async def _close(self) -> None:
        self.was_held = False
        try:
            done: Any = self.service.close()
            if inspect.isawaitable(done):  # a plain function will do
                await done
        except (Exception, asyncio.CancelledError) as exc:
            assert self.closing is not None
            if isinstance(exc, asyncio.CancelledError) and self.closing.cancelling():  # this task is: the loop ends
                raise
            _log.exception("! closing %r failed", self.service)

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self.closing = None
        if self.was_held and closing.cancelled():  # before it began, as all tasks of the loop were
            self._key[0].call_later(CANCEL_GRACE, self.let_go)
        else:
            self.let_go()  # it may have been given away again meanwhile, and even come back

    def _forget(self) -> None:
        _held.pop(self._key, None)


_held: dict[tuple[asyncio.AbstractEventLoop, int], _HeldObject] = {}
"""By loop and by the ids of the objects: they need not be hashable, and live as long as they are in here."""

_held_by_parent: dict[int, _HeldObject] = {}
"""In a forked child: what was held when it began."""


class ObjectEnd:
    """The serving end of a channel, the counterpart of :class:`~seqrpc.aio.channels.ChannelEnd`.

    Args:
        held: the object.
        limits: bounds of the connection.
        living: carries streams and channels over it.
        ended: called with this end when it has ended.
        interception: of the connection that the object was given away over.
    """

    def __init__(
        self,
        held: _HeldObject,
        limits: Limits,
        living: Living,
        ended: Callable[[ObjectEnd], object],
        interception: Interception = NO_INTERCEPTION,
    ) -> None:
        """Prepare; the transport is given :attr:`link`."""
        registry = held.make_registry()
        self._dispatcher = interception.new_dispatcher(registry)
        self.link = Link(self._dispatcher, limits, living, self, interception.new_caller)
        self._held = held
        self._tallies = registry.tallies
        self._limits = limits
        self._ended = ended
        self._clean_up: asyncio.Task[None] | None = None
        self.revoking = False
        """Whether a call that runs in it revokes the object: that one ends it."""

    @property
    def running(self) -> RunningCalls:
        """The calls that run in it."""
        return self._dispatcher.running

    def connection_made(self, link: Link) -> None:
        """Do nothing: whoever makes the connection knows."""

    def closing_received(self, link: Link) -> None:
        """Do nothing: calls of this side hear of it."""

    async def wait_left(self) -> None:
        """Wait for nothing: whoever closes the connection may be what runs in it."""

    def connection_lost(self, link: Link) -> None:
        """Hear that what runs was stopped; once it has ended, the object has one holder less."""
        self._tallies.malformed += link.was_malformed
        link.let_go_of_handler()
        link.let_go_of_owner()
        if self._dispatcher.running.is_idle:
            self._leave()
        else:
            self._clean_up = link.loop.create_task(self._wait_idle())
            self._clean_up.add_done_callback(lambda _clean_up: self._leave())  # also if all tasks are cancelled

    async def _wait_idle(self) -> None:
        """Wait for the handlers, which were cancelled."""
        try:
            # One-way calls may go on for close_timeout before they are cancelled.
            async with asyncio.timeout(2 * self._limits.close_timeout):
                await self._dispatcher.running.wait_idle()
        except TimeoutError:
            _log.warning("= %r: handlers are still running after they were cancelled", self._held.service)

    def _leave(self) -> None:
        self._held.ends.discard(self)
        self._held.let_go()
        if self._held.closing is None:
            self._ended(self)
        else:
            self._held.closing.add_done_callback(lambda _closing: self._ended(self))

    def refuse(self, reason: str) -> None:
        """Take no new calls."""
        if not self.link.closed:
            self.link.answers.send_closing(reason)

    async def wait_idle(
        self,
        quiet_timeout: float,  # noqa: ARG002 - handlers are waited for to their end
        spared: Container[object] = (),
    ) -> None:
        """Wait until no handler runs but those of the calls in ``spared``."""
        await self._dispatcher.running.wait_idle(spared)

    def stop(self, reason: str) -> None:
        """End the connection now."""
        self.refuse(reason)
        self.link.abandon()

    def stop_after(self, call: HandledCall) -> None:
        """End the connection once no handler runs: ``call`` is answered, the other handlers are cancelled."""
        if self.revoking:
            return
        self.revoking = True
        self._dispatcher.running.stop_others(call)
        self._clean_up = self.link.loop.create_task(self._dispatcher.running.wait_idle())
        self._clean_up.add_done_callback(lambda _clean_up: self.link.abandon())  # also if all tasks are cancelled

    async def wait_stopped(self) -> None:
        """Wait until it has ended, with what ran in it, and the object's close if it was the last."""
        await self.link.wait_closed()
        if self._clean_up is not None:
            await asyncio.wait([self._clean_up])  # whatever it ends in is not this task's
        if self._held.closing is not None:
            await asyncio.wait([self._held.closing])


class ObjectDeparture(PairDeparture):
    """A service object on its way out: a pair is made, one end serves it, the other leaves.

    From the beginning it counts as a holder of the object.

    Args:
        service: the object.
        limits: bounds of the connection.
        living_of: makes what carries streams and channels over it.
        started: called with the serving end once it serves.
        ended: called with it at its end.
        dropped: called if the object is not sent.
        interception: of the connection that it leaves over.
        tallies: where its calls are counted, unless it was given away before.

    Raises:
        OSError: the process has too many descriptors.
        TypeError: a method of it cannot be called from elsewhere.
    """

    ext_type = EXT_CHANNEL

    def __init__(
        self,
        service: Service,
        limits: Limits,
        living_of: LivingOf,
        started: Callable[[ObjectEnd], object],
        ended: Callable[[ObjectEnd], object],
        *,
        dropped: Callable[[], object],
        interception: Interception = NO_INTERCEPTION,
        tallies: Tallies = UNSEEN,
    ) -> None:
        """Make the pair."""
        self._held = _HeldObject.of(service, limits)
        try:
            self._held.make_registry(tallies)
            super().__init__(socket_pair(), dropped)  # each packet names its sender (protocol 9.2)
        except BaseException:
            self._held.let_go()
            raise
        self._held.pending.add(self)
        self._limits = limits
        self._living_of = living_of
        self._started = started
        self._ended = ended
        self._interception = interception
        self.revoked = False
        """Whether the object was revoked before the message left."""

    def sent(self) -> None:
        """Close the end that left, and serve at the other."""
        held = self._held
        self._theirs.close()
        end = ObjectEnd(held, self._limits, self._living_of(None), self._ended, self._interception)
        end.link.run_outside(self._interception.opens, self._ours, end.link, self._limits)
        held.ends.add(end)
        held.pending.discard(self)
        held.was_held = True
        self._started(end)
        if self.revoked:
            end.stop(_REVOKED)

    def unsent(self) -> None:
        """Close both ends; the object is left as it was, unless nobody else holds it any more."""
        super().unsent()
        self._held.pending.discard(self)
        self._held.let_go()

    def given_up(self) -> None:
        """Close both ends, and the object, if nobody else holds it."""
        self.unsent()
        self._living_of(None).give_up(self._held.service)


def let_go_of(service: Service, limits: Limits) -> asyncio.Task[None] | None:
    """Let go of an object that was given away and did not arrive, as if its holder had let go at once.

    Returns:
        What runs its ``close``, or None: somebody else holds it, or it has none.
    """
    if type(service).close is Service.close:
        return None
    held = _HeldObject.of(service, limits)
    held.was_held = True
    held.let_go()
    return held.closing


async def revoke(service: Service) -> None:
    """Take an object back from all who hold it as a channel.

    Their next call raises Unavailable, which says that it was revoked. Calls that run in it are cancelled (their
    callers get ConnectionLost), except the one that revokes, which is answered: of several the first. Then the object's
    ``close`` runs. Revoking what nobody holds does nothing.

    Args:
        service: the object, in the process, and on the loop, that gave it away.

    Raises:
        WrongProcess, WrongLoop: the process that this is a fork of, or another event loop, gave it away.
        TypeError: it is no object of a service, or a proxy of one.

    Cancel: the revocation goes on.
    """
    if isinstance(service, RemoteService | Remote):
        raise TypeError(
            f"an object is revoked by its owner, and this is a {type(service).__name__}: write 'await proxy.close()' to"
            " let go of it"
        )
    check_service(service)
    held = _held.get((asyncio.get_running_loop(), id(service)))
    if held is None:
        _check_nobody_holds(service)
        return
    call = handled_call()
    own = None if call is None else link_of(call.connection)
    for departure in held.pending:
        departure.revoked = True
    abandoned = []
    for end in list(held.ends):
        end.refuse(_REVOKED)
        if call is not None and end.link is own:
            end.stop_after(call)
        elif not end.revoking:
            end.link.abandon()
            abandoned.append(end.link)
    for link in abandoned:
        await link.wait_closed()


def _check_nobody_holds(service: Service) -> None:
    """Check that an object that this loop did not give away was given away by no other."""
    if id(service) in _held_by_parent:
        raise wrong_process("what others hold of this object")
    for loop, number in list(_held):
        if number == id(service) and not loop.is_closed():
            raise wrong_loop("what others hold of this object", loop)
