"""Calls over one line, in the thread that makes them."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.daemons import descriptor
from support.descriptors import refuse_descriptors
from support.dispatch import closed_descriptor
from support.lines import (
    CANCEL,
    CLOSING,
    NOTIFY,
    REQUEST,
    RESPONSE,
    End,
    Handler,
    Thread,
    at_call,
    comes_true,
    interrupting,
    line_end,
    sleeps,
)
from support.processes import in_child

import seqrpc
from seqrpc.blocking.family import Family
from seqrpc.blocking.interceptors import NO_INTERCEPTION
from seqrpc.blocking.living import LivingValues
from seqrpc.blocking.waiting import Bystander
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS

RAN, MAY_HAVE_RUN, DID_NOT_RUN = seqrpc.Execution.RAN, seqrpc.Execution.MAY_HAVE_RUN, seqrpc.Execution.DID_NOT_RUN


@pytest.fixture
def end() -> Iterator[End]:
    with line_end() as end:
        yield end


def soon() -> int:
    return time.monotonic_ns() + 20_000_000


def later() -> int:
    return time.monotonic_ns() + 30_000_000_000


def answered(end: End, call_id: int, result: Any = None, error: Any = None) -> None:
    """Answer a call before it is made: it finds its answer there."""
    end.send(RESPONSE, call_id, error, result)


# Calls


def test_a_call_returns_its_answer(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", [1], meta={"a": "b"}, deadline=(deadline := later())) or deadline)
    kind, call_id, method, params, options = end.receive()
    assert (kind, method, params) == (REQUEST, "A.b", [1])
    assert options["meta"] == {"a": "b"}
    end.send(RESPONSE, call_id, None, None)
    assert thread.result() == options["deadline"]
    thread = Thread(lambda: end.caller.request_idempotent("A.b", {"x": 1}))
    assert end.answer({"y": 2}) == "A.b"
    assert thread.result() == {"y": 2}


def test_a_call_raises_the_error_of_the_other_side(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", []))
    call_id = end.receive()[1]
    end.send(RESPONSE, call_id, ["test.Wrong", "it is", [1]], None)
    with pytest.raises(seqrpc.RpcError, match="it is") as caught:
        thread.result()
    assert caught.value.code == "test.Wrong"


def test_what_is_made_of_an_answer_is_the_caller_s_affair(end: End, pipe: tuple[int, int]) -> None:
    def finish(answer: Any, limits: seqrpc.Limits) -> str:
        assert limits is DEFAULT_LIMITS
        (fd,) = answer.fds
        fd.close()
        return "made"

    thread = Thread(lambda: end.caller.request("A.b", [], finish=finish))
    call_id = end.receive()[1]
    end.send(RESPONSE, call_id, None, descriptor(0), fds=[pipe[0]])
    assert thread.result() == "made"


def test_descriptors_and_long_messages_leave_with_a_call(end: End, pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        thread = Thread(lambda: end.caller.request("A.b", [fd, bytes(100_000)]))
        assert end.receive()[0] == 4
        answer_first(end)
        thread.result()
        assert not fd.closed


def answer_first(end: End) -> None:
    comes_true(lambda: end.line.session.calls)
    (call_id,) = end.line.session.calls
    end.send(RESPONSE, call_id, None, None)


def test_a_call_that_finds_no_room_is_sent_while_it_waits(end: End) -> None:
    end.fill()
    thread = Thread(lambda: end.caller.request("A.b", []))
    while (message := end.receive()) == [NOTIFY, "fill", []]:
        pass
    assert message[2] == "A.b"
    end.send(RESPONSE, message[1], None, 1)
    assert thread.result() == 1


# Calls that are given up


def test_a_call_whose_deadline_passes_is_cancelled_and_the_next_is_well(end: End) -> None:
    with pytest.raises(seqrpc.DeadlineExceeded) as caught:
        end.caller.request("A.b", [], deadline=soon())
    assert caught.value.execution is MAY_HAVE_RUN
    call_id = end.receive()[1]
    assert end.receive() == [CANCEL, call_id]
    assert end.line.session.given_up == {call_id}
    thread = Thread(lambda: end.caller.request("A.b", []))
    end.send(RESPONSE, call_id, None, "late")
    assert end.answer("next") == "A.b"
    assert thread.result() == "next"
    assert end.line.session.given_up == set()


def test_a_call_that_a_signal_handler_interrupts_is_cancelled(end: End, pipe: tuple[int, int]) -> None:
    main = threading.main_thread()

    def interrupt() -> Any:
        message = end.receive()
        comes_true(lambda: sleeps(main))
        os.kill(os.getpid(), signal.SIGINT)
        return message

    thread = Thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        end.caller.request("A.b", [])
    call_id = thread.result()[1]
    assert end.receive() == [CANCEL, call_id]
    end.send(RESPONSE, call_id, None, descriptor(0), fds=[pipe[0]])
    assert end.line.work()


def test_an_answer_that_came_with_the_interruption_is_closed(end: End, pipe: tuple[int, int]) -> None:
    def act(_line: Any, _request: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # the last work before the answer is seen

    end.handler._act = act
    end.send(RESPONSE, 0, None, descriptor(0), fds=[pipe[0]])
    end.send(NOTIFY, "A.b", [])
    original = end.line.turns.wait

    def wait(waiter: Any, until: Any = None) -> None:
        original(waiter, until)
        raise KeyboardInterrupt

    end.line.turns = _Around(end.line.turns, wait)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        end.caller.request("A.b", [])
    assert end.receive()[0] == REQUEST
    assert end.drain() == []
    end.line.turns = end.line.turns.inner  # type: ignore[attr-defined]


class _Around:
    """The turns of a line, whose waiting is interrupted at its end."""

    def __init__(self, inner: Any, wait: Any) -> None:
        self.inner = inner
        self.wait = wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_all_streams_of_a_call_end_with_it_though_the_end_of_one_raises() -> None:
    family = Family()
    ended: list[str] = []

    def source(name: str) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append(name)
            if name == "second":
                raise KeyboardInterrupt

    living = LivingValues(DEFAULT_LIMITS, family, NO_INTERCEPTION)
    with line_end(family=family, living=living) as end:
        streams = [source(name) for name in ("first", "second", "third")]
        thread = Thread(lambda: end.caller.request("A.b", streams))
        message = socket.recv_fds(end.raw, 65_536, 10)
        readers = [socket.socket(fileno=number) for number in message[1]]
        for reader in readers:
            assert reader.recv(65_536)
        answer_first(end)
        with pytest.raises(KeyboardInterrupt):
            thread.result()
        for reader in readers:
            reader.close()
        assert sorted(ended) == ["first", "second", "third"]
        assert family.alive == 0


# Calls that cannot be sent


def test_what_cannot_be_packed_is_not_sent_and_the_next_call_is_well(end: End) -> None:
    with pytest.raises(seqrpc.LocalProtocolError):
        end.caller.request("A.b", [object()])
    with pytest.raises(ValueError, match=r"cannot send .*; lend it open, until A\.b returns"):
        end.caller.request("A.b", [closed_descriptor()])
    with pytest.raises(ValueError, match="cannot send"):
        end.caller.request("A.b", [closed_descriptor()], deadline=later())
    with pytest.raises(ValueError, match="cannot send"):
        end.caller.send_notify("A.b", [closed_descriptor()])
    with pytest.raises(seqrpc.LocalProtocolError):
        end.caller.send_notify("A.b", [object()])
    assert end.drain() == []
    assert not end.line.entered
    assert end.line.session.calls == {}
    answered(end, end.line.session._next_id, 5)
    assert end.caller.request("A.b", []) == 5


def test_what_the_kernel_refuses_is_explained(end: End, pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        refuse_descriptors(end.raw)
        for call in (end.caller.request, end.caller.send_notify):
            with pytest.raises(seqrpc.PermissionDenied) as caught:
                call("A.b", [fd])
            assert (caught.value.execution, caught.value.remote) == (DID_NOT_RUN, True)
        end.fill()
        thread = Thread(lambda: end.caller.request("A.b", [fd]))
        comes_true(lambda: end.line.unsent_packets)
        end.drain()
        with pytest.raises(seqrpc.PermissionDenied):
            thread.result()
        assert end.line.session.calls == {}


def test_what_takes_more_files_than_there_may_be_is_explained(end: End) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        with pytest.raises(seqrpc.Overloaded) as caught:
            end.caller.request("A.b", [bytes(100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.execution is DID_NOT_RUN


def test_a_call_of_an_ended_connection_did_not_run(end: End) -> None:
    end.line.end_by(seqrpc.ConnectionLost("so it was"))
    for call in (end.caller.request, end.caller.send_notify):
        with pytest.raises(seqrpc.ConnectionLost, match="so it was") as caught:
            call("A.b", [])
        assert caught.value.execution is DID_NOT_RUN


@pytest.mark.parametrize("said", [None, "upgrade"])
def test_a_call_that_finds_nobody_hears_what_the_other_side_said_before_it_went(end: End, said: str | None) -> None:
    if said is not None:
        end.send(CLOSING, said)
    end.raw.close()
    for call in (end.caller.request, end.caller.send_notify):
        with pytest.raises(seqrpc.ConnectionLost if said is None else seqrpc.Unavailable) as caught:
            call("A.b", [])
        assert caught.value.execution is DID_NOT_RUN
        assert getattr(caught.value, "reason", None) == said
    assert end.line.is_lost


def test_a_call_to_one_who_takes_none_is_not_sent(end: End) -> None:
    end.send(CLOSING, "upgrade")
    end.line.work()
    for call in (end.caller.request, end.caller.send_notify):
        with pytest.raises(seqrpc.Unavailable, match="upgrade"):
            call("A.b", [])
    assert end.drain() == []


def test_a_call_whose_deadline_has_passed_is_not_sent(end: End) -> None:
    for call in (end.caller.request, end.caller.send_notify):
        with pytest.raises(seqrpc.DeadlineExceeded) as caught:
            call("A.b", [], deadline=1)
        assert caught.value.execution is DID_NOT_RUN
    assert end.drain() == []


def test_a_call_that_is_under_way_when_the_connection_ends_may_have_run(end: End) -> None:
    thread = Thread(lambda: end.caller.request("A.b", []))
    end.receive()
    end.raw.close()
    with pytest.raises(seqrpc.ConnectionLost) as caught:
        thread.result()
    assert caught.value.execution is MAY_HAVE_RUN


def test_a_call_within_the_encoding_of_another_is_refused(end: End) -> None:
    errors: list[str] = []

    class Values(list[int]):
        def __iter__(self) -> Iterator[int]:
            for call in (end.caller.request, end.caller.send_notify):
                try:
                    call("A.b", [])
                except RuntimeError as exc:
                    errors.append(str(exc))
            return super().__iter__()

    with end.line.lock:
        end.line.entered = True
        list(Values())
        end.line.entered = False
    assert len(errors) == 2
    assert all("in use by this very thread" in error for error in errors)
    assert end.drain() == []


def test_a_forked_child_may_not_call(end: End) -> None:
    def child() -> list[str]:
        errors = []
        for call in (end.caller.request, end.caller.send_notify):
            try:
                call("A.b", [])
            except seqrpc.WrongProcess as exc:
                errors.append(exc.execution.name)
        return errors

    assert in_child(child) == ["DID_NOT_RUN"] * 2
    answered(end, 0, 1)
    assert end.caller.request("A.b", []) == 1


def test_a_child_that_is_forked_while_a_call_waits_does_not_hang() -> None:
    children: list[int] = []

    def act(_line: Any, _request: Any) -> None:
        children.append(os.fork())

    with line_end(Handler(act)) as end:
        end.send(NOTIFY, "A.b", [])
        answered(end, 0, 5)
        try:
            result = end.caller.request("A.b", [])
        except BaseException as exc:
            result = exc
        if not children[0]:
            os._exit(0 if isinstance(result, seqrpc.SeqrpcError) else 1)
        assert result == 5
        assert os.waitpid(children[0], 0)[1] == 0


def test_a_call_that_must_wait_for_others_goes_when_it_may() -> None:
    with line_end(limits=seqrpc.Limits(max_calls_in_flight=1)) as end:
        first = Thread(lambda: end.caller.request("first", []))
        first_id = end.receive()[1]
        second = Thread(lambda: end.caller.request("second", []))
        comes_true(lambda: end.line.room.waiting)
        end.send(RESPONSE, first_id, None, 1)
        assert end.answer(2) == "second"
        assert [first.result(), second.result()] == [1, 2]


@pytest.mark.parametrize("options", [{}, {"meta": {"a": "b"}}])
def test_a_call_that_is_interrupted_before_it_is_sent_is_forgotten(end: End, options: Any) -> None:
    """Where it has left it is cancelled; here it surely has not."""
    with interrupting(at_call("send_request", "return")) as came, pytest.raises(KeyboardInterrupt):
        end.caller.request("A.b", [], **options)
    assert came
    assert not end.line.is_lost
    assert not end.line.entered
    assert not end.line.session.calls
    end.caller.send_notify("A.c", [])
    assert end.receive() == [NOTIFY, "A.c", []]


def test_a_call_that_is_interrupted_when_it_was_sent_is_cancelled(end: End) -> None:
    with interrupting(at_call("tell_sent")) as came, pytest.raises(KeyboardInterrupt):
        end.caller.request("A.b", [], meta={"a": "b"})
    assert came
    call_id = end.receive()[1]
    assert end.receive() == [CANCEL, call_id]
    assert not end.line.is_lost


# Calls without an answer


def test_a_call_without_an_answer_returns_when_it_has_left(end: End) -> None:
    end.caller.send_notify("A.b", [1], meta={"a": "b"})
    assert end.receive() == [NOTIFY, "A.b", [1], {"meta": {"a": "b"}}]
    end.fill()
    thread = Thread(lambda: end.caller.send_notify("A.b", [2]))
    comes_true(lambda: end.line.unsent_packets)
    while (message := end.receive()) == [NOTIFY, "fill", []]:
        pass
    assert message == [NOTIFY, "A.b", [2]]
    thread.result()


def test_a_peer_that_does_not_read_makes_nobody_keep_more_and_more() -> None:
    """Whoever gives up a call, and makes it again, leaves no second one behind once there is much."""
    limits = seqrpc.Limits(high_water_bytes=3000, low_water_bytes=1)
    with line_end(limits=limits) as end:
        end.fill()
        errors = []
        for _ in range(10):
            for call in (end.caller.request, end.caller.send_notify):
                with pytest.raises(seqrpc.DeadlineExceeded) as caught:
                    call("A.b", [bytes(2000)], deadline=soon())
                errors.append(caught.value.execution)
        assert end.line.unsent_bytes < 6000
        assert errors[:2] == [MAY_HAVE_RUN] * 2
        assert set(errors[4:]) == {DID_NOT_RUN}
        thread = Thread(lambda: end.caller.request("last", []))
        comes_true(lambda: end.line._flushers)
        while (message := end.receive())[0] != REQUEST or message[2] != "last":
            pass
        end.send(RESPONSE, message[1], None, 1)
        assert thread.result() == 1


def test_a_caller_says_what_its_connection_is(end: End) -> None:
    assert repr(end.caller) == repr(end.line)
    end.caller.let_go()
    assert not end.line.is_lost


def test_a_signal_handler_that_calls_where_the_lock_is_held_is_told(end: End) -> None:
    """It would sleep until the thread that reads has its answer, which waits for the lock."""
    with end.line.lock:
        with pytest.raises(RuntimeError, match="a signal handler"):
            end.caller.request("A.b", ())
        with pytest.raises(RuntimeError, match="a signal handler"):
            end.line.turns.wait(Bystander())
    thread = Thread(end.answer)
    assert end.caller.request("A.b", ()) is None
    assert thread.result() == "A.b"
