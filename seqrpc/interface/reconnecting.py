"""How a connection is made anew after it ended, and which of its calls are made again, for both kinds of clients.

Nothing here waits or connects. Whoever does asks how long to wait (:meth:`Reconnect.delays`), whether a failure to
connect may pass (:func:`may_pass`), and whether a call that failed may be sent again (:func:`may_send_again`).
"""

from __future__ import annotations

import copy
import errno
import inspect
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from seqrpc.errors import (
    ConnectError,
    ConnectionLost,
    Execution,
    NobodyListens,
    SeqrpcError,
    ServerBusy,
    Unavailable,
    not_run,
)
from seqrpc.kernel.addresses import Address, AddressLike, FdAddress, SystemdAddress, parse_address
from seqrpc.limits import LONGEST_TIMER, MAX_VALUES_SEARCHED
from seqrpc.protocol.values import values_in
from seqrpc.text import shown

_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""What the kernel says where something is short that may come free: descriptors, memory."""


_MOST_LOST: Final = 5
"""How often in a row an idempotent call is made over a connection that ends without having answered any call: it may be
the very call that its daemon dies of."""


def random_share() -> float:
    """Return a random number of at least 0 and less than 1, which no other process has, not even a fork of this one."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnect:
    """How a connection is made anew: ``seqrpc.connect(path, reconnect=seqrpc.Reconnect(longest_delay=10))``."""

    first_delay: float = 0.05
    """Seconds after which the first attempt is made at the latest. Each further one waits for up to twice as long as
    the one before, and at least half of that: at random, so that the clients of a daemon that ended do not all come at
    the same moment. It begins again at the first once a call was answered on the new connection."""

    longest_delay: float = 2.0
    """Seconds between two attempts at most."""

    ready_timeout: float | None = 10.0
    """Seconds that a call, and ``connect`` itself, waits for a connection; then it raises what the last attempt did.
    The earlier deadline of a call holds. None waits for ever."""

    wait_for_ready: bool = True
    """Whether they wait at all. If not, they raise what the last attempt did as long as nobody is there, and the
    attempts go on."""

    on_reconnect: Callable[[Any], object] | None = None
    """Called with the connection each time that it was made anew, which it was not the first time: to subscribe again,
    or to look at what changed meanwhile. It is a plain function that does not wait; what it raises is logged."""

    def __post_init__(self) -> None:
        """Refuse what would mean nothing."""
        for name in ("first_delay", "longest_delay", "ready_timeout"):
            value = getattr(self, name)
            if value is None and name == "ready_timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Reconnect.{name} is a number of seconds, got {shown(repr(value))}")
            if not 0 < value <= LONGEST_TIMER:
                hint = ": None waits for ever, wait_for_ready=False not at all" if name == "ready_timeout" else ""
                raise ValueError(
                    f"Reconnect.{name} is more than 0 and at most {LONGEST_TIMER} seconds, got {value!r}{hint}"
                )
        if self.longest_delay < self.first_delay:
            raise ValueError(
                f"Reconnect.longest_delay ({self.longest_delay}) is below Reconnect.first_delay ({self.first_delay})"
            )
        if not isinstance(self.wait_for_ready, bool):
            raise TypeError(f"Reconnect.wait_for_ready is True or False, got {shown(repr(self.wait_for_ready))}")
        hook = self.on_reconnect
        if hook is not None and not callable(hook):
            raise TypeError(f"Reconnect.on_reconnect is a function, got {shown(repr(hook))}")
        if inspect.iscoroutinefunction(hook):
            raise TypeError("Reconnect.on_reconnect is a plain function: nobody awaits it; let it start a task")

    def delays(self, random: Callable[[], float] = random_share) -> Iterator[float]:
        """Yield the seconds to wait before each attempt, without an end.

        Args:
            random: returns numbers of at least 0 and less than 1.
        """
        yield self.first_delay * random()
        bound = self.first_delay
        while True:
            bound = min(2 * bound, self.longest_delay)
            yield bound * (1 + random()) / 2

    @property
    def patience(self) -> float:
        """Seconds that a call waits for a connection: none, or infinitely many, or so many."""
        if not self.wait_for_ready:
            return 0.0
        return math.inf if self.ready_timeout is None else self.ready_timeout


def as_reconnect(given: object) -> Reconnect | None:
    """Return what ``reconnect=`` of a client means; None if it does not reconnect.

    Raises:
        TypeError: it is neither True, nor False, nor a :class:`Reconnect`.
    """
    if given is False:
        return None
    if given is True:
        return Reconnect()
    if isinstance(given, Reconnect):
        return given
    if given is Reconnect:
        raise TypeError("reconnect= takes an object of seqrpc.Reconnect, got the class: write seqrpc.Reconnect()")
    raise TypeError(f"reconnect= takes True, False or a seqrpc.Reconnect, got {shown(repr(given))}")


