"""What surrounds every call of a blocking connection, at its caller and at its callee."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from seqrpc.blocking.current import CurrentCall
from seqrpc.calls.records import CallRecord, OutgoingCall
from seqrpc.text import shown

Proceed = Callable[[], Any]
"""Goes on with a call: calls the next interceptor, or after the last one makes the call itself."""


class Interceptor:
    """Surrounds the calls of a blocking connection. Derive from it and override what you need.

    It is what :class:`seqrpc.Interceptor` is, with plain functions in place of coroutine functions. Given as
    ``interceptors=[...]`` to :func:`seqrpc.blocking.connect`. Of several the first is outermost. The calls of objects
    that are passed as values over the connection are surrounded, too, in both directions, and so on.
    """

    def handle(self, call: CurrentCall, proceed: Proceed) -> Any:  # noqa: ARG002 - for those that override it
        """Surround the handler of a request, in the thread that runs it.

        The caller was admitted, and the arguments fit. What is raised here is answered as if the handler had raised it.

        Args:
            call: the request; its arguments are not shown.
            proceed: runs the handler, once at most, and returns its result or raises its error.

        Returns:
            The result that is sent: what ``proceed`` returned, or something in its place that fits the method, too.
            What ``proceed`` returned that is part neither of it nor of the data of a raised error is let go.
        """
        return proceed()

    def ended(self, record: CallRecord) -> None:
        """Hear that a request has ended: each of them, once, whether a handler ran for it or not.

        What it raises is logged, and changes nothing.
        """

    def request(self, call: OutgoingCall, proceed: Proceed) -> Any:  # noqa: ARG002 - for those that override it
        """Surround a call that this side makes, from its start to its outcome.

        Args:
            call: what is called; its arguments are not shown.
            proceed: makes the call, and returns its result or raises its error; for a one-way call it returns None.
                Each time that it is called, the call is made anew, with the deadline and the metadata that surround it.

        Returns:
            The result: what ``proceed`` returned, or something in its place. The override itself closes the
            parts of what ``proceed`` returned that it does not return.
        """
        return proceed()


class Interception:
    """The interceptors of a connection, sorted by what they override.

    Args:
        given: the interceptors, the first is outermost.

    Raises:
        TypeError: one is no interceptor, or has to be awaited.
    """

    __slots__ = ("around", "calling", "hearing")

    def __init__(self, given: Iterable[Interceptor] = ()) -> None:
        """Sort them."""
        if not isinstance(given, Iterable):
            raise TypeError(f"interceptors= takes a list of them, got {shown(repr(given))}: write [...] around it")
        interceptors = tuple(given)
        for each in interceptors:
            if isinstance(each, type) and issubclass(each, Interceptor):
                raise TypeError(f"an object of {each.__name__} was expected, got the class: write {each.__name__}()")
            if not isinstance(each, Interceptor):
                what = f"an object of a seqrpc.blocking.Interceptor was expected, got {shown(repr(each))}"
                raise TypeError(what)
            for name in ("handle", "ended", "request"):
                if inspect.iscoroutinefunction(getattr(each, name)):
                    raise TypeError(f"{type(each).__name__}.{name} must be a plain function: nobody awaits it")
        self.around = tuple(each for each in interceptors if type(each).handle is not Interceptor.handle)
        self.hearing = tuple(each for each in interceptors if type(each).ended is not Interceptor.ended)
        self.calling = tuple(each for each in interceptors if type(each).request is not Interceptor.request)


NO_INTERCEPTION = Interception()
"""Of connections that nobody looks at."""
