"""The call that a handler answers, as the handler of a blocking program sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seqrpc.interface.current import AnsweredCall, HandledView

if TYPE_CHECKING:
    from seqrpc.blocking.connection import Connection


class ServedCall(AnsweredCall, kw_only=True, eq=False):
    """A call that is answered by a thread that waits."""

    depth: int = 0
    """How many handlers of this thread wait for the end of this one."""

    dispatcher: object = None
    """What runs the handler."""

    afterwards: list[Callable[[], object]] | None = None
    """What is to be done once it is answered."""

    is_counted: bool = False
    """Whether it counts among those that run."""

    def new_view(self) -> CurrentCall:
        """Return the call as its handler sees it, made anew."""
        return CurrentCall(self)


class CurrentCall(HandledView):
    """The call that a handler answers, as :func:`current_call` tells."""

    __slots__ = ()

    @property
    def connection(self) -> Connection:
        """The connection that the call came on, to call back."""
        connection: Any = self._call.connection
        made: Connection = connection()
        return made


if TYPE_CHECKING:

    def current_call() -> CurrentCall:
        """Return the call that the running handler answers.

        Raises:
            LookupError: no handler is running here.
        """

else:
    from seqrpc.interface.current import current_call  # noqa: F401 - the same for both kinds
