"""What surrounds every call, at its caller and at its callee: for audit logs, metrics and tracing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from seqrpc.aio.current import CurrentCall
from seqrpc.calls.records import CallRecord, OutgoingCall

Proceed = Callable[[], Awaitable[Any]]
"""Goes on with a call: awaits the next interceptor, or after the last one the call itself."""


class Interceptor:
    """Surrounds the calls of a server, or of a connection. Derive from it and override what you need.

    Given as ``interceptors=[...]`` to :func:`seqrpc.serve`, :func:`seqrpc.run` and :func:`seqrpc.connect`. Of several
    the first is outermost. The calls of objects that are passed as values over these connections are surrounded, too,
    in both directions, and so on. Methods that are not overridden cost nothing.
    """

    async def handle(self, call: CurrentCall, proceed: Proceed) -> Any:  # noqa: ARG002 - for those that override it
        """Surround the handler of a request, in its own task and context.

        The caller was admitted, and the arguments fit; only :meth:`ended` hears of requests that are refused, and of
        ``rpc.ping``, which has no handler's task. The handler sees context variables that are set here; they end with
        the call. What is raised here is answered as if the handler had raised it.

        Args:
            call: the request; its arguments are not shown.
            proceed: runs the handler, once at most, and returns its result or raises its error. It must be awaited
                before this returns. The result of a method that streams stands for the stream: its items come later,
                and not through here.

        Returns:
            The result that is sent: what ``proceed`` returned, or something in its place that fits the method, too.
            It is given away as a handler's result is. What ``proceed`` returned that is part neither of it nor of the
            data of a raised error is let go: descriptors are closed, and so are objects that nobody else holds.

        Cancel: as a handler is cancelled, when the caller gives up, its deadline passes, or the connection ends.
        """
        return await proceed()

    def ended(self, record: CallRecord) -> None:
        """Hear that a request has ended: each of them, once, whether a handler ran for it or not.

        That includes requests that were refused (by policy, because there is no such method, or because of too many
        calls), whose arguments did not fit, that came too late, were dropped or cancelled, and whose results could not
        be sent. Malformed packets are not requests: they end their connection. In a forked child it is not called.

        It is called on the event loop, after the answer was sent, and should not take long: callers who are refused
        call it, too, as often as they like. What it raises is logged, and changes nothing.

        Args:
            record: what is known of the request.
        """

    async def request(self, call: OutgoingCall, proceed: Proceed) -> Any:  # noqa: ARG002 - for those that override it
        """Surround a call that this side makes, from its start to its outcome, in the task that makes it.

        These are calls of proxies, :meth:`~seqrpc.Connection.call` and :meth:`~seqrpc.Connection.notify`, and those
        that open streams. A call that is made in here, over the same connection, is surrounded, too.

        Args:
            call: what is called; its arguments are not shown.
            proceed: makes the call, and returns its result or raises its error; for a one-way call it returns None. It
                takes the deadline and the metadata that surround it: ``with seqrpc.metadata(...)`` and ``async with
                seqrpc.timeout(...)`` around it add to those of ``call``. Each time that it is awaited, the call is
                made anew.

        Returns:
            The result: what ``proceed`` returned, or something in its place. The override itself closes the
            parts of what ``proceed`` returned that it does not return.

        Cancel: as that of the call.
        """
        return await proceed()
