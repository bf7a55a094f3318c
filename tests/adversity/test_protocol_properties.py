"""Sessions under any traffic: whatever order things happen in, and whatever the other side makes up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import IO, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.admission import new_session
from support.descriptors import Lender, memory_file, owned, write_only
from support.properties import PROPERTY, values
from support.sessions import SessionPair

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.pieces import Content
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.messages import Cancel, Closing, Request, Response

SIDES = st.sampled_from([0, 1])
PICKS = st.integers(0, 100)
CARGO = st.lists(st.sampled_from([0, 1, 2]), max_size=3)

PADDING = st.sampled_from([0, 0, 0, 70_000])

LIMITS = Limits(max_calls_in_flight=3)


class Conversation(RuleBasedStateMachine):
    """Two sessions that call each other, beside a plain model of what is owed.

    Packets of one direction arrive in order; how far the two directions have got is for the rules to choose. Every
    message carries a number that nothing else carries, and names the files whose descriptors it holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pair = SessionPair(LIMITS)
        self.files: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - see teardown
        self.inodes = [os.fstat(file.fileno()).st_ino for file in self.files]
        self.last_number = 0
        # By side: its calls and what came of them, what it was asked and has not answered, what it was asked at all.
        self.calls: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.answers: tuple[dict[int, str], dict[int, str]] = ({}, {})
        self.given_up: tuple[set[int], set[int]] = (set(), set())
        self.cancelled: tuple[set[int], set[int]] = (set(), set())
        self.to_answer: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.started: tuple[list[int], list[int]] = ([], [])
        self.notified: tuple[list[int], list[int]] = ([], [])

    def new_number(self) -> int:
        self.last_number += 1
        return self.last_number

    def load(self, number: int, cargo: list[int], padding: int) -> dict[str, Any]:
        """Return a value that shows what it is and which files it should hold, and may be too long for a packet."""
        files = [[self.files[index]] for index in cargo]
        return {"number": number, "cargo": cargo, "files": files, "padding": bytes(padding)}

    def check_load(self, value: dict[str, Any], fds: list[OwnedFd]) -> int:
        """Check that the descriptors are those that were sent, and close them; return the number."""
        arrived = [fd for (fd,) in value["files"]]
        assert sorted(map(id, arrived)) == sorted(map(id, fds))
        for index, fd in zip(value["cargo"], arrived, strict=True):
            assert os.fstat(fd.fileno()).st_ino == self.inodes[index]
            fd.close()
        number = value["number"]
        assert isinstance(number, int)
        return number

    @rule(side=SIDES, cargo=CARGO, padding=PADDING)
    def call(self, side: int, cargo: list[int], padding: int) -> None:
        number = self.new_number()
        call_id, packet = self.pair.sessions[side].send_request(number, "m", self.load(number, cargo, padding))
        assert number not in self.calls[side].values()
        self.calls[side][number] = call_id
        self.pair.post(side, packet)

    @rule(side=SIDES, cargo=CARGO, padding=PADDING)
    def notify(self, side: int, cargo: list[int], padding: int) -> None:
        number = self.new_number()
        self.pair.post(side, self.pair.sessions[side].send_notify("m", [self.load(number, cargo, padding)]))

    @precondition(lambda self: any(self.to_answer))
    @rule(side=SIDES, pick=PICKS, cargo=CARGO, padding=PADDING, failing=st.booleans())
    def answer(self, side: int, pick: int, cargo: list[int], padding: int, *, failing: bool) -> None:
        if not self.to_answer[side]:
            return
        call_id = list(self.to_answer[side])[pick % len(self.to_answer[side])]
        load = self.load(self.to_answer[side].pop(call_id), cargo, padding)
        session = self.pair.sessions[side]
        packet = session.send_error(call_id, "a.B", "text", load) if failing else session.send_result(call_id, load)
        self.pair.post(side, packet)

    @rule(side=SIDES, pick=PICKS)
    def cancel(self, side: int, pick: int) -> None:
        if not self.calls[side]:
            return
        number = list(self.calls[side])[pick % len(self.calls[side])]
        packet = self.pair.sessions[side].send_cancel(self.calls[side][number])
        assert (packet is None) == (number in self.answers[side] or number in self.given_up[side])
        if packet is not None:
            self.given_up[side].add(number)
            self.pair.post(side, packet)

    @precondition(lambda self: self.last_number > 5)
    @rule(side=SIDES)
    def closing(self, side: int) -> None:
        first = not self.pair.sessions[side].closing_sent
        packet = self.pair.sessions[side].send_closing("going")
        assert (packet is not None) == first
        self.pair.post(side, packet)

    @precondition(lambda self: any(self.pair.under_way))
    @rule(sender=SIDES, spilled=st.booleans())
    def deliver(self, sender: int, *, spilled: bool) -> None:
        if self.pair.under_way[sender]:
            self.take(1 - sender, self.pair.deliver(sender, spilled=spilled), lost=False)

    # A long message that lost its file may be nobody's, which ends the connection: see tests/unit/protocol/session/.
    @precondition(lambda self: any(packets and self.can_lose(*packets[0]) for packets in self.pair.under_way))
    @rule(sender=SIDES)
    def deliver_without_descriptors(self, sender: int) -> None:
        if self.pair.under_way[sender] and self.can_lose(*self.pair.under_way[sender][0]):
            self.take(1 - sender, self.pair.deliver(sender, lost=True), lost=True)

    def can_lose(self, data: Content, lenders: list[Any]) -> bool:
        return bool(lenders) and len(data) <= MAX_PACKET

    def take(self, side: int, event: Any, *, lost: bool) -> None:
        """Check what has arrived at a side."""
        if isinstance(event, Request):
            assert not lost
            if event.call_id is None:
                assert isinstance(event.params, list)
                self.notified[side].append(self.check_load(event.params[0], event.fds))
                return
            assert isinstance(event.params, dict)
            number = self.check_load(event.params, event.fds)
            assert self.calls[1 - side][number] == event.call_id
            assert event.call_id not in self.to_answer[side]
            self.to_answer[side][event.call_id] = number
            self.started[side].append(number)
        elif isinstance(event, Response):
            assert event.waiter not in self.answers[side], "answered twice"
            assert event.waiter not in self.given_up[side], "answered after it was given up"
            self.answers[side][event.waiter] = self.check_answer(event, lost=lost)
        elif isinstance(event, Cancel):
            assert not lost
            self.cancelled[side].add(self.to_answer[side][event.call_id])
        elif isinstance(event, Refused):
            assert (event.code == "rpc.DescriptorsLost") == lost
        elif isinstance(event, Closing):
            assert self.pair.sessions[side].closing_received == event.reason == "going"

    def check_answer(self, event: Response, *, lost: bool) -> str:
        response = event
        if response.error is None:
            assert not lost
            assert self.check_load(response.result, response.fds) == event.waiter
            return "result"
        assert (response.error[0] == "rpc.DescriptorsLost") >= lost
        if response.error[0] == "a.B":
            assert self.check_load(response.error[2], response.fds) == event.waiter
        else:
            assert response.fds == []
        return str(response.error[0])

    @invariant()
    def no_descriptor_is_left(self) -> None:
        assert all(fd.closed for fd in self.pair.received)

    @invariant()
    def the_sessions_agree_with_the_model(self) -> None:
        for side in (0, 1):
            session = self.pair.sessions[side]
            waiting = self.calls[side].keys() - self.answers[side].keys() - self.given_up[side]
            assert set(session.calls.values()) == waiting
            assert set(session.requests) == set(self.to_answer[side])
            assert len(session.requests) <= LIMITS.max_calls_in_flight
            assert self.started[side] == sorted(self.started[side]), "requests are started in order"
            assert self.notified[side] == sorted(set(self.notified[side]))

    def teardown(self) -> None:
        """Let everything arrive and be answered, and check that every call got its one answer."""
        for file in self.files:
            assert not file.closed, "sending borrows"
        while any(self.pair.under_way) or any(self.to_answer):
            for side in (0, 1):
                self.deliver(side, spilled=False)
                self.answer(side, 0, [], 0, failing=False)
        for side in (0, 1):
            assert self.answers[side].keys() | self.given_up[side] == self.calls[side].keys()
            assert not self.answers[side].keys() & self.given_up[side]
            # What was cancelled was asked for by the other side, and given up there.
            assert self.cancelled[side] <= self.given_up[1 - side]
            assert self.pair.sessions[side].lose() == []
            assert not self.pair.sessions[side].requests
        self.no_descriptor_is_left()
        for file in self.files:
            file.close()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(PROPERTY, max_examples=60, stateful_step_count=60)


