"""Something to call: what connections and channels have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from seqrpc.blocking.blocks import Block
from seqrpc.blocking.proxy import Callee, proxy_class
from seqrpc.interface.scope import scope
from seqrpc.interface.signature import params_of

T = TypeVar("T")


class Remote(Block):
    """The other side of a socket, whose services can be called.

    Args:
        callee: sends the calls.
    """

    __slots__ = ("_callee",)

    def __init__(self, callee: Callee) -> None:
        """Hold what sends the calls."""
        self._callee = callee

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method by its name on the wire, wait, and return its result as plain data.

        While it waits, what is asked of this side is served: services that were given to :func:`connect`, objects that
        others hold, and iterators among the arguments, which are produced meanwhile, in this thread, and end with it.

        Args:
            method: ``Service.method``.
            args: the arguments by position, or
            kwargs: by name; not both. Anything with a ``fileno`` is sent as a descriptor, borrowed; an iterator, such
                as a generator, is sent as a stream, and a :class:`~seqrpc.Service` as an object.

        Returns:
            None, bools, numbers, strings, bytes, datetimes, lists, dicts; :class:`~seqrpc.OwnedFd`, which the
            caller owns; :class:`~seqrpc.Buffer`, :class:`~seqrpc.blocking.Stream` and
            :class:`~seqrpc.blocking.Channel`.

        Raises:
            RpcError: the other side answered with an error, as the class of its code.
            DeadlineExceeded: the time given by :func:`seqrpc.timeout` is up; the handler is cancelled.
            Unavailable: the other side takes no new requests, or the object of a channel was revoked; the call did not
                run.
            ConnectionLost: the connection ended, or the channel was closed or passed on here; the call may have run.
            LocalProtocolError, TooLarge: the arguments cannot be sent.
            TypeError: arguments were given both by position and by name, or the name is none.
            KeyboardInterrupt: or what else a signal handler raises; the handler at the other side is cancelled, and the
                connection can be used on. If the signal came in the midst of a message, the connection has ended.
        """
        params = params_of(method, args, kwargs)
        here = scope.get()
        return self._callee.request(method, params, here.deadline_ns, here.outgoing_meta)

    def notify(self, method: str, /, *args: Any, **kwargs: Any) -> None:
        """Call a method without waiting for, or ever hearing, its answer; arguments as for :meth:`call`.

        Returns when the message has left; errors at the other side are not reported. Iterators that are sent along are
        produced while threads wait for something else of the connection.

        Raises:
            Unavailable, ConnectionLost, LocalProtocolError, TooLarge, DeadlineExceeded, TypeError: it was not sent.
        """
        params = params_of(method, args, kwargs)
        here = scope.get()
        self._callee.send_notify(method, params, here.deadline_ns, here.outgoing_meta)

    def proxy(self, cls: Callable[..., T]) -> T:
        """Return an object with the methods of ``cls``, which call the service of that name at the other side.

        Any class with annotated methods will do. Methods of a class of plain functions look to type checkers as they
        are; those of a class of coroutine functions give their results at once, too, although type checkers take them
        for something to await. Results are converted to what the methods are annotated with.

        Args:
            cls: the class.

        Its methods raise what :meth:`call` raises, and InvalidResult: the answer does not fit the annotation.

        Raises:
            TypeError: it is no class, or a method of the class cannot be called from elsewhere.
        """
        return cast("T", proxy_class(cast("type", cls))(self._callee))
