"""From the answer to a call to what the caller gets: a result of the annotated type, or what is raised in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqrpc.errors import InvalidResult
from seqrpc.interface.contents import exact_type
from seqrpc.interface.conversion import Terms, cause_to_tell, convert
from seqrpc.interface.standins import Planned
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Response, error_of

Finish = Callable[[Response, Limits], Any]
"""Returns what a caller gets of an answer, by the limits of the connection that it came on."""


def result_of(answer: Response, limits: Limits) -> Any:  # noqa: ARG001 - there is nothing to bound
    """Return the result of an answer, as it came.

    Raises:
        RpcError: it is an error.
    """
    if answer.error is not None:
        raise error_of(answer.error)
    return answer.result


def finishing(wire_name: str, wanted: Planned) -> Finish:
    """Return what makes results of a type of the answers to a method.

    It raises the RpcError that an answer tells of, and InvalidResult where the result does not fit; what came with
    such a result is closed.

    Args:
        wire_name: the method's.
        wanted: the type, planned.
    """
    if wanted.kind is Any:
        return result_of
    exact = exact_type(wanted.shape)

    def finish(answer: Response, limits: Limits) -> Any:
        result = answer.result
        if answer.error is None and type(result) is exact:
            return result
        if answer.error is not None:
            raise error_of(answer.error)
        try:
            return convert(result, wanted, Terms(InvalidResult, limits.max_other_keys))
        except Exception as exc:  # types of the application's own raise what they like while they are built
            close_all(answer.fds)
            text = f"{wire_name} answered what does not fit its annotation: {exc}"
            raise InvalidResult(text) from cause_to_tell(exc)  # in no variable: it would hold itself, and the answer

    return finish
