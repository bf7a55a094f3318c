"""A connection that is made anew when it has ended, by the thread that next needs it."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.family import Family
from seqrpc.blocking.line import Line
from seqrpc.calls.outcomes import closed_here, no_connection_in_time
from seqrpc.errors import ConnectionLost, DeadlineExceeded, RpcError, SeqrpcError, WrongProcess, not_run
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.reconnecting import Attempts, Reconnect, may_pass, may_send_again, told_anew
from seqrpc.interface.scope import run_outside
from seqrpc.kernel import forks
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.messages import Params

_log = get_logger("seqrpc.client")

_MOST_TOLD = 5
"""How often in a row the hook is called for connections that were made anew while it ran."""


class Made:
    """A connection as it was made, once of several times.

    Args:
        line: its line.
        caller: makes its calls.
    """

    __slots__ = ("began", "caller", "is_proven", "line")

    def __init__(self, line: Line, caller: Caller) -> None:
        """Hold it."""
        self.line = line
        self.caller = caller
        self.began = time.monotonic()
        self.is_proven = False
        """Whether a call was answered on it: somebody serves there, and it need not be feared to be hammered."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or the other side takes no new calls on it."""
        return self.line.is_lost or self.line.session.closing_received is not None


class Lines:
    """Makes the connection, and makes it anew.

    Args:
        make: connects, and gives what it has made to the function that it is called with, before a signal handler may
            raise; raises what :func:`seqrpc.blocking.connect` does.
        policy: how often, and for how long.
        family: what goes on while threads wait: the same for all connections.
        travels: says what streams and objects are.
        limits: bounds of each connection.
    """

    __slots__ = (
        "__weakref__", "_connecting", "_count", "_current", "_delays", "_failure", "_forked", "_hopeless",
        "_is_closed", "_is_closing", "_is_untold", "_lock", "_make", "_next_try", "_retired", "_said", "_telling",
        "_travels", "_tries", "face", "family", "limits", "policy",
    )  # fmt: skip

    def __init__(
        self,
        make: Callable[[Callable[[Made], object]], object],
        policy: Reconnect,
        family: Family,
        travels: Callable[[Any], bool],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Connect to nobody yet."""
        self._make = make
        self.policy = policy
        self.family = family
        self._travels = travels
        self.limits = limits
        self.face: weakref.ref[Any] | None = None
        """The connection as users see it, for the hook."""
        self._lock = threading.Lock()  # held by the thread that connects
        self._connecting: int | None = None  # that thread
        self._is_closing = threading.Lock()  # held until it is closed: threads sleep on it between attempts
        self._is_closing.acquire()
        # The threads that are in the hook, which is not called within itself, and whether it is to be called once more.
        self._telling: dict[int, bool] = {}
        self._current: Made | None = None
        self._retired: list[Made] = []  # whose other sides drain, with calls under way
        self._delays: Iterator[float] = policy.delays()
        self._next_try = 0.0  # by the monotonic clock
        self._failure: SeqrpcError | None = None  # of the last attempt
        self._tries = 0  # attempts that were made
        self._hopeless = 0  # the last of them that showed that waiting is no use
        self._said: str | None = None  # why the last daemon took no new calls
        self._count = 0  # connections that were made
        self._is_untold = False  # whether the hook was not told of the last
        self._is_closed = False
        self._forked = False  # whether this is a copy in a forked child
        forks.register(self, Lines._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Connect to nobody: this is a copy in a forked child."""
        self._forked = self._is_closed = True
        self._lock = threading.Lock()

    def check_process(self) -> None:
        """Check that this belongs to this process.

        Raises:
            WrongProcess: this is a fork of the process that made it.
        """
        if self._forked:
            raise self.wrong_process()

    @staticmethod
    def wrong_process() -> WrongProcess:
        """Return what to raise in a forked child."""
        return forks.wrong_process("this connection")

    @property
    def current(self) -> Made | None:
        """The connection, if there is one that takes calls, as far as is known."""
        current = self._current
        return None if current is None or current.is_over else current

    @property
    def closing_reason(self) -> str | None:
        """Why the last daemon took no new calls, while there is no connection to the next one; None else."""
        current = self._current
        return self._said if current is None else current.line.session.closing_received

    @property
    def lines(self) -> list[Line]:
        """The lines that are open: the current one, and those that drain."""
        made = [*self._retired, *([] if self._current is None else [self._current])]
        return [each.line for each in made if not each.line.is_lost]

    def ready(self, deadline: int | None = None, until: float = math.inf) -> Made:
        """Return a connection that takes calls; make one if there is none.

        Args:
            deadline: when to give up, in nanoseconds of the monotonic clock.
            until: when it was waited for too long, in its seconds.

        Raises:
            SeqrpcError: there was nobody to connect to until then; no call was sent.
            DeadlineExceeded: the deadline passed before.
            ConnectionLost: it was closed on this side.
            WrongProcess: this is a fork of the process that made it.
        """
        made = self._connected(deadline, until)
        if self._is_untold:
            self._tell()
        return made

    def _connected(self, deadline: int | None, until: float) -> Made:
        """Do the same, but for the hook."""
        current = self._current
        if current is not None and not current.is_over and not self._is_closed:
            return current
        if self._connecting == threading.get_ident():
            raise RuntimeError(f"{self!r} is made anew by this very thread: a finalizer, or a signal handler, calls")
        tries = self._tries
        got: list[bool] = []
        try:
            # In one step for signal handlers: a lock that nobody knows to be held would be held for ever.
            got.extend(itertools.starmap(self._lock.acquire, ((True, self._patience(until, deadline)),)))
            if not got[0]:
                raise self._in_vain(deadline)
            if self._hopeless > tries and self._failure is not None:  # it was seen while this one waited
                raise told_anew(self._failure) from self._failure.__cause__
            self._connecting = threading.get_ident()
            made = self._ready(until, deadline)
        finally:
            if got and got[0]:
                self._connecting = None
                self._lock.release()
        return made

    def _ready(self, until: float, deadline: int | None) -> Made:
        """Return a connection, made anew if that must be."""
        while True:
            self.check_process()
            if self._is_closed:
                raise not_run(closed_here("with"))
            current = self._current
            if current is not None:
                if not current.is_over:
                    return current
                self._retire(current)
            self._rest(until, deadline)
            made = self._attempt(until, deadline)
            if made is not None:
                return made

    def _rest(self, until: float, deadline: int | None) -> None:
        """Sleep until it is time for the next attempt, or the connection is closed."""
        left = self._next_try - time.monotonic()
        if left <= 0:
            return
        patience = self._patience(until, deadline)
        if 0 <= patience < left:
            self._is_closing.acquire(timeout=patience)
            if not self._is_closed:
                raise self._in_vain(deadline)
        else:
            self._is_closing.acquire(timeout=left)

    def _attempt(self, until: float, deadline: int | None) -> Made | None:
        """Connect; return None if that failed and may be tried again, or it was closed meanwhile."""
        if self._is_closed:
            return None
        self._tries += 1
        try:
            self._make(self._adopt)
        except SeqrpcError as exc:
            if not isinstance(exc, DeadlineExceeded):  # that is one caller's
                self._failure = exc
            self._next_try = time.monotonic() + self._next_delay()
            if not may_pass(exc):
                self._hopeless = self._tries
                raise told_anew(exc) from exc.__cause__
            if self._patience(until, deadline) == 0:
                raise self._in_vain(deadline) from exc.__cause__
            return None
        made = self._current
        if made is not None and self._is_closed:  # by another thread
            made.line.abandon()
            return None
        return made

    def _adopt(self, made: Made) -> None:
        """Use a connection from now on."""
        self._current = made
        self._is_untold = self._count > 0
        self._count += 1
        self._next_try = time.monotonic() + self._next_delay()
        self.family.tell_watches()  # it is no pump of the family's where nothing is served

    def _next_delay(self) -> float:
        try:
            return next(self._delays)
        except StopIteration:  # a signal handler raised in it, and so it has ended
            self._delays = self.policy.delays()
            return next(self._delays)

    def try_now(self) -> None:
        """Connect, if it is time to, without waiting; a failure is told to those who call."""
        if time.monotonic() < self._next_try:
            return
        with contextlib.suppress(SeqrpcError):
            self.ready(time.monotonic_ns())

    @staticmethod
    def _patience(until: float, deadline: int | None) -> float:
        """Return for how many seconds to wait yet; -1 for ever."""
        left = until - time.monotonic()
        if deadline is not None:
            left = min(left, (deadline - time.monotonic_ns()) / 1e9)
        return -1 if left == math.inf else max(0.0, left)

    def patience_from_now(self) -> float:
        """Return when a call that begins to wait now has waited for too long, in seconds of the monotonic clock."""
        return time.monotonic() + self.policy.patience

    def _in_vain(self, deadline: int | None) -> SeqrpcError:
        """Return what to raise after waiting in vain."""
        failure = self._failure or ConnectionLost("the connection ended")
        if deadline is not None and time.monotonic_ns() >= deadline:
            return no_connection_in_time(failure)
        return told_anew(failure, self.policy.ready_timeout if self.policy.wait_for_ready else None)

    def _retire(self, made: Made) -> None:
        """Use a connection no more; the calls that are under way on it end as they end."""
        self._current = None
        self._said = made.line.session.closing_received
        if made.is_proven or time.monotonic() - made.began > 2 * self.policy.longest_delay:
            self._delays = self.policy.delays()
            self._next_try = 0.0
        self._retired.append(made)
        self.purge()

    def purge(self) -> None:
        """Let go of the connections that drain, and on which no call is under way any more."""
        for made in list(self._retired):
            session = made.line.session
            if made.line.is_lost or not (session.calls or session.given_up or session.requests):
                if made in self._retired:
                    self._retired.remove(made)
                made.line.abandon()

    def _tell(self) -> None:
        """Tell the hook that the connection was made anew."""
        self._is_untold = False
        hook, face = self.policy.on_reconnect, None if self.face is None else self.face()
        thread = threading.get_ident()
        if hook is None or face is None:
            return
        if thread in self._telling:
            self._telling[thread] = True
            return
        try:
            for _ in range(_MOST_TOLD):
                self._telling[thread] = False
                try:
                    run_outside(hook, face)  # the deadline and the metadata are those of one call
                except Exception:
                    _log.exception("! on_reconnect failed")
                if not self._telling[thread]:
                    return
        finally:
            self._telling.pop(thread, None)

    def request(
        self,
        call: Callable[[Caller], Any],
        params: Params,
        deadline: int | None,
        *,
        idempotent: bool,
    ) -> Any:
        """Make a call, again if that is right, and return its result.

        Args:
            call: makes the call by a caller.
            params: its arguments.
            deadline: see :meth:`ready`.
            idempotent: whether it may run twice.
        """
        attempts = Attempts()
        while True:
            made: Made | None = None
            try:
                made = self._current
                if made is None or made.is_over or self._is_closed or self._is_untold:
                    made, began = None, time.monotonic()
                    made = self._connected(deadline, self.patience_from_now() - attempts.waited)
                    attempts.waited += time.monotonic() - began
                    if self._is_untold:
                        self._tell()
                result = call(made.caller)
            except Exception as exc:
                if made is None or not self._goes_on(attempts, made, exc, params, idempotent=idempotent):
                    attempts.end_with(exc)
                    raise
            else:
                made.is_proven = True
                return result
            finally:
                if self._retired:
                    self.purge()

    def _goes_on(self, attempts: Attempts, made: Made, exc: Exception, params: Params, *, idempotent: bool) -> bool:
        """Return whether a call that failed is made again."""
        was_proven, is_over = made.is_proven, made.is_over
        drains = made.line.session.closing_received is not None
        if isinstance(exc, RpcError) and exc.remote and not is_over:  # it was answered
            made.is_proven = True
        if self._is_closed or not isinstance(exc, SeqrpcError):
            return False
        if not may_send_again(
            exc, idempotent=idempotent, is_over=is_over, drains=drains, params=params, travels=self._travels
        ):
            return False
        return attempts.note(exc, was_answered=was_proven)

    # As what is dropped unclosed (:class:`~seqrpc.calls.unclosed.Guard`)

    @property
    def is_unclosed(self) -> bool:
        """Whether nobody has closed it."""
        return not self._is_closed

    def abandon(self) -> None:
        """End without waiting: nobody refers to it any more."""
        self._close()
        for line in self.lines:
            line.abandon()
        self.family.abandon()

    def _close(self) -> None:
        """Make no more connections, and wake who waits for one."""
        self._is_closed = True
        with contextlib.suppress(RuntimeError):  # it was closed before
            self._is_closing.release()

    def close(self) -> None:
        """End, for good."""
        if self._forked:
            return
        self._close()
        for line in self.lines:
            line.close()
        for pump in list(self.family.pumps):
            pump.end("the connection of its service ended")
        self.family.run_errands()

    def __repr__(self) -> str:
        """Return the state, and who is at the other end, as people know it."""
        if self._is_closed:
            return "<Connection closed>"
        current = self.current
        return "<Connection reconnecting>" if current is None else repr(current.line)


class ReconnectingCaller:
    """Makes calls over whatever connection there is; held by all who can call.

    Args:
        lines: the connections.
    """

    __slots__ = ("__weakref__", "_lines", "guard")

    def __init__(self, lines: Lines) -> None:
        """Begin with no call."""
        self._lines = lines
        self.guard: object | None = None
        """What is to be dropped with this (:class:`~seqrpc.calls.unclosed.Guard`)."""

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call; again if it certainly did not run."""
        return self._lines.request(
            lambda caller: caller.request(method, params, deadline, meta, finish), params, deadline, idempotent=False
        )

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call; again also if it may have run."""
        return self._lines.request(
            lambda caller: caller.request(method, params, deadline, meta, finish), params, deadline, idempotent=True
        )

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer; again if it certainly did not leave."""
        self._lines.request(
            lambda caller: caller.send_notify(method, params, deadline, meta), params, deadline, idempotent=False
        )

    def let_go(self) -> None:
        """Do nothing: a connection is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the state of the connection."""
        return repr(self._lines)
