"""Who called what, and what is still owed, in both directions. No socket, no clock, no event loop.

A session knows no roles: both ends of a connection have one of the same class. What is received comes
back as a message for whoever carries the session; what is to be sent comes back as a packet.

    state of an id that this side made up          free → (send_request) → in flight → (Response) → free
    state of an id that the other side made up     free → (Request) → in flight → (send_result, send_error) → free

``closing_sent`` and ``closing_received`` end the first step of either (protocol 2.8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from seqrpc.errors import (
    DescriptorsLost,
    LocalProtocolError,
    Overloaded,
    PermissionDenied,
    RemoteProtocolError,
    RpcError,
    TooLarge,
)
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, MAX_PACKET, Limits
from seqrpc.protocol import messages
from seqrpc.protocol.codec import Codec, Encoded, Packed, head_of, unpack_plain
from seqrpc.protocol.messages import (
    CANCEL,
    CLOSING,
    LAST_KIND,
    MAX_CALL_ID,
    NO_OPTIONS,
    NOTIFY,
    NOTIFY_NAMES,
    REQUEST,
    REQUEST_NAMES,
    RESPONSE,
    RESPONSE_NAMES,
    SPILLED,
    Cancel,
    Closing,
    Message,
    Request,
    Response,
    Spilled,
)
from seqrpc.protocol.pieces import has_long_bytes
from seqrpc.protocol.spilled import head_of_spilled, peek_spilled, read_spilled
from seqrpc.protocol.values import Living

Waiter = TypeVar("Waiter")

_ARRAY_OF_FOUR = 0x94  # how nearly all packets begin

_ERROR_TEXT = 1_000  # characters that are kept of a text when the whole of it cannot be sent


class Refused(msgspec.Struct, eq=False):
    """A request that is to be answered with an error at once: ``send_error(call_id, code, message)``."""

    call_id: int
    code: str
    message: str


class Session(Generic[Waiter]):
    """One end of a connection.

    Args:
        limits: ``max_calls_in_flight``, ``max_message_bytes`` and the codec's are used.
        living: what streams and channels are here.
    """

    __slots__ = (
        "_codec", "_max_bytes", "_max_calls", "_next_id", "_short", "_was_asked", "admits", "calls",
        "closing_received", "closing_sent", "given_up", "requests",
    )  # fmt: skip

    def __init__(self, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Begin with nothing in flight."""
        self._codec = Codec(limits, living)
        self._short = limits.max_depth  # bytes of a packet that has no room for anything deeper
        self._max_bytes = limits.max_message_bytes
        self.admits: Callable[[str], bool] = bool
        """Whether whoever sent the packet that is being received may call a method: asked before a long message is
        read. By default, any but the one without a name."""
        self._was_asked = False  # whether the other side ever sent a request
        self._max_calls = limits.max_calls_in_flight
        self._next_id = 0
        self.calls: dict[int, Waiter] = {}
        """This side's calls in flight, by id."""
        self.given_up: set[int] = set()
        """The ids of those that were given up and are not yet answered: to the other side they are in flight."""
        self.requests: set[int] = set()
        """The ids of the other side's calls in flight."""
        self.closing_sent = False
        self.closing_received: str | None = None
        """The reason for which the other side takes no new requests, or None."""

    @property
    def on_work(self) -> Callable[[], object]:
        """Called where receiving takes longer than the length of a packet tells."""
        return self._codec.on_work

    @on_work.setter
    def on_work(self, function: Callable[[], object]) -> None:
        self._codec.on_work = function

    def receive_packet(
        self, data: bytes, fds: list[OwnedFd], *, lost: bool = False
    ) -> Request | Response | Cancel | Closing | Refused | None:
        """Take one packet and return what it asks for; None if it asks for nothing.

        The session takes ``fds``: it closes those of ignored and malformed packets, the others belong to
        the message that is returned.

        Args:
            data: the packet.
            fds: the descriptors that came with it.
            lost: descriptors were lost on the way; ``fds`` is then empty (protocol 3.3).

        Raises:
            RemoteProtocolError: the packet is malformed: send CLOSING, close the connection.
        """
        # Nearly all packets are one of two kinds; what is out of the ordinary in any way is looked at closely.
        if fds or lost or (len(data) > self._short and not self._codec.is_shallow(data)):
            return self._receive_closely(data, fds, lost=lost)
        try:
            value = unpack_plain(data)
        except Exception:  # the long way tells what is wrong, or what else is in it
            return self._receive_closely(data, fds, lost=lost)
        if data[0] == _ARRAY_OF_FOUR:
            _kind, call_id, third, fourth = value
            kind = data[1]  # as it is written: True and 0.0 are no kinds
            if type(call_id) is not int:
                pass
            elif kind == RESPONSE:
                if third is None:
                    waiter = self.calls.pop(call_id, None)
                    if waiter is not None:
                        return Response(call_id, None, fourth, fds, waiter)
            elif kind == REQUEST and type(third) is str and type(fourth) is list and not self.closing_sent:
                requests = self.requests
                if call_id not in requests and len(requests) < self._max_calls and 0 <= call_id <= MAX_CALL_ID:
                    requests.add(call_id)
                    self._was_asked = True
                    return Request(call_id, third, fourth, NO_OPTIONS, fds, 0, True)
        return self._receive_value(value, fds, None, lost=lost)

    def _receive_closely(
        self, data: bytes, fds: list[OwnedFd], *, lost: bool
    ) -> Request | Response | Cancel | Closing | Refused | None:
        """Take any packet; ``lost`` says that descriptors of it were lost, and ``fds`` is empty."""
        try:
            value, problem = self._codec.decode(data, fds)
        except BaseException:
            close_all(fds)
            raise
        return self._receive_value(value, fds, problem, lost=lost)

    def _receive_value(
        self, value: Any, fds: list[OwnedFd], problem: str | RpcError | None, *, lost: bool
    ) -> Request | Response | Cancel | Closing | Refused | None:
        """Take what a packet holds."""
        try:
            if type(value) is list and value and value[0] == SPILLED and type(value[0]) is int:
                return self._receive_spilled(messages.parse_spilled(value), fds, lost=lost)
            return self._look_closely(value, fds, problem, lost=lost)
        except BaseException:
            close_all(fds)
            raise

    def _look_closely(
        self, value: Any, fds: list[OwnedFd], problem: str | RpcError | None, *, lost: bool
    ) -> Request | Response | Cancel | Closing | Refused | None:
        kind = messages.kind_of(value)
        if kind > LAST_KIND:  # unknown kinds are ignored (protocol 1.4)
            close_all(fds)
            return None
        if isinstance(problem, str) and not lost:
            raise RemoteProtocolError(f"malformed message: {problem}")
        message = messages.parse(kind, value, fds)
        error = problem if isinstance(problem, RpcError) else None
        if lost:
            error = DescriptorsLost("descriptors of the message were lost on the way in")
        if isinstance(message, Response):
            return self._receive_response(message, error)
        if isinstance(message, Request):
            return self._receive_request(message, error)
        return self._receive_rare(message)

    def _receive_spilled(
        self, spilled: Spilled, fds: list[OwnedFd], *, lost: bool
    ) -> Request | Response | Cancel | Closing | Refused | None:
        """Read a message from its memory file, or answer, or fail, the one call that it belongs to."""
        length = spilled.length
        self.on_work()
        if length > self._max_bytes:
            bound = f"a message has at most {self._max_bytes} bytes here (max_message_bytes), this one {length}"
            return self._give_up_spilled(spilled, fds, TooLarge(bound))
        if lost:
            error = DescriptorsLost("the memfd of the message was lost on the way in")
            return self._give_up_spilled(spilled, fds, error)
        kind, call_id, method = peek_spilled(length, fds)
        if method is not None and not self.admits(method):
            return self._refuse_unread(call_id, method, fds)
        if kind > LAST_KIND or (kind == RESPONSE and call_id not in self.calls):
            self.given_up.discard(-1 if call_id is None else call_id)
            close_all(fds)  # nobody wants to know what is in it
            return None
        if kind in (CANCEL, CLOSING, SPILLED) and length > MAX_PACKET:
            raise RemoteProtocolError(f"malformed message: one of kind {kind} has {length} bytes")
        try:
            value, problem = read_spilled(self._codec, length, fds)
        except (Overloaded, TooLarge) as exc:
            return self._give_up_spilled(spilled, fds, exc)
        event = self._look_closely(value, fds, problem, lost=False)
        if isinstance(event, Request):
            event.spilled_bytes = length
        return event

    def _refuse_unread(self, call_id: int | None, method: str, fds: list[OwnedFd]) -> Refused | None:
        """Refuse a caller who is not admitted, before a long message is read."""
        close_all(fds)
        if call_id is not None and not 0 <= call_id <= MAX_CALL_ID:
            raise RemoteProtocolError(f"malformed message: an id is an unsigned 32-bit integer, got {call_id}")
        request = Request(call_id, method, [], NO_OPTIONS, [])
        error = PermissionDenied(f"{method}: this caller is not admitted")
        return self._receive_request(request, error)  # type: ignore[return-value] # it is refused

    def _give_up_spilled(self, spilled: Spilled, fds: list[OwnedFd], error: RpcError) -> Response | Refused | None:
        """Pass on why a message is not read (protocol 5.2).

        Raises:
            RemoteProtocolError: nobody can be told, for it is not known whose message it is.
        """
        kind, call_id = head_of_spilled(spilled.length, fds) or self._guess(spilled.call_id)
        close_all(fds)
        if kind == RESPONSE:
            return self._receive_response(Response(call_id, None, None, []), error)
        if kind == REQUEST and 0 <= call_id <= MAX_CALL_ID:
            return self._receive_request(Request(call_id, "", [], NO_OPTIONS, []), error)  # type: ignore[return-value] # it is refused
        raise RemoteProtocolError(f"a spilled message that was not read: {error.message}")

    def _guess(self, call_id: int | None) -> tuple[int, int]:
        """Return the kind that a message of this id must have, and the id; (-1, -1) if that cannot be known.

        The wire does not say whether the id is of a request or of a response; both may be in flight.
        """
        may_answer = call_id in self.calls or call_id in self.given_up
        if call_id is None or (may_answer and self._was_asked and call_id not in self.requests):
            return -1, -1
        return (RESPONSE if may_answer else REQUEST), call_id

    def _receive_rare(self, message: Message) -> Cancel | Closing | None:
        if isinstance(message, Cancel):
            return message if message.call_id in self.requests else None
        assert isinstance(message, Closing)
        if self.closing_received is None:
            self.closing_received = message.reason
        return message

    def _receive_request(self, message: Request, error: RpcError | None) -> Request | Refused | None:
        """Take a request, or refuse it: because of ``error``, or because no more are taken."""
        call_id = message.call_id
        if call_id is not None:
            if call_id in self.requests:
                raise RemoteProtocolError(f"malformed message: a REQUEST with id {call_id} is in flight already")
            self.requests.add(call_id)
            self._was_asked = True
        if error is None and not self.closing_sent and len(self.requests) <= self._max_calls:
            return message
        close_all(message.fds)
        if call_id is None:
            return None
        if error is not None:
            return Refused(call_id, error.code, error.message)
        if self.closing_sent:
            return Refused(call_id, "rpc.Unavailable", "this side takes no new requests")
        return Refused(call_id, "rpc.Overloaded", f"more than {self._max_calls} calls of this connection are in flight")

    def _receive_response(self, message: Response, error: RpcError | None) -> Response | None:
        """Take an answer; with ``error`` its call fails with that instead."""
        try:
            waiter = self.calls.pop(message.call_id)
        except KeyError:  # it answers a call that was given up, or none
            self.given_up.discard(message.call_id)
            close_all(message.fds)
            return None
        if error is not None:
            close_all(message.fds)
            message = Response(message.call_id, [error.code, error.message, None], None, message.fds)
        message.waiter = waiter
        return message

    def send_request(
        self,
        waiter: Waiter,
        method: str,
        params: tuple[Any, ...] | list[Any] | dict[str, Any],
        options: dict[str, Any] | None = None,
    ) -> tuple[int, Packed]:
        """Begin a call; return its id and its packet. ``waiter`` comes back with its :class:`Response`.

        Raises:
            LocalProtocolError, TooLarge: it cannot be sent; nothing has changed.
        """
        call_id, calls = self._next_id, self.calls
        while call_id in calls or call_id in self.given_up:
            call_id = (call_id + 1) & MAX_CALL_ID
        message = (REQUEST, call_id, method, params, options) if options else (REQUEST, call_id, method, params)
        if (bytes in map(type, params) or type(params) is dict) and has_long_bytes(params):
            packet: Packed = self._codec.encode_in_pieces(message, REQUEST_NAMES)
        else:
            packet = self._codec.encode(message, REQUEST_NAMES)
        self._next_id = call_id + 1 if call_id < MAX_CALL_ID else 0
        calls[call_id] = waiter
        return call_id, packet

    def send_notify(
        self,
        method: str,
        params: tuple[Any, ...] | list[Any] | dict[str, Any],
        options: dict[str, Any] | None = None,
    ) -> Packed:
        """Return the packet of a call that wants no answer.

        Raises:
            LocalProtocolError, TooLarge: it cannot be sent.
        """
        message = (NOTIFY, method, params, options) if options else (NOTIFY, method, params)
        if has_long_bytes(params):
            return self._codec.encode_in_pieces(message, NOTIFY_NAMES)
        return self._codec.encode(message, NOTIFY_NAMES)

    def send_cancel(self, call_id: int) -> Packed | None:
        """Give up a call; return the packet that says so, or None if it was answered already."""
        if self.calls.pop(call_id, None) is None:
            return None
        self.given_up.add(call_id)
        return self._codec.encode((CANCEL, call_id))

    def send_result(self, call_id: int, result: Any) -> Packed:
        """Answer a request of the other side.

        Raises:
            LocalProtocolError, TooLarge: the result cannot be sent; the request is still in flight.
        """
        if type(result) is bytes and len(result) > MAX_PACKET:
            packet: Packed = self._codec.encode_in_pieces((RESPONSE, call_id, None, result), RESPONSE_NAMES)
        else:
            packet = self._codec.encode((RESPONSE, call_id, None, result), RESPONSE_NAMES)
        self.requests.discard(call_id)
        return packet

    def send_error(self, call_id: int, code: str, message: str, data: Any = None) -> Packed:
        """Answer a request of the other side with an error; never fails.

        What cannot be sent of it is left out: first ``data``, then most of the message.
        """
        self.requests.discard(call_id)
        for error in ((code, message, data), (code, message, None)):
            try:
                return self._codec.encode((RESPONSE, call_id, error, None), RESPONSE_NAMES)
            except (LocalProtocolError, RpcError):
                continue
        return self._codec.encode((RESPONSE, call_id, (_sendable(code), _sendable(message), None), None))

    def spill(self, data: Encoded) -> bytes:
        """Return the packet that goes, with a memory file of it, in place of an encoded message (protocol 5.1)."""
        head = head_of(data)
        known = head is not None and head[0] in (REQUEST, RESPONSE)
        message = (SPILLED, len(data), head[1]) if head is not None and known else (SPILLED, len(data))
        return bytes(self._codec.encode(message)[0])

    def send_closing(self, reason: str) -> Packed | None:
        """Return the packet that says that this side takes no new requests, or None if it was sent before."""
        if self.closing_sent:
            return None
        self.closing_sent = True
        return self._codec.encode((CLOSING, _sendable(reason)))

    def lose(self) -> list[Waiter]:
        """End: return what was given for the calls that will not be answered, and forget all ids."""
        waiters = list(self.calls.values())
        self.calls.clear()
        self.given_up.clear()
        self.requests.clear()
        return waiters


def _sendable(text: str) -> str:
    """Return the beginning of ``text``, with what is not UTF-8 (file names may hold it) escaped."""
    return text[:_ERROR_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")


def error_of(error: list[Any]) -> RpcError:
    """Return the exception that ``[code, message, data]`` of a :class:`Response` stands for."""
    return RpcError.from_wire(error[0], error[1], error[2])
