"""The objects that others hold as channels: the serving end (protocol section 7), served by whichever thread waits."""

from __future__ import annotations

import functools
import inspect
import socket
import threading
from collections.abc import Callable
from typing import Any

from seqrpc.blocking.channels import Surroundings
from seqrpc.blocking.connection import Connection
from seqrpc.blocking.current import ServedCall
from seqrpc.blocking.dispatch import Dispatcher
from seqrpc.blocking.driving import drive
from seqrpc.blocking.family import Family
from seqrpc.blocking.interception import caller_of
from seqrpc.blocking.line import Line
from seqrpc.blocking.remote import Remote
from seqrpc.interface.current import AnsweredCall, answered_call
from seqrpc.interface.entries import MethodTable
from seqrpc.interface.policy import anyone
from seqrpc.interface.scope import run_outside
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.services import check_service
from seqrpc.kernel import forks
from seqrpc.kernel.sockets import socket_pair
from seqrpc.logs import get_logger
from seqrpc.protocol.values import EXT_CHANNEL

_log = get_logger("seqrpc.objects")

_REVOKED = "the object was revoked"


class _Known:
    """What is known of the objects that others hold."""

    def __init__(self) -> None:
        """Know of none."""
        self.lock = threading.RLock()
        """Held while it is looked at or changed."""
        self.held: dict[int, HeldObject] = {}
        """By the ids of the objects: they need not be hashable, and live as long as they are in here."""
        self.held_by_parent: dict[int, HeldObject] = {}
        """In a forked child: what was held when it began."""
        forks.register(self, _Known._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Know of nothing as held: those who hold an object hold the parent's."""
        self.lock = threading.RLock()  # a thread of the parent may hold the other one
        self.held_by_parent.update(self.held)
        self.held.clear()
        forks.register(self, _Known._let_go_in_child)


class HeldObject:
    """A service object that others hold, over one line each, or will once a message has left."""

    def __init__(self, service: Service) -> None:
        """Begin with nobody who holds it."""
        self.service = service
        self._table: MethodTable | None = None
        self.ends: dict[ObjectEnd, None] = {}
        self.pending: set[ObjectDeparture] = set()
        self.was_held = False
        """Whether somebody held it since its ``close`` last ran."""
        _known.held[id(service)] = self

    @staticmethod
    def of(service: Service) -> HeldObject:
        """Return the record of a service; make it if there is none."""
        return _known.held.get(id(service)) or HeldObject(service)

    def make_table(self) -> MethodTable:
        """Return what serves the object; it is made when it is first needed.

        Raises:
            TypeError: a method of it cannot be called from elsewhere.
        """
        if self._table is None:
            # Holding it is the right to call it, unless its class or a method says otherwise.
            self._table = MethodTable([self.service], anyone)
            self._table.answer_as_bases(self.service)
        return self._table

    def let_go(self, family: Family) -> None:
        """Close the object if nobody holds it any more; forget it if nobody ever did."""
        with _known.lock:
            if self.ends or self.pending:
                return
            _known.held.pop(id(self.service), None)
            if self.was_held and type(self.service).close is not Service.close:
                self.was_held = False
                family.errands.append(functools.partial(run_outside, self._close))

    def _close(self) -> None:
        try:
            done: Any = self.service.close()
            if inspect.isawaitable(done):
                drive(done, f"{type(self.service).__qualname__}.close")
        except Exception:
            _log.exception("! closing %r failed", self.service)


_known = _Known()


class ObjectEnd:
    """The serving end of a channel: a line of the family, which is served while any thread waits.

    Args:
        held: the object.
        sock: this end of the pair, owned from now on.
        around: what its line has in common with the connection that the object was given away over.
        ended: called at its end.
    """

    def __init__(
        self,
        held: HeldObject,
        sock: socket.socket,
        around: Surroundings,
        ended: Callable[[], object],
    ) -> None:
        """Serve."""
        self._held = held
        self._family = around.family
        self._ended = ended
        calls = around.interception
        handler = Dispatcher(
            held.make_table(), around.limits, calls, lambda line: Connection(line, caller_of(line, calls))
        )
        handler.on_lost = self._lost
        self._line = Line(sock, handler, around.limits, around.family, around.living_of(None), by_packet=True)

    def interest(self) -> tuple[int, int]:
        """Return what to watch for."""
        return self._line.interest()

    def work(self) -> object:
        """Serve one request, if there is one."""
        return self._line.work()

    @property
    def retry_at(self) -> int | None:
        """When to go on although the socket does not say so."""
        return self._line.retry_at

    def end(self, reason: str) -> None:
        """End it now."""
        self._line.refuse(reason)
        self._line.close()

    def abandon(self) -> None:
        """End it without waiting."""
        self._line.refuse(_REVOKED)
        self._line.abandon()

    def revoke(self, call: AnsweredCall | None) -> None:
        """End it, but let ``call`` be answered first if it came here."""
        if isinstance(call, ServedCall) and call.dispatcher is self._line.handler:
            self._line.refuse(_REVOKED)
            call.afterwards = [*(call.afterwards or ()), functools.partial(self.end, _REVOKED)]
        else:
            self.end(_REVOKED)
        self._family.run_errands()

    def _lost(self) -> None:
        """Hear that the line has ended, and no handler runs: the object has one holder less."""
        self._family.discard(self)
        self._ended()
        with _known.lock:
            self._held.ends.pop(self, None)
            self._held.let_go(self._family)


class ObjectDeparture:
    """A service object on its way out: a pair is made, one end serves it, the other leaves.

    From the beginning it counts as a holder of the object.

    Args:
        service: the object.
        around: what its line has in common with the connection that it leaves over.
        dropped: called if the object is not sent, and when it has ended.

    Raises:
        OSError: the process has too many descriptors.
        TypeError: a method of it cannot be called from elsewhere.
    """

    ext_type = EXT_CHANNEL

    def __init__(
        self,
        service: Service,
        around: Surroundings,
        dropped: Callable[[], object],
    ) -> None:
        """Make the pair."""
        self._around = around
        self._dropped = dropped
        self.revoked = False
        """Whether the object was revoked before the message left."""
        with _known.lock:
            self._held = HeldObject.of(service)
            try:
                self._held.make_table()
                self._ours, self._theirs = socket_pair()  # each packet names its sender (protocol 9.2)
            except BaseException:
                self._held.let_go(around.family)
                raise
            self._held.pending.add(self)
        forks.register(self, ObjectDeparture._close)

    def _close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        """Return the end that leaves, lent."""
        return self._theirs.fileno()

    def sent(self) -> None:
        """Close the end that left, and serve at the other while threads of the family wait."""
        held = self._held
        self._theirs.close()
        end = ObjectEnd(held, self._ours, self._around, self._dropped)
        with _known.lock:
            held.ends[end] = None
            held.pending.discard(self)
            held.was_held = True
        self._around.family.add(end)
        if self.revoked:
            end.end(_REVOKED)

    def unsent(self) -> None:
        """Close both ends; the object is left as it was, unless nobody else holds it any more."""
        self._close()
        self._dropped()
        with _known.lock:
            self._held.pending.discard(self)
            self._held.let_go(self._around.family)

    def given_up(self) -> None:
        """Close both ends, and the object, if nobody else holds it."""
        with _known.lock:
            self._held.was_held = True
        self.unsent()


def let_go_of(service: Service, family: Family) -> None:
    """Let go of an object that was given away and did not arrive, as if its holder had let go at once."""
    if type(service).close is Service.close:
        return
    with _known.lock:
        held = HeldObject.of(service)
        held.was_held = True
        held.let_go(family)


def revoke(service: Service) -> None:
    """Take an object back from all who hold it as a channel.

    Their next call raises Unavailable, which says that it was revoked; a call that runs in it gets ConnectionLost,
    except the one that revokes, which is answered. Then the object's ``close`` runs, in this thread; if handlers of
    the object run yet, after them. Revoking what nobody holds does nothing.

    Args:
        service: the object, in the process that gave it away.

    Raises:
        WrongProcess: the process that this is a fork of gave it away.
        TypeError: it is no object of a service, or a proxy of one.
    """
    if isinstance(service, RemoteService | Remote):
        raise TypeError(
            f"an object is revoked by its owner, and this is a {type(service).__name__}: write 'proxy.close()' to let"
            " go of it"
        )
    check_service(service)
    with _known.lock:
        held = _known.held.get(id(service))
        if held is None:
            if id(service) in _known.held_by_parent:
                raise forks.wrong_process("what others hold of this object")
            return
        for departure in held.pending:
            departure.revoked = True
        ends = list(held.ends)
    call = answered_call()
    for end in ends:
        end.revoke(call)
