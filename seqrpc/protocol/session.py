"""Who called what, and what is still owed, in both directions. No socket, no clock, no event loop.

A session knows no roles: both ends of a connection have one of the same class. What is received comes
back as a message for whoever carries the session; what is to be sent comes back as a packet.

    state of an id that this side made up          free → (send_request) → in flight → (Response) → free
    state of an id that the other side made up     free → (Request) → in flight → (send_result, send_error) → free

``closing_sent`` and ``closing_received`` end the first step of either (protocol 2.8). :attr:`Session.calls` and
:attr:`Session.requests` are the table of what is in flight; there is no other.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from msgpack import unpackb

from seqrpc.errors import DescriptorsLost, Execution, Overloaded, RemoteProtocolError, RpcError, SeqrpcError, TooLarge
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol import messages
from seqrpc.protocol.admission import Admission, Refused
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.depth import is_shallow
from seqrpc.protocol.encoded import Encoded
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.heads import Head, head_of, read_head
from seqrpc.protocol.lenders import Packed
from seqrpc.protocol.maps import MOST_KEYS, look_closer
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
    Params,
    Request,
    Response,
    Spilled,
)
from seqrpc.protocol.spilled import begin_spilled, head_of_spilled, read_spilled
from seqrpc.protocol.values import Living
from seqrpc.text import sendable

Waiter = TypeVar("Waiter")
Work = TypeVar("Work")

Event = Message | Refused
"""What a packet may ask for."""

_ARRAY_OF_FOUR = 0x94  # how nearly all packets begin

_LONG = 4_096  # bytes of a request from which on they count among what a connection holds
_GLANCE = 256  # bytes of a packet that is read before its head is looked at

_LOST = "descriptors of the message were lost on the way in"


class Session(Generic[Waiter, Work]):
    """One end of a connection.

    Args:
        limits: ``max_calls_in_flight``, ``max_message_bytes`` and those of encoder and decoder are used.
        living: what streams and channels are here.
        admission: says which requests are taken.
    """

    __slots__ = (
        "_admission", "_decoder", "_encoder", "_max_bytes", "_max_calls", "_next_id", "_policies", "_short",
        "_was_asked", "calls", "closing_received", "closing_sent", "given_up", "references", "requests",
    )  # fmt: skip

    def __init__(self, limits: Limits, living: Living | None, admission: Admission) -> None:
        """Begin with nothing in flight."""
        self._encoder = Encoder(limits, living)
        self._decoder = Decoder(limits, living)
        self.references = self._decoder.references
        """What resolves those in messages: whoever carries the session may want to hear of its work."""
        self.references.lack_of_room = admission.lack_of_room
        self._short = limits.max_depth  # bytes of a packet that has no room for anything deeper
        self._max_bytes = limits.max_message_bytes
        self._admission = admission
        self._policies = admission.policies
        self._was_asked = False  # whether the other side ever sent a request
        self._max_calls = limits.max_calls_in_flight
        self._next_id = 0
        self.calls: dict[int, Waiter] = {}
        """This side's calls in flight, by id."""
        self.given_up: set[int] = set()
        """The ids of those that were given up and are not yet answered: to the other side they are in flight."""
        self.requests: dict[int, Work | None] = {}
        """The other side's calls in flight, by id, with what works on each: whoever takes a request sets it."""
        self.closing_sent = False
        self.closing_received: str | None = None
        """The reason for which the other side takes no new requests, or None."""

    def receive_packet(
        self, data: bytes, fds: list[OwnedFd], sender: Credentials | None = None, *, lost: bool = False
    ) -> Event | None:
        """Take one packet and return what it asks for; None if it asks for nothing.

        The session takes ``fds``: it closes those of ignored, refused and malformed packets, the others belong to
        the message that is returned.

        Args:
            data: the packet.
            fds: the descriptors that came with it.
            sender: who sent it, by the kernel's word; None if the kernel does not say.
            lost: descriptors were lost on the way; ``fds`` is then empty (protocol 3.3).

        Raises:
            RemoteProtocolError: the packet is malformed: send CLOSING, close the connection.
        """
        # Nearly all packets are one of two kinds, plain and short: to read all of one takes no longer than to find out
        # whether anybody wants it, and saves a quarter of the byte code of a call. What is out of the ordinary in any
        # way is looked at closely. The first lines are Decoder.decode_plain, without the call.
        size = len(data)
        if fds or lost or size > _GLANCE or (size > self._short and not is_shallow(data, self._short)):
            return self._receive_closely(data, fds, sender, lost=lost)
        try:
            value = unpackb(data, ext_hook=look_closer, timestamp=3, max_map_len=MOST_KEYS)
        except Exception:  # the long way tells what is wrong, or what else is in it
            return self._receive_closely(data, fds, sender, lost=lost)
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
            elif kind == REQUEST and type(third) is str and type(fourth) is list and 0 <= call_id <= MAX_CALL_ID:
                refusal = self._admit(call_id, third, sender)
                if refusal is not None:
                    return self._refuse(call_id, third, *refusal)
                self.requests[call_id] = None
                self._was_asked = True
                return Request(call_id, third, fourth, NO_OPTIONS, fds, 0, True)
        return self._receive_closely(data, fds, sender, lost=lost)

    def _admit(self, call_id: int | None, method: str, caller: Credentials | None) -> tuple[str, str] | None:
        """Return code and message of the error that a request is answered with at once; None if it may be read.

        Raises:
            RemoteProtocolError: another request of this id is in flight already.
        """
        if call_id in self.requests:
            raise _in_flight(call_id)
        if self.closing_sent:
            return "rpc.Unavailable", "this side takes no new requests"
        if call_id is not None and len(self.requests) >= self._max_calls:
            return "rpc.Overloaded", f"more than {self._max_calls} calls of this connection are in flight"
        policy = self._policies.get(method)
        if policy is None:
            return self._admission.unknown(method, caller)
        return None if policy.admits(caller) else self._admission.denied(method, caller)

    def _owe(self, call_id: int | None) -> None:
        """Owe a request an answer, if it wants one."""
        if call_id is not None:
            self.requests[call_id] = None
            self._was_asked = True

    def _refuse(self, call_id: int | None, method: str | None, code: str, message: str) -> Refused:
        """Owe a request nothing but this error."""
        self._owe(call_id)
        return Refused(call_id, method, code, message)

    def deny(self, call_id: int, method: str, caller: Credentials | None) -> Refused:
        """Refuse a request that may be taken but for the policy of the method, which has been asked."""
        return self._refuse(call_id, method, *self._admission.denied(method, caller))

    def _receive_closely(
        self, data: bytes, fds: list[OwnedFd], sender: Credentials | None, *, lost: bool
    ) -> Event | None:
        """Take any packet: its head first, and the rest if somebody wants it and its sender may ask for it."""
        try:
            head = read_head(data)
            if head.kind == SPILLED:
                spilled = messages.parse_spilled(self._decoder.decode(data, [])[0])
                return self._receive_spilled(spilled, fds, sender, lost=lost)
            if lost and head.kind in (REQUEST, RESPONSE, NOTIFY):
                messages.check_size(head.kind, head.size)
                return self._fail(head, fds, DescriptorsLost(_LOST))
            if head.kind in (CANCEL, CLOSING):
                return self._receive_sign(head.kind, data, fds)
            wanted, refusal = self._is_wanted(head, sender)
            if not wanted:
                if len(data) <= _GLANCE:  # of longer ones, to find out would cost as much as to read them
                    self._check_unwanted(head.kind, data, fds)
                close_all(fds)
                return self._leave_unread(head, refusal)
            try:
                if fds or len(data) > _LONG:
                    self._check_room(head, len(data), fds)
                value, problem = self._decoder.decode(data, fds)
            except (Overloaded, TooLarge) as exc:
                return self._fail(head, fds, exc)
            event = self._take(head, value, fds, None if lost else problem)
            if len(data) > _LONG and isinstance(event, Request):
                event.held_bytes += len(data)
            return event
        except BaseException:
            close_all(fds)
            raise

    def _check_room(self, head: Head, size: int, fds: list[OwnedFd]) -> None:
        """Check that there is room for a request with so many bytes, and these descriptors.

        Raises:
            Overloaded: there is not.
        """
        if head.method is None:
            return
        lack = self._admission.lack_of_room(size) if size > _LONG else None
        if lack is None and fds:
            lack = self._admission.lack_of_descriptors()
        if lack is not None:
            raise Overloaded(lack)

    def _check_unwanted(self, kind: int, data: bytes, fds: list[OwnedFd]) -> None:
        """Check that a short message that is not taken does not break the protocol."""
        value, problem = self._decoder.decode_unwanted(data, fds)
        if kind > LAST_KIND or value is None:
            return
        if problem is not None:
            raise RemoteProtocolError(f"malformed message: {problem}")
        messages.parse(kind, value, [])

    def _receive_sign(self, kind: int, data: bytes, fds: list[OwnedFd]) -> Cancel | Closing | None:
        """Take a message that is a number or a text: anybody may send one, so nothing else in it is made."""
        value, problem = self._decoder.decode_unwanted(data, fds)
        if problem is None and value is None:
            problem = f"one of kind {kind} holds no maps"
        if problem is not None:
            raise RemoteProtocolError(f"malformed message: {problem}")
        message = messages.parse(kind, value, fds)
        assert isinstance(message, Cancel | Closing)
        return self._receive_rare(message)

    def _is_wanted(self, head: Head, sender: Credentials | None) -> tuple[bool, tuple[str, str] | None]:
        """Return whether the rest of a message is to be read, and if not, the error to answer it with, if any."""
        kind, call_id = head.kind, head.call_id
        if kind > LAST_KIND:  # unknown kinds are ignored (protocol 1.4)
            return False, None
        messages.check_size(kind, head.size)
        if kind == RESPONSE:
            return call_id in self.calls, None
        if head.method is None:
            return True, None
        refusal = self._admit(call_id, head.method, sender)
        return refusal is None and head.method not in self._admission.unread, refusal

    def _leave_unread(self, head: Head, refusal: tuple[str, str] | None) -> Request | Refused | None:
        """Take note of a message that is not to be read, and return what becomes of it."""
        if head.kind == RESPONSE:  # it answers a call that was given up, or none
            self.given_up.discard(-1 if head.call_id is None else head.call_id)
        if head.kind > LAST_KIND or head.method is None:
            return None
        if refusal is not None:
            return self._refuse(head.call_id, head.method, *refusal)
        self._owe(head.call_id)
        return Request(head.call_id, head.method, [], NO_OPTIONS, [], 0, True)

    def _take(self, head: Head, value: Any, fds: list[OwnedFd], problem: str | RpcError | None) -> Event | None:
        """Take a message that was read."""
        if isinstance(problem, str):
            raise RemoteProtocolError(f"malformed message: {problem}")
        message = messages.parse(head.kind, value, fds)
        if problem is not None:
            return self._fail(head, fds, problem)
        if isinstance(message, Response):
            message.waiter = self.calls.pop(message.call_id)
            return message
        if isinstance(message, Request):
            self._owe(message.call_id)
            message.held_bytes = self.references.copied_bytes
            return message
        return self._receive_rare(message)

    def _fail(self, head: Head, fds: list[OwnedFd], error: RpcError) -> Response | Refused | None:
        """Answer a request, or fail a call of this side, whose message cannot be taken.

        Raises:
            RemoteProtocolError: another request of this id is in flight.
        """
        close_all(fds)
        call_id = head.call_id
        if head.kind in (REQUEST, NOTIFY):
            if call_id in self.requests:
                raise _in_flight(call_id)
            return self._refuse(call_id, head.method, error.code, error.message)
        if call_id is None:
            return None
        self.given_up.discard(call_id)
        waiter = self.calls.pop(call_id, None)
        if waiter is None:
            return None
        return Response(call_id, [error.code, error.message, None, Execution.RAN], None, fds, waiter)

    def _receive_spilled(
        self, spilled: Spilled, fds: list[OwnedFd], sender: Credentials | None, *, lost: bool
    ) -> Event | None:
        """Read a message from its memory file, or answer, or fail, the one call that it belongs to."""
        length = spilled.length
        self.references.on_work()
        if length > self._max_bytes:
            bound = f"a message has at most {self._max_bytes} bytes here (max_message_bytes), this one {length}"
            return self._give_up_spilled(spilled, fds, TooLarge(bound))
        if lost:
            error = DescriptorsLost("the memfd of the message was lost on the way in")
            return self._give_up_spilled(spilled, fds, error)
        begin = begin_spilled(length, fds)
        head = read_head(begin, length)
        wanted, refusal = self._is_wanted(head, sender)
        if not wanted:
            close_all(fds)
            return self._leave_unread(head, refusal)
        if head.kind in (CANCEL, CLOSING, SPILLED) and (length > MAX_PACKET or len(fds) > 1):
            what = f"{length} bytes and {len(fds) - 1} descriptors"
            raise RemoteProtocolError(f"malformed message: one of kind {head.kind} has {what}")
        try:
            self._check_room(head, length, fds)
            value, problem = read_spilled(self._decoder, length, fds, begin)
        except (Overloaded, TooLarge) as exc:
            return self._fail(head, fds, exc)
        event = self._take(head, value, fds, problem)
        if isinstance(event, Request):
            event.held_bytes += length
        return event

    def _give_up_spilled(self, spilled: Spilled, fds: list[OwnedFd], error: RpcError) -> Response | Refused | None:
        """Pass on why a message is not read (protocol 5.2).

        Raises:
            RemoteProtocolError: nobody can be told, for it is not known whose message it is.
        """
        head = head_of_spilled(spilled.length, fds)
        if head is None:
            head = self._guess(spilled.call_id)
        if head.kind in (REQUEST, RESPONSE):
            return self._fail(head, fds, error)
        raise RemoteProtocolError(f"a spilled message that was not read: {error.message}")

    def _guess(self, call_id: int | None) -> Head:
        """Return the kind that a message of this id must have, and the id; kind -1 if that cannot be known.

        The wire does not say whether the id is of a request or of a response; both may be in flight.
        """
        may_answer = call_id in self.calls or call_id in self.given_up
        if call_id is None or (may_answer and self._was_asked and call_id not in self.requests):
            return Head(0, -1, None, None)
        return Head(0, RESPONSE if may_answer else REQUEST, call_id, None)

    def _receive_rare(self, message: Message) -> Cancel | Closing | None:
        if isinstance(message, Cancel):
            return message if message.call_id in self.requests else None
        assert isinstance(message, Closing)
        if self.closing_received is None:
            self.closing_received = message.reason
        return message

    def send_request(
        self, waiter: Waiter, method: str, params: Params, options: dict[str, Any] | None = None
    ) -> tuple[int, Packed]:
        """Begin a call; return its id and its packet. ``waiter`` comes back with its :class:`Response`.

        Raises:
            LocalProtocolError, TooLarge: it cannot be sent; nothing has changed.
        """
        call_id, calls = self._next_id, self.calls
        while call_id in calls or call_id in self.given_up:
            call_id = (call_id + 1) & MAX_CALL_ID
        message = (REQUEST, call_id, method, params, options) if options else (REQUEST, call_id, method, params)
        next_id = self._next_id = call_id + 1 if call_id < MAX_CALL_ID else 0  # taking values apart may call, too
        try:
            packet = self._encoder.encode(message, REQUEST_NAMES, params)
        except BaseException:
            if self._next_id == next_id:
                self._next_id = call_id
            raise
        calls[call_id] = waiter
        return call_id, packet

    def send_notify(self, method: str, params: Params, options: dict[str, Any] | None = None) -> Packed:
        """Return the packet of a call that wants no answer.

        Raises:
            LocalProtocolError, TooLarge: it cannot be sent.
        """
        message = (NOTIFY, method, params, options) if options else (NOTIFY, method, params)
        return self._encoder.encode(message, NOTIFY_NAMES, params)

    def send_cancel(self, call_id: int) -> Packed | None:
        """Give up a call; return the packet that says so, or None if it was answered already."""
        if self.calls.pop(call_id, None) is None:
            return None
        self.given_up.add(call_id)
        return self._encoder.encode((CANCEL, call_id))

    def send_result(self, call_id: int, result: Any) -> Packed:
        """Answer a request of the other side.

        Raises:
            LocalProtocolError, TooLarge: the result cannot be sent; the request is still in flight, and the result is
                to be given up.
        """
        kind = type(result)
        if kind is Encoded:
            packet = self._encoder.encode_with((RESPONSE, call_id, None), result)
        else:
            values = (result,) if kind is bytes else ()  # a tuple for each would be felt
            packet = self._encoder.encode((RESPONSE, call_id, None, result), RESPONSE_NAMES, values, given=True)
        self.requests.pop(call_id, None)
        return packet

    def send_error(
        self, call_id: int, code: str, message: str, data: Any = None, unsent: list[Any] | None = None
    ) -> Packed:
        """Answer a request of the other side with an error; never fails.

        What cannot be sent of it is left out: first ``data``, which is given up then, or put in ``unsent`` for the
        caller to give up; then most of the message.
        """
        self.requests.pop(call_id, None)
        return self.send_instead(call_id, code, message, data, unsent)

    def send_instead(
        self, call_id: int, code: str, message: str, data: Any = None, unsent: list[Any] | None = None
    ) -> Packed:
        """Return the same in place of an answer that could not leave: its id may be another request's by now."""
        for error in ((code, message, data), (code, message, None)):
            try:
                return self._encoder.encode((RESPONSE, call_id, error, None), RESPONSE_NAMES, given=True)
            except SeqrpcError:
                if unsent is None:
                    self._encoder.give_up(data)
                else:
                    unsent[:] = [data]
        return self._encoder.encode((RESPONSE, call_id, (sendable(code), sendable(message), None), None))

    def give_up(self, value: Any, kept: Any = None) -> None:
        """Let go of a result, or of the data of an error, that was given away and that nobody gets.

        What is also in ``kept``, which takes its place, is left alone.
        """
        self._encoder.give_up(value, kept)

    def spill(self, data: Content) -> bytes:
        """Return the packet that goes in place of an encoded message, with a memory file of that (protocol 5.1)."""
        head = head_of(data)
        call_id = () if head is None or head.call_id is None else (head.call_id,)
        return bytes(self._encoder.encode((SPILLED, len(data), *call_id))[0])

    def send_closing(self, reason: str) -> Packed | None:
        """Return the packet that says that this side takes no new requests, or None if it was sent before."""
        if self.closing_sent:
            return None
        self.closing_sent = True
        return self._encoder.encode((CLOSING, sendable(reason)))

    def lose(self) -> list[Waiter]:
        """End: return what was given for the calls that will not be answered, and forget their ids.

        What works on the other side's requests goes on until it ends, and stays in :attr:`requests` so long.
        """
        for call_id in [call_id for call_id, work in self.requests.items() if work is None]:
            del self.requests[call_id]
        waiters = list(self.calls.values())
        self.calls.clear()
        self.given_up.clear()
        return waiters

    def let_go(self) -> None:
        """Refer no more to who says which requests are taken, for nothing will be received: see there."""
        self.references.let_go()
        self._encoder.let_go()
        del self._admission


def _in_flight(call_id: int | None) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed message: a REQUEST with id {call_id} is in flight already")
