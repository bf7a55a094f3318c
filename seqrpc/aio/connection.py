"""The other side of a connection, to call."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from seqrpc.aio.link import CallHandler, SessionConnection
from seqrpc.aio.proxy import proxy_class
from seqrpc.interface.scope import scope
from seqrpc.interface.signature import params_of
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.values import Living

T = TypeVar("T")


class Connection(SessionConnection):
    """A connection to another process: call its services, and be called.

    Made by :func:`seqrpc.connect`; in a handler it is ``current_call().connection``. Use it from its
    own event loop. It ends when either side closes, or breaks the protocol.
    """

    def __init__(self, handler: CallHandler, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Prepare; the transport calls ``connection_made``."""
        super().__init__(handler, limits, living)
        self.handler = handler

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end, by the kernel's word: who connected, or who listens (unix(7)).

        None where each packet tells of its sender, as on a socket pair, and where the kernel does not say.
        """
        return cast("Credentials | None", self._transport.get_extra_info("credentials"))

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
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
            Unavailable: the other side takes no new requests; the call did not run.
            ConnectionLost: the connection ended; the call may have run.
            LocalProtocolError, TooLarge: the arguments cannot be sent.
            TypeError: arguments by position and by name.

        Cancel: the handler at the other side is cancelled; until it has answered, the call counts as in flight.
        """
        here = scope.get()
        return await self.request(method, params_of(method, args, kwargs), here.deadline_ns, here.outgoing_meta)

    async def notify(self, method: str, /, *args: Any, **kwargs: Any) -> None:
        """Call a method without waiting for, or ever hearing, its answer; arguments as for :meth:`call`.

        Returns when the message is on its way; errors at the other side are not told.

        Raises:
            Unavailable, ConnectionLost, LocalProtocolError, TooLarge, DeadlineExceeded, TypeError: it was not sent.

        Cancel: it was not sent.
        """
        here = scope.get()
        await self.send_notify(method, params_of(method, args, kwargs), here.deadline_ns, here.outgoing_meta)

    async def let_go(self) -> None:
        """Do nothing: a connection is held by whoever made it, not by its proxies."""

    def proxy(self, cls: type[T]) -> T:
        """Return an object with the methods of ``cls``, which call the service of that name at the other side.

        For type checkers it is a ``cls``. Any class with annotated methods will do: results are
        converted to what the methods are annotated with.

        Its methods raise what :meth:`call` raises, and InvalidResult: the answer does not fit the annotation.

        Raises:
            TypeError: a method of the class cannot be called from elsewhere.
        """
        return cast("T", proxy_class(cls)(self))

    def __repr__(self) -> str:
        """Return the state, and who is at the other end."""
        return f"<Connection {'closed' if self.closed else 'open'} peer={self.peer}>"


def uid_of(connection: Connection) -> int | None:
    """Return whose connection it is, for bounds: who connected, also where each packet names its sender.

    None where the kernel does not say.
    """
    return cast("int | None", connection._transport.get_extra_info("connected_uid"))  # noqa: SLF001 - this module's own
