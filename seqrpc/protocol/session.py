"""Who called what, and what is still owed, in both directions. No socket, no clock, no event loop.

A session knows no roles: both ends of a connection have one of the same class. What is received comes
back as a message for whoever carries the session; what is to be sent comes back as a packet.

    state of an id that this side made up          free → (send_request) → in flight → (Response) → free
    state of an id that the other side made up     free → (Request) → in flight → (send_result, send_error) → free

``closing_sent`` and ``closing_received`` end the first step of either (protocol 2.8).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from seqrpc.errors import LocalProtocolError, RemoteProtocolError, RpcError, TooLarge
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol import messages
from seqrpc.protocol.codec import Codec
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
    Cancel,
    Closing,
    Message,
    Request,
    Response,
)

Waiter = TypeVar("Waiter")

Packet = tuple[bytes, list[HasFileno]]
"""Bytes to send, and what lends the descriptors to send with them, in order."""

_ERROR_TEXT = 1_000  # characters that are kept of a text when the whole of it cannot be sent


class Answer(msgspec.Struct, Generic[Waiter], eq=False, gc=False):
    """The answer of one of this side's calls, with what ``send_request`` was given for it."""

    waiter: Waiter
    response: Response


class Refused(msgspec.Struct, eq=False):
    """A request that is to be answered with an error at once: ``send_error(call_id, code, message)``."""

    call_id: int
    code: str
    message: str


