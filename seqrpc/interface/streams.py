"""What a stream is to those who check what is in it: the base of the reading ends, with a loop and without."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from seqrpc.protocol.received import ItemCheck

T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound="ReceivedStream[Any]")


class ReceivedStream(Generic[T_co]):
    """Base of the reading ends of streams: a class of this kind is an annotation as ``AsyncIterator`` is."""

    def _checked(self, check: ItemCheck) -> None:
        """Let ``check`` convert the items from now on, several at a time."""
        raise NotImplementedError


def checked(stream: S, check: ItemCheck) -> S:
    """Let ``check`` convert the items of a stream from now on, several at a time; return the stream itself."""
    stream._checked(check)  # noqa: SLF001 - for this function only: users see no such method
    return stream