@PROPERTY
@given(st.lists(st.tuples(SIDES, st.booleans(), CARGO), max_size=12), st.integers(0, 12))
def test_a_connection_lost_at_any_point_gives_every_waiter_back_once(
    steps: list[tuple[int, bool, list[int]]], arriving: int
) -> None:
    pair = SessionPair()
    sent: tuple[list[int], list[int]] = ([], [])
    answered: tuple[list[int], list[int]] = ([], [])
    for number, (side, answering, cargo) in enumerate(steps):
        if answering and pair.sessions[side].requests:
            call_id = min(pair.sessions[side].requests)
            pair.post(side, pair.sessions[side].send_result(call_id, [Lender() for _ in cargo]))
        else:
            sent[side].append(number)
            pair.post(side, pair.sessions[side].send_request(number, "m", [Lender() for _ in cargo])[1])
        for sender in (0, 1):
            if number < arriving and pair.under_way[sender]:
                event = pair.deliver(sender)
                if isinstance(event, Response):
                    answered[1 - sender].append(event.waiter)

    for side in (0, 1):
        assert sorted(answered[side] + pair.sessions[side].lose()) == sent[side]
    for fd in pair.received:
        fd.close()


def packets() -> st.SearchStrategy[bytes]:
    """Return packets that are nearly right: messages of known kinds with parts that may be wrong."""
    call_id = st.integers(0, 3) | st.integers(-1, 2**32)
    parts = st.one_of(
        st.none(),
        st.just("m"),
        st.just([]),
        st.dictionaries(
            st.sampled_from(["deadline", "meta", "a"]), st.integers() | st.just({"a": "b"}), max_size=2
        ).filter(lambda options: all(type(value) is not int or abs(value) < 2**63 for value in options.values())),
        st.builds(lambda number: [Lender() for _ in range(number)], st.integers(0, 3)),
        st.just(["a.B", "text", None]),
        values(),
    )
    return st.builds(
        lambda kind, number, rest: bytes(Encoder().encode((kind, number, *rest))[0]),
        st.sampled_from([0, 0, 1, 1, 2, 3, 5, 6]),
        call_id,
        st.lists(parts, max_size=4),
    ) | st.builds(
        lambda kind, rest: bytes(Encoder().encode((kind, *rest))[0]),
        st.sampled_from([2, 4, 5, 7]),
        st.lists(parts, max_size=3),
    )


