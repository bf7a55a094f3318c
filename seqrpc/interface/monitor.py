"""Calls as they pass: the shape of what ``rpc.monitor`` tells of each, and the service that gives it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final, Protocol

import msgspec

from seqrpc.interface.annotations import is_sensitive
from seqrpc.interface.description import MethodDescription
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
from seqrpc.text import shown

MOST_NAMES: Final = 1_000
"""The most methods that one watcher may choose."""

MOST_OF_ARGUMENTS: Final = 300
"""The most characters that are told of the arguments of a call."""

_MOST_OF_ONE: Final = 80  # characters of a text, or bytes
_MOST_ITEMS: Final = 8
_DEEPEST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """A request that has ended. There are no results, messages of errors and metadata in it."""

    method: str | None
    """Its name on the wire as the caller wrote it, cut after 200 characters; None where the message was lost before its
    method was read."""

    uid: int | None
    """The user who called, by the kernel's word; None where that does not say."""

    gid: int | None
    """The group; None as for ``uid``."""

    pid: int | None
    """The process; None as for ``uid``."""

    began: float
    """When it came, in seconds of ``time.monotonic()`` (``CLOCK_MONOTONIC``), as all processes of a machine have it."""

    duration: float
    """Seconds until it was answered, as in ``rpc.stats``: of a stream until it was handed out; 0.0 where no handler
    ran."""

    code: str | None
    """Of the error that it was answered with; None if it succeeded."""

    refused: bool
    """Whether no handler ran."""

    oneway: bool
    """Whether the caller wanted no answer."""

    arguments: str | None
    """What it was called with, in short, for people, as it is when the call ends: only of services that allow it
    (``class Logs(seqrpc.Service, show_arguments=True)``) and of calls that ran, and never what is sensitive."""

    missed: int
    """How many calls before this one were left out, because the watcher did not keep up."""


class Watch(Protocol):
    """The calls that one watcher wants to hear of."""

    async def next(self) -> CallEvent | None:
        """Wait for the next; None: there will be no more."""
        ...

    def close(self) -> None:
        """Watch no more."""
        ...


Begins = Callable[[Sequence[str], int | None], Watch]
"""Begins to watch methods, or all if there are none, called by a user, or by all."""


class Monitor(Service):
    """Tells of calls as they pass: ``async for event in connection.proxy(seqrpc.oversight.Monitor).monitor(): ...``.

    Args:
        begin: begins to watch.
    """

    def __init__(self, begin: Begins) -> None:
        """Have watches begun by ``begin``."""
        self._begin = begin

    @method
    async def monitor(
        self, methods: Annotated[list[str], msgspec.Meta(max_length=MOST_NAMES)] | None = None, uid: int | None = None
    ) -> AsyncIterator[CallEvent]:
        """Tell of each request that ends, from now on. The same user and root may ask.

        Who does not read as fast as calls end is told how many it missed. The stream ends when the server stops.

        Args:
            methods: names on the wire, ``Service.method``, or ``Service`` for all of a service; None: all.
            uid: of whose calls; None: of all users.
        """
        watch = self._begin(methods or (), uid)
        try:
            while (event := await watch.next()) is not None:
                yield event
        finally:
            watch.close()


Monitor.service_name = "rpc"


def told_arguments(description: MethodDescription, params: Sequence[Any] | dict[str, Any]) -> str:
    """Return the arguments of a call in short, each with its name, as they came; what is sensitive is left out.

    It takes no more time for large arguments than for small ones.
    """
    parameters = description.parameters
    sensitive = {each.name for each in parameters if is_sensitive(each.shape)}
    if isinstance(params, dict):
        given = {name: params[name] for name in [each.name for each in parameters] if name in params}
    else:
        given = dict(zip([each.name for each in parameters], params, strict=False))
    told = [f"{name}={'...' if name in sensitive else _told_somehow(value)}" for name, value in given.items()]
    return shown(", ".join(told), MOST_OF_ARGUMENTS)


def _told_somehow(value: Any) -> str:
    """Return an argument in short, whatever the handler has made of it, and still does in a thread of its own."""
    try:
        return _told(value, 0)
    except Exception:  # an integer of 5,000 digits, memory that was released, a dict that grows meanwhile
        return f"<{type(value).__name__}>"


def _told(value: Any, depth: int) -> str:
    """Return a value in short; of what is not made of plain values only the name of its class."""
    kind = type(value)
    if value is None or kind in (bool, int, float):
        return repr(value)
    if kind is str:
        return repr(value) if len(value) <= _MOST_OF_ONE else f"{value[:_MOST_OF_ONE]!r}..."
    if kind in (bytes, bytearray, memoryview):
        return f"<{len(value)} bytes>"
    if kind not in (list, tuple, dict):
        return f"<{kind.__name__}>"
    return _told_mapping(value, depth) if kind is dict else _told_sequence(value, depth)


def _told_mapping(value: dict[Any, Any], depth: int) -> str:
    if depth == _DEEPEST:
        return "{...}"
    told = [f"{_told(key, depth + 1)}: {_told(value[key], depth + 1)}" for key in islice(value, _MOST_ITEMS)]
    return "{" + ", ".join([*told, "..."] if len(value) > _MOST_ITEMS else told) + "}"


def _told_sequence(value: Sequence[Any], depth: int) -> str:
    if depth == _DEEPEST:
        return "[...]"
    told = [_told(item, depth + 1) for item in value[:_MOST_ITEMS]]
    return "[" + ", ".join([*told, "..."] if len(value) > _MOST_ITEMS else told) + "]"
