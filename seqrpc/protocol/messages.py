"""The kinds of messages (protocol section 2), checked for shape as they come in.

On the way out a message is a plain tuple (:data:`REQUEST` first, and so on): it costs nothing to make.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from seqrpc.errors import RemoteProtocolError, RpcError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.text import shown

REQUEST: Final = 0
RESPONSE: Final = 1
NOTIFY: Final = 2
CANCEL: Final = 3
SPILLED: Final = 4
CLOSING: Final = 5

LAST_KIND: Final = CLOSING
_SIZES: Final = {REQUEST: (4, 5), RESPONSE: (4,), NOTIFY: (3, 4), CANCEL: (2,), SPILLED: (2, 3), CLOSING: (2,)}
"""How many elements a message of each kind has."""

MAX_CALL_ID: Final = 0xFFFF_FFFF

# What the parts of a message are called in errors.
REQUEST_NAMES: Final = ("kind", "id", "method", "params", "options")
RESPONSE_NAMES: Final = ("kind", "id", "error", "result")
NOTIFY_NAMES: Final = ("kind", "method", "params", "options")

Params = tuple[Any, ...] | list[Any] | dict[str, Any]
"""The arguments of a call as they are sent: by position or by name."""


class Options(msgspec.Struct, frozen=True, gc=False):
    """What may come with a request: its deadline (``CLOCK_MONOTONIC``, nanoseconds) and metadata."""

    deadline: int | None = None
    meta: dict[str, str] | None = None


NO_OPTIONS: Final = Options()


class Request(msgspec.Struct, eq=False, gc=False):
    """REQUEST, or NOTIFY with ``call_id`` None. ``fds`` are the receiver's to close when it is done.

    ``held_bytes`` is what it keeps in memory besides a packet: how long it was if it was longer than one, and copies of
    buffers that cannot be mapped. ``is_plain``: it is known to want an answer and to have neither options nor
    descriptors, and to have been short.
    """

    call_id: int | None
    method: str
    params: list[Any] | dict[str, Any]
    options: Options
    fds: list[OwnedFd]
    held_bytes: int = 0
    is_plain: bool = False

    def __repr__(self) -> str:
        """Return which method is called, and nothing of its arguments: this may be logged."""
        return f"<Request {self.call_id} of {shown(self.method)}>"


class Response(msgspec.Struct, eq=False, gc=False):
    """RESPONSE: ``error`` is as :func:`error_of` takes it, or None and ``result`` holds. ``fds`` are the receiver's.

    ``waiter`` is what was given with the request that it answers; whoever keeps the answer there takes it out first.
    """

    call_id: int
    error: list[Any] | None
    result: Any
    fds: list[OwnedFd]
    waiter: Any = None


def error_of(error: list[Any]) -> RpcError:
    """Return the exception that ``[code, message, data]`` of a :class:`Response` stands for.

    One that this side made, of an answer that it cannot take, has a fourth part: that the call ran.
    """
    exc = RpcError.from_wire(error[0], error[1], error[2])
    if len(error) > 3:
        exc.execution = error[3]
    return exc


class Cancel(msgspec.Struct, eq=False):
    """CANCEL."""

    call_id: int


class Closing(msgspec.Struct, eq=False):
    """CLOSING."""

    reason: str


class Spilled(msgspec.Struct, eq=False):
    """SPILLED: the message is in the memory file that came with it. ``call_id`` is known if its sender wrote it."""

    length: int
    call_id: int | None


Message = Request | Response | Cancel | Closing


def kind_of(value: Any) -> int:
    """Return the kind of a decoded packet.

    Raises:
        RemoteProtocolError: it is no array that begins with an unsigned integer.
    """
    if type(value) is not list or not value:
        raise RemoteProtocolError(f"malformed message: an array with a kind was expected, got {_show(value)}")
    kind: Any = value[0]
    if type(kind) is not int or kind < 0:
        raise RemoteProtocolError(f"malformed message: a kind is an unsigned integer, got {_show(kind)}")
    return kind


def parse(kind: int, value: list[Any], fds: list[OwnedFd]) -> Message:
    """Return the message that a decoded packet of a known kind is.

    Raises:
        RemoteProtocolError: its shape is not that of its kind; the message names the place.
    """
    size = len(value)
    if kind == REQUEST:
        check_size(kind, size)
        options = NO_OPTIONS if size == 4 else _options(value[4])
        return Request(check_call_id(value[1]), check_method(value[2]), _params(value[3]), options, fds)
    if kind == RESPONSE:
        check_size(kind, size)
        return Response(check_call_id(value[1]), _error(value[2], value[3]), value[3], fds)
    return _parse_rare(kind, value, fds)


def _parse_rare(kind: int, value: list[Any], fds: list[OwnedFd]) -> Message:
    check_size(kind, len(value))
    if kind == NOTIFY:
        options = NO_OPTIONS if len(value) == 3 else _options(value[3])
        return Request(None, check_method(value[1]), _params(value[2]), options, fds)
    if kind == CANCEL:
        return Cancel(check_call_id(value[1]))
    if kind == CLOSING:
        if type(value[1]) is not str:
            raise _malformed(f"the reason of CLOSING is a string, got {_show(value[1])}")
        return Closing(value[1])
    raise RemoteProtocolError("malformed message: a spilled message inside a spilled message")


def check_size(kind: int, size: int) -> None:
    """Check how many elements a message has.

    Raises:
        RemoteProtocolError: its kind has more or fewer.
    """
    if size not in _SIZES[kind]:
        raise _malformed(f"a message of kind {kind} has {' or '.join(map(str, _SIZES[kind]))} elements, got {size}")


def parse_spilled(value: list[Any]) -> Spilled:
    """Return the SPILLED that a decoded packet is (protocol 5.1).

    Raises:
        RemoteProtocolError: its shape is not that of SPILLED.
    """
    check_size(SPILLED, len(value))
    length = value[1]
    if type(length) is not int or length < 1:
        raise _malformed(f"the length of a message is a positive integer, got {_show(length)}")
    return Spilled(length, None if len(value) == 2 else check_call_id(value[2]))


def check_call_id(value: Any) -> int:
    """Return an id.

    Raises:
        RemoteProtocolError: it is none.
    """
    if type(value) is not int or not 0 <= value <= MAX_CALL_ID:
        raise _malformed(f"an id is an unsigned 32-bit integer, got {_show(value)}")
    return value


def check_method(value: Any) -> str:
    """Return the name of a method.

    Raises:
        RemoteProtocolError: it is none.
    """
    if type(value) is not str:
        raise _malformed(f"a method is a string, got {_show(value)}")
    return value


def _params(value: Any) -> list[Any] | dict[str, Any]:
    if type(value) is list:
        return value
    if type(value) is not dict:
        raise _malformed(f"params are an array or a map, got {_kind_of(value)}")
    _check_keys(value, "params")
    return value


def _error(error: Any, result: Any) -> list[Any] | None:
    if error is not None and result is not None:
        raise _malformed("a RESPONSE has an error or a result, not both")
    return error_parts(error)


def error_parts(error: Any) -> list[Any] | None:
    """Return ``[code, message, data]``, or None for no error.

    Raises:
        RemoteProtocolError: it is neither.
    """
    if error is None:
        return None
    if type(error) is not list or len(error) != 3:
        raise _malformed(f"an error is [code, message, data], got {_show(error)}")
    if type(error[0]) is not str or type(error[1]) is not str:
        raise _malformed(f"an error's code and message are strings, got {_show(error[:2])}")
    return error


def _options(value: Any) -> Options:
    if type(value) is not dict:
        raise _malformed(f"options are a map, got {_show(value)}")
    _check_keys(value, "options")
    deadline = value.get("deadline")
    if type(deadline) is not int and "deadline" in value:
        raise _malformed(f"a deadline is an integer, got {_show(deadline)}")
    meta = value.get("meta")
    if "meta" in value:
        if type(meta) is not dict:
            raise _malformed(f"meta is a map, got {_show(meta)}")
        _check_keys(meta, "meta")
        for item in meta.values():
            if type(item) is not str:
                raise _malformed(f"meta holds strings, got {_show(item)}")
    return Options(deadline, meta)


def _check_keys(value: dict[Any, Any], name: str) -> None:
    for key in value:
        if type(key) is not str:
            raise _malformed(f"the keys of {name} are strings, got {_kind_of(key)}")


def _malformed(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed message: {reason}")


def _show(value: Any) -> str:
    """Return what stands in place of what is expected: a number as it is, and of a text nothing: it may be secret."""
    if isinstance(value, int | float | None):
        return repr(value)
    return _kind_of(value)


def _kind_of(value: Any) -> str:
    """Return of what kind a value is, and not which."""
    if isinstance(value, list | tuple | dict):
        return f"{'a map' if isinstance(value, dict) else 'an array'} of {len(value)}"
    if isinstance(value, OwnedFd):
        return "a descriptor"
    return f"`{type(value).__name__}`"
