"""Something to call: what connections and channels have in common."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from seqrpc.aio.proxy import Callee, proxy_class
from seqrpc.interface.scope import scope
from seqrpc.interface.signature import params_of

T = TypeVar("T")


class Remote:
    """The other side of a socket, whose services can be called.

    Args:
        callee: sends the calls.
    """

    __slots__ = ("_callee",)

    def __init__(self, callee: Callee) -> None:
        """Hold what sends the calls."""
        self._callee = callee

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Call a method by its name on the wire and return its result as plain data.

        Args:
            method: ``Service.method``.
            args: the arguments by position, or
            kwargs: by name; not both. Anything with a ``fileno`` is sent as a descriptor, borrowed.

        Returns:
            None, bools, numbers, strings, bytes, datetimes, lists, dicts; :class:`~seqrpc.OwnedFd`, which the
            caller owns; :class:`~seqrpc.Buffer`, :class:`~seqrpc.Stream` and :class:`~seqrpc.Channel`.

        Raises:
            RpcError: the other side answered with an error, as the class of its code.
            DeadlineExceeded: the time given by :func:`seqrpc.timeout` is up.
            Unavailable: the other side takes no new requests, or the object of a channel was revoked; the call did not
                run.
            ConnectionLost: the connection ended, or the channel was closed or passed on here; the call may have run.
            LocalProtocolError, TooLarge: the arguments cannot be sent.
            TypeError: arguments were given both by position and by name, or the name is none.

        Cancel: the handler at the other side is cancelled; until it has answered, the call counts as in flight.
        """
        params = params_of(method, args, kwargs)
        here = scope.get()
        calling = self._callee.request(method, params, here.deadline_ns, here.outgoing_meta)
        calling.__qualname__ = method  # type: ignore[attr-defined] # in warnings that it was not awaited, and in its task
        return calling

    def notify(self, method: str, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        """Call a method without waiting for, or ever hearing, its answer; arguments as for :meth:`call`.

        Returns when the message is on its way; errors at the other side are not reported.

        Raises:
            Unavailable, ConnectionLost, LocalProtocolError, TooLarge, DeadlineExceeded, TypeError: it was not sent.

        Cancel: it was not sent.
        """
        params = params_of(method, args, kwargs)
        here = scope.get()
        calling = self._callee.send_notify(method, params, here.deadline_ns, here.outgoing_meta)
        calling.__qualname__ = method  # type: ignore[attr-defined] # as above
        return calling

    def proxy(self, cls: Callable[..., T]) -> T:
        """Return an object with the methods of ``cls``, which call the service of that name at the other side.

        For type checkers it is a ``cls``. Any class with annotated methods will do, abstract ones and Protocols too:
        results are converted to what the methods are annotated with.

        Args:
            cls: the class. (To type checkers it is something that makes a ``T``, for they do not take abstract classes
                for a ``type[T]``.)

        Its methods raise what :meth:`call` raises, and InvalidResult: the answer does not fit the annotation.

        Raises:
            TypeError: it is no class, or a method of the class cannot be called from elsewhere.
        """
        return cast("T", proxy_class(cast("type", cls))(self._callee))