class Session(Generic[Waiter]):
    """One end of a connection.

    Args:
        limits: ``max_depth`` and ``max_calls_in_flight`` are used.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Begin with nothing in flight."""
        self._codec = Codec(limits)
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

    def receive_packet(
        self, data: bytes, fds: list[OwnedFd], *, lost: bool = False
    ) -> Request | Answer[Waiter] | Cancel | Closing | Refused | None:
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
        try:
            value, problem = self._codec.decode(data, fds)
            if problem is None and not lost and type(value) is list and len(value) == 4:
                # Nearly all packets are one of these two; what is out of the ordinary in any way is looked at closely.
                kind, call_id, third, fourth = value
                if type(kind) is not int or type(call_id) is not int:
                    pass
                elif kind == RESPONSE and third is None and call_id in self.calls:
                    return Answer(self.calls.pop(call_id), Response(call_id, None, fourth, fds))
                elif kind == REQUEST and type(third) is str and type(fourth) is list and self._takes(call_id):
                    self.requests.add(call_id)
                    return Request(call_id, third, fourth, NO_OPTIONS, fds)
            return self._look_closely(value, fds, problem, lost=lost)
        except BaseException:
            close_all(fds)
            raise

    def _takes(self, call_id: int) -> bool:
        requests = self.requests
        if self.closing_sent or len(requests) >= self._max_calls:
            return False
        return 0 <= call_id <= MAX_CALL_ID and call_id not in requests

    def _look_closely(
        self, value: Any, fds: list[OwnedFd], problem: str | None, *, lost: bool
    ) -> Request | Answer[Waiter] | Cancel | Closing | Refused | None:
        kind = messages.kind_of(value)
        if kind > LAST_KIND:  # unknown kinds are ignored (protocol 1.4)
            close_all(fds)
            return None
        if problem is not None and not lost:
            raise RemoteProtocolError(f"malformed message: {problem}")
        message = messages.parse(kind, value, fds)
        if isinstance(message, Response):
            return self._receive_response(message, lost=lost)
        if isinstance(message, Request):
            return self._receive_request(message, lost=lost)
        return self._receive_rare(message)

    def _receive_rare(self, message: Message) -> Cancel | Closing | None:
        if isinstance(message, Cancel):
            return message if message.call_id in self.requests else None
        assert isinstance(message, Closing)
        if self.closing_received is None:
            self.closing_received = message.reason
        return message

    def _receive_request(self, message: Request, *, lost: bool) -> Request | Refused | None:
        call_id = message.call_id
        if call_id is None:
            refused = lost or self.closing_sent
        else:
            if call_id in self.requests:
                raise RemoteProtocolError(f"malformed message: a REQUEST with id {call_id} is in flight already")
            self.requests.add(call_id)
            refused = lost or self.closing_sent or len(self.requests) > self._max_calls
        if not refused:
            return message
        close_all(message.fds)
        return None if call_id is None else self._refuse(call_id, lost=lost)

    def _refuse(self, call_id: int, *, lost: bool) -> Refused:
        if lost:
            return Refused(call_id, "rpc.DescriptorsLost", "descriptors of the request were lost on the way in")
        if self.closing_sent:
            return Refused(call_id, "rpc.Unavailable", "this side takes no new requests")
        return Refused(call_id, "rpc.Overloaded", f"more than {self._max_calls} calls of this connection are in flight")

    def _receive_response(self, message: Response, *, lost: bool) -> Answer[Waiter] | None:
        try:
            waiter = self.calls.pop(message.call_id)
        except KeyError:  # it answers a call that was given up, or none
            self.given_up.discard(message.call_id)
            close_all(message.fds)
            return None
        if lost:
            error = ["rpc.DescriptorsLost", "descriptors of the answer were lost on the way in", None]
            message = Response(message.call_id, error, None, message.fds)
        return Answer(waiter, message)

    def send_request(
        self,
        waiter: Waiter,
        method: str,
        params: tuple[Any, ...] | list[Any] | dict[str, Any],
        options: dict[str, Any] | None = None,
    ) -> tuple[int, Packet]:
        """Begin a call; return its id and its packet. ``waiter`` comes back with its :class:`Answer`.

        Raises:
            LocalProtocolError, TooLarge: it cannot be sent; nothing has changed.
        """
        call_id, calls = self._next_id, self.calls
        while call_id in calls or call_id in self.given_up:
            call_id = (call_id + 1) & MAX_CALL_ID
        message = (REQUEST, call_id, method, params, options) if options else (REQUEST, call_id, method, params)
        packet = self._codec.encode(message, REQUEST_NAMES)
        self._next_id = (call_id + 1) & MAX_CALL_ID
        calls[call_id] = waiter
        return call_id, packet

    def send_notify(
        self,
        method: str,
        params: tuple[Any, ...] | list[Any] | dict[str, Any],
        options: dict[str, Any] | None = None,
    ) -> Packet:
        """Return the packet of a call that wants no answer.

        Raises:
            LocalProtocolError, TooLarge: it cannot be sent.
        """
        message = (NOTIFY, method, params, options) if options else (NOTIFY, method, params)
        return self._codec.encode(message, NOTIFY_NAMES)

    def send_cancel(self, call_id: int) -> Packet | None:
        """Give up a call; return the packet that says so, or None if it was answered already."""
        if self.calls.pop(call_id, None) is None:
            return None
        self.given_up.add(call_id)
        return self._codec.encode((CANCEL, call_id))

    def send_result(self, call_id: int, result: Any) -> Packet:
        """Answer a request of the other side.

        Raises:
            LocalProtocolError, TooLarge: the result cannot be sent; the request is still in flight.
        """
        packet = self._codec.encode((RESPONSE, call_id, None, result), RESPONSE_NAMES)
        self.requests.discard(call_id)
        return packet

    def send_error(self, call_id: int, code: str, message: str, data: Any = None) -> Packet:
        """Answer a request of the other side with an error; never fails.

        What cannot be sent of it is left out: first ``data``, then most of the message.
        """
        self.requests.discard(call_id)
        for error in ((code, message, data), (code, message, None)):
            try:
                return self._codec.encode((RESPONSE, call_id, error, None), RESPONSE_NAMES)
            except (LocalProtocolError, TooLarge):
                continue
        return self._codec.encode((RESPONSE, call_id, (_sendable(code), _sendable(message), None), None))

    def send_closing(self, reason: str) -> Packet | None:
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
