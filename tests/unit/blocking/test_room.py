"""Calls that wait until others are answered: in their order, and not for ever."""

from __future__ import annotations

import functools
import time
from typing import Any

import pytest
from support.lines import CANCEL, CLOSING, REQUEST, RESPONSE, End, Thread, comes_true, line_end

import seqrpc

ONE = seqrpc.Limits(max_calls_in_flight=1)


def call(end: End, method: str = "A.b", **options: Any) -> Thread:
    return Thread(functools.partial(end.caller.request, method, [], **options))


def waiting(end: End) -> int:
    return len(end.line.room._waiting)


def soon() -> int:
    return time.monotonic_ns() + 20_000_000


def test_calls_go_in_the_order_in_which_they_came() -> None:
    with line_end(limits=ONE) as end:
        threads = [call(end, "first")]
        first_id = end.receive()[1]
        for number in range(5):
            threads.append(call(end, str(number)))
            comes_true(functools.partial(_wait, end, number + 1))
        assert not end.line.is_open
        assert end.line.room.is_full
        end.send(RESPONSE, first_id, None, "first")
        assert [end.answer(number) for number in range(5)] == list("01234")
        assert [thread.result() for thread in threads] == ["first", *range(5)]
        assert end.line.is_open
        assert not end.line.room.waiting


def test_there_are_never_more_in_flight_than_may_be() -> None:
    """Threads that send at the same time must not each see the last place free."""
    limits = seqrpc.Limits(max_calls_in_flight=3)
    with line_end(limits=limits) as end:
        most = 0

        def far() -> None:
            nonlocal most
            while (message := end.receive()) is not None:
                most = max(most, len(end.line.session.calls))
                end.send(RESPONSE, message[1], None, None)

        peer = Thread(far)

        def caller() -> None:
            for _ in range(25):
                end.caller.request("A.b", [])

        for thread in [Thread(caller) for _ in range(8)]:
            thread.result()
        end.line.close()
        peer.result()
        assert most <= 3


def test_a_call_with_a_deadline_does_not_pass_others_by() -> None:
    with line_end(limits=ONE) as end:
        first = call(end, "first")
        first_id = end.receive()[1]
        second = call(end, "second")
        comes_true(lambda: waiting(end) == 1)
        third = call(end, "third", deadline=time.monotonic_ns() + 30_000_000_000)
        comes_true(lambda: waiting(end) == 2)
        end.send(RESPONSE, first_id, None, 1)
        assert [end.answer(2), end.answer(3)] == ["second", "third"]
        assert [thread.result() for thread in (first, second, third)] == [1, 2, 3]


def test_a_call_that_was_given_up_takes_its_place_until_it_is_answered() -> None:
    with line_end(limits=ONE) as end:
        with pytest.raises(seqrpc.DeadlineExceeded):
            end.caller.request("first", [], deadline=soon())
        _kind, first_id, *_ = end.receive()
        assert end.receive() == [CANCEL, first_id]
        second = call(end, "second")
        comes_true(lambda: waiting(end) == 1)
        end.send(RESPONSE, first_id, ["rpc.Cancelled", "", None], None)
        assert end.answer(2) == "second"
        assert second.result() == 2


def test_a_deadline_that_passes_in_line_means_that_the_call_did_not_run() -> None:
    with line_end(limits=ONE) as end:
        first = call(end, "first")
        first_id = end.receive()[1]
        with pytest.raises(seqrpc.DeadlineExceeded, match="before the call could be sent") as caught:
            end.caller.request("second", [], deadline=soon())
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        end.send(RESPONSE, first_id, None, 1)
        first.result()
        assert end.line.is_open
        assert end.drain() == []


def test_a_call_does_not_wait_for_ever_while_no_other_one_is_answered() -> None:
    with line_end(limits=seqrpc.Limits(max_calls_in_flight=1, stall_timeout=0.02)) as end:
        first = call(end, "first")
        first_id = end.receive()[1]
        with pytest.raises(seqrpc.Overloaded, match="1 calls of this connection are unanswered") as caught:
            end.caller.request("second", [])
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        end.send(RESPONSE, first_id, None, 1)
        first.result()
        third = call(end, "third")
        assert end.answer(3) == "third"
        assert third.result() == 3