def spilled_files() -> st.SearchStrategy[tuple[int, Callable[[], OwnedFd]]]:
    """Return memory files that are nearly right: the length to promise, and how one is made."""

    def file(content: bytes, hole: int, lie: int, seals: int, *, blind: bool) -> tuple[int, Callable[[], OwnedFd]]:
        def make() -> OwnedFd:
            made = memory_file(content, size=len(content) + hole, seals=seals)
            if not blind:
                return made
            with made:
                return write_only(made)

        return max(1, len(content) + hole + lie), make

    mostly_right = st.sampled_from([memfd.SEALS] * 6 + [0, 0b0111, 0b1011, 0b1101])
    return st.builds(
        file,
        packets() | st.binary(max_size=60),
        st.sampled_from([0, 0, 0, 0, 1, MAX_PACKET, 1 << 40]),
        st.sampled_from([0, 0, 0, 0, -1, 1, 1 << 40]),
        mostly_right,
        blind=st.sampled_from([False] * 6 + [True]),
    )


@PROPERTY
@given(
    st.lists(st.tuples(spilled_files(), st.none() | st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=10),
    st.booleans(),
    st.booleans(),
)
def test_whatever_a_peer_spills_a_session_answers_or_says_malformed(
    traffic: list[tuple[tuple[int, Callable[[], OwnedFd]], int | None, int, bool]], asked: bool, closing: bool
) -> None:
    limits = Limits(max_calls_in_flight=3, max_message_bytes=MAX_PACKET)
    session = new_session(limits)
    for number in range(3):
        session.send_request(number, "m", ())
    if asked:
        session.receive_packet(b"\x94\x00\x02\xa1m\x90", [])
    if closing:
        session.send_closing("going")
    answered = []
    for (length, make), call_id, more, lost in traffic:
        message = (4, length) if call_id is None else (4, length, call_id)
        with owned(more) as others:
            every = [make(), *others]
            fds = list(every)
            if lost:
                close_all(fds)
            in_flight = set(session.requests)
            held: list[OwnedFd] = []
            event: Any = None
            try:
                event = session.receive_packet(bytes(Encoder().encode(message)[0]), fds, lost=lost)
            except RemoteProtocolError:
                assert set(session.requests) == in_flight
            if isinstance(event, Refused) and event.call_id is not None:
                assert length <= limits.max_message_bytes or event.code == "rpc.TooLarge"
                session.send_error(event.call_id, event.code, event.message)
            elif isinstance(event, Response):
                assert length <= limits.max_message_bytes or (event.error or [])[0] == "rpc.TooLarge"
                answered.append(event.waiter)
                held = event.fds
            elif isinstance(event, Request):
                assert not closing
                assert length <= limits.max_message_bytes
                assert event.call_id not in in_flight
                held = event.fds
            assert all(fd.closed for fd in every if fd not in held)
            assert not any(fd.closed for fd in held)
            close_all(held)

    assert sorted(answered + session.lose()) == [0, 1, 2]


@PROPERTY
@given(
    st.lists(st.tuples(packets() | st.binary(max_size=60), st.integers(0, 4), st.booleans()), max_size=15),
    st.booleans(),
)
def test_whatever_a_peer_sends_a_session_answers_or_says_malformed(
    traffic: list[tuple[bytes, int, bool]], closing: bool
) -> None:
    session = new_session(LIMITS)
    for number in range(3):
        session.send_request(number, "m", ())
    if closing:
        session.send_closing("going")
    answered = []
    for data, descriptors, lost in traffic:
        with owned(0 if lost else descriptors) as fds:
            every = list(fds)
            in_flight = set(session.requests)
            try:
                event = session.receive_packet(data, fds, lost=lost)
            except RemoteProtocolError as exc:
                event, reason = None, str(exc)
                assert all(fd.closed for fd in every), reason
                assert set(session.requests) == in_flight, reason
            held = []
            if isinstance(event, Refused) and event.call_id is not None:
                session.send_error(event.call_id, event.code, event.message)
            elif isinstance(event, Response):
                answered.append(event.waiter)
                held = event.fds
            elif isinstance(event, Request):
                assert not closing
                assert not lost
                assert event.call_id not in in_flight
                held = event.fds
            assert [fd.closed for fd in every] == [not held] * len(every)
            assert len(session.requests) <= LIMITS.max_calls_in_flight

    assert sorted(answered + session.lose()) == [0, 1, 2]


@PROPERTY
@given(values(), st.data())
def test_a_changed_packet_is_taken_or_malformed_and_never_leaks(value: Any, data: st.DataObject) -> None:
    original, lenders = Encoder().encode((0, 1, "m", [value, Lender(), {"a": Lender()}], {"deadline": 5}))
    packet = bytearray(bytes(original))
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(packet) - 1))
        packet[where] = data.draw(st.integers(0, 255))
    session = new_session()
    with owned(len(lenders)) as fds:
        every = list(fds)
        event: Any = None
        try:
            event = session.receive_packet(bytes(packet), fds)
        except RemoteProtocolError:
            assert session.requests == {}
        if isinstance(event, Request):
            assert event.fds == every
        else:
            assert event is None, "no other message can have descriptors and come of nothing"
            assert all(fd.closed for fd in every)
