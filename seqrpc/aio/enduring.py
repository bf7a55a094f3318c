"""A connection that reconnects, as its users see it, and what makes its calls: over one connection, or over several."""

from __future__ import annotations

import asyncio
import weakref
from asyncio import get_running_loop
from collections.abc import Coroutine
from typing import Any

from seqrpc.aio.caller import Caller
from seqrpc.aio.connection import Connection
from seqrpc.aio.interception import Interception
from seqrpc.aio.proxy import Callee
from seqrpc.aio.remote import Remote
from seqrpc.aio.renewal import Renewal
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import Execution, SeqrpcError
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.reconnecting import Attempts
from seqrpc.interface.scope import outside, run_in
from seqrpc.kernel.credentials import Credentials
from seqrpc.protocol.messages import Params


class EnduringCaller:
    """Makes calls over whatever connection there is, and again over the next where that is right.

    Everything that can call holds this, and with it what closes the connection when it goes. The machinery does not.

    Args:
        renewal: makes the connections.
        guard: is held.
    """

    __slots__ = ("__weakref__", "_guard", "_renewal")

    def __init__(self, renewal: Renewal, guard: object) -> None:
        """Begin with no call."""
        self._renewal = renewal
        self._guard = guard

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Call, as :meth:`seqrpc.aio.caller.Caller.request`; again only if it did not run."""
        return self._request(method, params, deadline, meta, finish, is_idempotent=False)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do the same; again also if it may have run, and its answer was lost."""
        return self._request(method, params, deadline, meta, finish, is_idempotent=True)

    async def _request(
        self,
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        finish: Finish,
        *,
        is_idempotent: bool,
    ) -> Any:
        self._check_loop()
        renewal, attempts = self._renewal, Attempts()
        while True:
            answered = False
            caller = None if renewal.lobby.turns.waiting else renewal.caller
            try:
                if caller is None:
                    caller = await self._next_caller(attempts, deadline)
                result = await caller.request(method, params, deadline, meta, finish)
            except Exception as exc:
                answered = isinstance(exc, SeqrpcError) and exc.execution is Execution.RAN
                if not self._goes_on(attempts, caller, exc, params, is_idempotent=is_idempotent):
                    attempts.end_with(exc)
                    raise
            else:
                answered = True
                return result
            finally:
                if caller is not None:
                    renewal.call_ended(caller, answered=answered)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer, as :meth:`seqrpc.aio.caller.Caller.send_notify`."""
        self._check_loop()
        renewal, attempts = self._renewal, Attempts()
        while True:
            caller = None if renewal.lobby.turns.waiting else renewal.caller
            if caller is None:
                caller = await self._next_caller(attempts, deadline)
            try:
                await caller.send_notify(method, params, deadline, meta)
            except Exception as exc:
                if not self._goes_on(attempts, caller, exc, params, is_idempotent=False):
                    raise
            else:
                return

    def _check_loop(self) -> None:
        try:
            is_home = get_running_loop() is self._renewal.home
        except RuntimeError:  # no loop runs: in a forked child, or where coroutines are driven by hand
            is_home = False
        if not is_home:
            raise self._renewal.misuse()

    async def _next_caller(self, attempts: Attempts, deadline: int | None) -> Caller:
        renewal = self._renewal
        began = renewal.loop.time()
        until = renewal.lobby.patience_from_now() - attempts.waited
        caller = await renewal.lobby.ready(until, deadline, waits=renewal.policy.wait_for_ready)
        attempts.waited += renewal.loop.time() - began
        return caller

    def _goes_on(
        self, attempts: Attempts, caller: Caller | None, exc: Exception, params: Params, *, is_idempotent: bool
    ) -> bool:
        """Return whether a call that failed is made again."""
        if caller is None:  # it never had a connection
            return False
        was_answered = self._renewal.was_answered
        if not self._renewal.may_send_again(caller, exc, params, idempotent=is_idempotent):
            return False
        assert isinstance(exc, SeqrpcError)
        return attempts.note(exc, was_answered=was_answered)

    async def let_go(self) -> None:
        """Do nothing: a connection is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the state of the connection, and who is at the other end."""
        return repr(self._renewal)


class EnduringConnection(Connection):
    """A :class:`~seqrpc.Connection` that is made anew whenever it ends, until it is closed on this side."""

    __slots__ = ("_renewal",)

    def __init__(self, renewal: Renewal, callee: Callee) -> None:
        """Wrap what makes the connections, and what calls over them."""
        Remote.__init__(self, callee)
        self._renewal = renewal

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end, by the kernel's word; None while it is being made anew."""
        link = self._renewal.link
        return None if link is None else link.peer

    @property
    def closed(self) -> bool:
        """True once it was closed on this side; a copy in a forked child never was one."""
        return self._renewal.closed

    @property
    def closing_reason(self) -> str | None:
        """Why the last daemon took no new calls, while there is no connection to the next one; None else."""
        return self._renewal.closing_reason

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the connection belongs to."""
        return self._renewal.loop

    async def close(self) -> None:
        """End it for good, as :meth:`seqrpc.Connection.close`; calls that wait for a connection are given up, too."""
        await self._renewal.close()

    async def wait_for_ready(self) -> None:
        """Wait until there is a connection; ``ready_timeout`` does not bound this.

        Raises:
            ConnectionLost: it was closed on this side.
            ConnectError: an attempt showed that waiting is no use.
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        self._renewal.check_place()
        await self._renewal.lobby.ready(is_call=False)

    async def wait_closed(self) -> None:
        """Wait until it was closed on this side.

        Raises:
            WrongProcess, WrongLoop: the connection belongs to another process, or to another event loop.
        """
        await self._renewal.wait_closed()

    def __repr__(self) -> str:
        """Return the state, and who is at the other end."""
        return repr(self._renewal)


async def begin_enduring(renewal: Renewal, interception: Interception) -> EnduringConnection:
    """Make the first connection, and return what its users have; dropping that closes it.

    Args:
        renewal: makes it.
        interception: its interceptors surround each call as a whole, with all attempts to make it.
    """
    await renewal.begin()
    guard = Guard(renewal)
    renewal.guard = weakref.ref(guard)
    caller = EnduringCaller(renewal, guard)
    known = weakref.ref(caller)
    hook, surroundings = renewal.policy.on_reconnect, outside()  # it is in nobody's call that finds the end

    def made_anew() -> None:
        alive = known()
        if hook is not None and alive is not None:
            run_in(surroundings, hook, EnduringConnection(renewal, interception.around(alive)))

    renewal.made_anew = made_anew
    return EnduringConnection(renewal, interception.around(caller))