def test_each_turn_begins_the_time_anew_for_those_who_wait() -> None:
    with line_end(limits=ONE) as end:
        threads = [call(end, "0")]
        call_id = end.receive()[1]
        for number in range(1, 4):
            threads.append(call(end, str(number)))
            comes_true(functools.partial(_wait, end, number))
        moved = [end.line.room._moved]
        for number in range(4):
            end.send(RESPONSE, call_id, None, number)
            if number < 3:
                call_id = end.receive()[1]
                moved.append(end.line.room._moved)
        assert [thread.result() for thread in threads] == [0, 1, 2, 3]
        assert moved == sorted(set(moved))


def _wait(end: End, number: int) -> bool:
    return waiting(end) == number


def test_a_turn_of_a_call_that_cannot_be_sent_goes_to_the_next() -> None:
    with line_end(limits=ONE) as end:
        first = call(end, "first")
        first_id = end.receive()[1]
        bad = Thread(lambda: end.caller.request("bad", [object()]))
        comes_true(lambda: waiting(end) == 1)
        third = call(end, "third")
        comes_true(lambda: waiting(end) == 2)
        end.send(RESPONSE, first_id, None, 1)
        assert end.answer(3) == "third"
        with pytest.raises(seqrpc.LocalProtocolError):
            bad.result()
        assert [first.result(), third.result()] == [1, 3]
        assert not end.line.room.waiting


def test_who_waits_hears_that_no_calls_are_taken_any_more() -> None:
    with line_end(limits=ONE) as end:
        first = call(end, "first")
        first_id = end.receive()[1]
        threads = [call(end), call(end)]
        comes_true(lambda: waiting(end) == 2)
        end.send(CLOSING, "upgrade")
        for thread in threads:
            with pytest.raises(seqrpc.Unavailable, match="upgrade") as caught:
                thread.result()
            assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        end.send(RESPONSE, first_id, None, 1)
        assert first.result() == 1
        assert not end.line.is_open


def test_who_waits_hears_of_the_end_and_that_the_call_did_not_run() -> None:
    with line_end(limits=ONE) as end:
        first = call(end, "first")
        end.receive()
        second = call(end)
        comes_true(lambda: waiting(end) == 1)
        end.line.close()
        with pytest.raises(seqrpc.ConnectionLost) as caught:
            second.result()
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        with pytest.raises(seqrpc.ConnectionLost) as caught:
            first.result()
        assert caught.value.execution is seqrpc.Execution.MAY_HAVE_RUN


def test_who_comes_when_the_connection_has_just_ended_hears_that_the_call_did_not_run() -> None:
    with line_end(limits=ONE) as end:
        end.line.end_by(None)
        end.line.session.given_up.add(1)
        with pytest.raises(seqrpc.ConnectionLost) as caught:
            end.line.room.wait(None)
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        assert not end.line.room.waiting


def test_a_turn_may_be_given_back_twice() -> None:
    with line_end(limits=ONE) as end:
        turn = end.line.room.wait(None)  # there is room
        assert end.line.room.is_full
        for _ in range(2):
            end.line.room.gone(turn)
        assert not end.line.room.is_full
        assert end.line.is_open


def test_a_deadline_that_has_passed_is_seen_before_waiting() -> None:
    with line_end(limits=ONE) as end:
        first = call(end, "first")
        first_id = end.receive()[1]
        with pytest.raises(seqrpc.DeadlineExceeded, match="before the call was sent"):
            end.caller.request("second", [], deadline=0)
        end.send(RESPONSE, first_id, None, 1)
        first.result()
        assert end.drain() == []


def test_the_ids_of_calls_are_told_apart() -> None:
    with line_end() as end:
        threads = [call(end, str(number)) for number in range(3)]
        messages = [end.receive() for _ in threads]
        assert sorted(message[1] for message in messages) == [0, 1, 2]
        assert {message[0] for message in messages} == {REQUEST}
        for message in messages:
            end.send(RESPONSE, message[1], None, message[2])
        assert [thread.result() for thread in threads] == ["0", "1", "2"]