def address_to_reconnect_to(address: AddressLike | None, sock: object) -> Address:
    """Return the address that a client is to connect to again and again.

    Raises:
        ValueError: it was given one connected socket instead.
        AddressError: the address cannot be read.
    """
    if sock is not None or address is None:
        raise ValueError("reconnect= takes an address; what sock= is connected to cannot be connected to again")
    parsed = parse_address(address)
    if isinstance(parsed, FdAddress | SystemdAddress):
        text = f"reconnect= takes an address that can be connected to again, and {parsed} is one socket"
        raise ValueError(text)  # noqa: TRY004 - it is of no wrong type to those who write it as text
    return parsed


def may_pass(exc: Exception) -> bool:
    """Return whether it is worth to wait after a failure to connect.

    Nobody listens yet, or something is short. For whoever waits it is not if the daemon's address is no address, is
    somebody else's, or may not be connected to: he is to be told at once, though it is tried again for later calls.
    """
    if isinstance(exc, NobodyListens | ServerBusy):
        return True
    return type(exc) is ConnectError and exc.errno in _PASSING


def may_send_again(
    exc: BaseException, *, idempotent: bool, is_over: bool, drains: bool, params: Any, travels: Callable[[Any], bool]
) -> bool:
    """Return whether a call that failed with ``exc`` is to be sent again, over another connection.

    So is one that did not run because of the end of its connection, and an idempotent one that may have run. What a
    handler answered never is, whatever it answered. A stream or an object can leave once only: a call that took one
    along is not made again.

    Args:
        exc: what the call raised.
        idempotent: whether it may run twice.
        is_over: whether the connection that it was made on had ended when it failed, or its other side had said that it
            takes no new requests;
        drains: whether it had said that.
        params: its arguments.
        travels: says what streams and objects are (:class:`~seqrpc.protocol.values.Living`).
    """
    if isinstance(exc, Unavailable) and exc.execution is Execution.DID_NOT_RUN:
        # With a reason it was raised here, and nothing left. Without one it is an answer: of the other side's session
        # while it drains, or of a handler that refuses of its own accord.
        return drains and (exc.reason is not None or not _takes_along(params, travels))
    if not isinstance(exc, ConnectionLost) or not is_over:
        return False
    if exc.execution is Execution.DID_NOT_RUN:
        return True
    return idempotent and not _takes_along(params, travels)


def _takes_along(params: Any, travels: Callable[[Any], bool]) -> bool:
    """Return whether there is a stream or an object in arguments, or so many values that this is not known."""
    for looked_at, value in enumerate(values_in(params, MAX_VALUES_SEARCHED + 1)):
        if looked_at == MAX_VALUES_SEARCHED or travels(value):
            return True
    return False


class Attempts:
    """One call: what became of the attempts to make it."""

    __slots__ = ("_lost", "_unanswered", "waited")

    def __init__(self) -> None:
        """Begin with none."""
        self._lost: ConnectionLost | None = None  # how the last ended of those that may have run
        self._unanswered = 0
        self.waited = 0.0
        """For how many seconds it has waited for a connection, since it was last on one that took it."""

    def note(self, exc: SeqrpcError, *, was_answered: bool) -> bool:
        """Hear of an attempt that failed and may be made again; return whether it is not the last."""
        if exc.execution is Execution.DID_NOT_RUN:
            return True
        self._lost = ConnectionLost(*exc.args)  # its own traceback would refer to whoever holds this
        self.waited = 0.0
        self._unanswered = 0 if was_answered else self._unanswered + 1
        return self._unanswered < _MOST_LOST

    def end_with(self, exc: Exception) -> None:
        """Let ``exc``, which ends the call, not say that nothing ran if an attempt before may have run.

        Raises:
            ConnectionLost: ``exc`` is a plain OSError or the like, which says by its kind that nothing was sent.
        """
        if self._lost is None:
            return
        if not isinstance(exc, SeqrpcError):
            raise self._taken() from exc
        if exc.execution is Execution.DID_NOT_RUN:
            exc.execution = Execution.MAY_HAVE_RUN

    def _taken(self) -> ConnectionLost:
        lost, self._lost = self._lost, None
        assert lost is not None
        return lost


def told_anew(exc: SeqrpcError, waited: float | None = None) -> SeqrpcError:
    """Return an error to raise in a call for which there was no connection; each call has one of its own.

    Args:
        exc: why there was none.
        waited: for how many seconds the call waited in vain, if it did.
    """
    anew = copy.copy(exc)
    if waited is not None:
        for_how_long = f"(for {waited:g} s: ready_timeout)"
        if isinstance(anew, Unavailable):
            anew.message = f"{anew.message} {for_how_long}"
        elif isinstance(anew, ConnectError):
            anew.strerror = f"{exc} {for_how_long}"
        else:
            anew.args = (f"{exc} {for_how_long}",)
    return not_run(anew)
