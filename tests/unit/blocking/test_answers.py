from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.descriptors import refuse_descriptors
from support.processes import in_child
from support.sync import Notes, Raw, Thread, is_free, raw_peer

import seqrpc
from seqrpc.blocking.answers import Answers
from seqrpc.blocking.line import Line
from seqrpc.errors import InvalidResult, LocalProtocolError, Overloaded
from seqrpc.interface.results import ResultCheck
from seqrpc.interface.signature import spec_of
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import Limits
from seqrpc.protocol.session import Session


class Typed(seqrpc.Service):
    @seqrpc.method
    def number(self) -> int:
        return 1


def check() -> ResultCheck:
    spec = spec_of(Typed).methods["number"]
    return ResultCheck(spec.wire_name, spec.result)


@contextmanager
def answering(**limits: Any) -> Iterator[tuple[Answers, Line, Raw]]:
    """Yield what answers a request of the raw peer, 5, that is in flight."""
    with raw_peer(services=Typed(), limits=Limits(**limits)) as (connection, raw):
        line = connection._line
        line.session.requests[5] = None
        yield Answers(line), line, raw


def given_away(pipe: tuple[int, int]) -> OwnedFd:
    return OwnedFd(os.dup(pipe[0]))


def test_results_are_sent_and_what_is_in_them_is_given_away(pipe: tuple[int, int]) -> None:
    with answering() as (answers, line, raw):
        answers.send_result(5, 3, check())
        assert raw.receive() == [1, 5, None, 3]
        assert answers.sent_code is None
        line.session.requests[6] = None
        fd = given_away(pipe)
        answers.send_result(6, [fd])
        assert fd.closed
        _message, fds = raw.receive_with()
        assert len(fds) == 1
        fds[0].close()
        assert line.session.requests == {}


def test_errors_are_sent_with_their_data() -> None:
    with answering() as (answers, _line, raw):
        answers.send_error(5, "S.Wrong", "no", [1])
        assert raw.receive() == [1, 5, ["S.Wrong", "no", [1]], None]
        assert answers.sent_code == "S.Wrong"


def test_nobody_gets_the_result_of_a_one_way_call(pipe: tuple[int, int]) -> None:
    with answering() as (answers, _line, _raw):
        fd, other = given_away(pipe), given_away(pipe)
        answers.send_result(None, fd)
        answers.send_error(None, "S.Wrong", "no", other)
        assert fd.closed
        assert other.closed
        assert answers.sent_code == "S.Wrong"


def test_nobody_gets_the_result_of_a_line_that_has_ended(pipe: tuple[int, int]) -> None:
    with answering() as (answers, line, _raw):
        line.end_by(None)
        fd, other = given_away(pipe), given_away(pipe)
        answers.send_result(5, fd)
        answers.send_error(5, "S.Wrong", "no", other)
        assert fd.closed
        assert other.closed


def test_what_does_not_fit_or_cannot_be_sent_is_still_to_be_answered() -> None:
    with answering() as (answers, line, _raw):
        with pytest.raises(InvalidResult):
            answers.send_result(5, "three", check())
        with pytest.raises(LocalProtocolError):
            answers.send_result(5, object())
        assert 5 in line.session.requests
        assert not line.entered


def test_a_closed_descriptor_in_a_result_is_named(pipe: tuple[int, int]) -> None:
    with answering() as (answers, _line, raw):
        closed, other = given_away(pipe), given_away(pipe)
        closed.close()
        with pytest.raises(ValueError, match=r"the result.*is given away: return it open"):
            answers.send_result(5, {"fd": closed, "other": other})
        assert other.closed
        answers.send_error(5, "rpc.Internal", "no")
        assert raw.receive()[2][0] == "rpc.Internal"


class NoNumber:
    def fileno(self) -> int:
        raise RuntimeError("none")


def test_what_lends_no_descriptor_fails(pipe: tuple[int, int]) -> None:
    with answering() as (answers, _line, _raw):
        other = given_away(pipe)
        with pytest.raises(RuntimeError, match="none"):
            answers.send_result(5, [NoNumber(), other])
        assert other.closed


def test_descriptors_that_the_peer_refuses_are_said_to_be_lost(pipe: tuple[int, int]) -> None:
    with answering() as (answers, _line, raw):
        refuse_descriptors(raw.sock)
        fd = given_away(pipe)
        answers.send_result(5, fd)
        assert fd.closed
        assert raw.receive()[2][0] == "rpc.DescriptorsLost"
        assert answers.sent_code == "rpc.DescriptorsLost"


def test_large_answers_that_the_peer_refuses_are_said_to_be_too_large() -> None:
    with answering() as (answers, _line, raw):
        refuse_descriptors(raw.sock)
        answers.send_result(5, "x" * 100_000)
        assert raw.receive()[2][0] == "rpc.TooLarge"


@pytest.mark.parametrize(
    "number, code, has_descriptors",
    [
        (errno.EBADF, "rpc.DescriptorsLost", True),
        (errno.EBADF, "rpc.Internal", False),
        (errno.ENOMEM, "rpc.Overloaded", 0),
    ],
)
def test_what_the_kernel_does_not_take_is_answered_otherwise(number: int, code: str, has_descriptors: bool) -> None:
    with answering() as (answers, _line, raw):
        answers._refused(5, has_descriptors, OSError(number, os.strerror(number)))
        assert raw.receive()[2][0] == code


def test_nothing_takes_the_place_of_what_is_refused_on_a_line_that_has_ended() -> None:
    with answering() as (answers, line, raw):
        answers._refused(5, False, seqrpc.ConnectionLost("gone"))
        line.broke(BrokenPipeError(errno.EPIPE, "gone"))
        answers._refused(5, False, OSError(errno.ENOMEM, "no room"))
        line.end_by(None)
        answers.send_result(5, None)
        assert raw.receive() is None


@contextmanager
def unread(answers: Answers, line: Line) -> Iterator[None]:
    """Answer until some waits for a peer that does not read."""
    while not line.unsent_bytes:
        line.session.requests[7] = None
        answers.send_result(7, "x" * 50_000)
    yield


def test_no_more_is_kept_for_a_peer_that_does_not_read() -> None:
    with answering(max_unsent_bytes=100_000, max_message_bytes=200_000) as (answers, line, _raw), unread(answers, line):
        line.session.requests[8] = None
        answers.send_result(8, "x" * 50_000)
        with pytest.raises(Overloaded, match="bytes of answers are not read yet"):
            answers.send_result(8, 1)
        assert not line.is_lost
        for _ in range(5):
            answers.send_error(8, "S.Wrong", "x" * 50_000)
        assert line.is_lost
        assert "bytes of answers unread" in str(line.lost_error())


def test_small_answers_that_nobody_reads_are_counted_by_what_they_cost() -> None:
    with answering(max_unsent_bytes=100_000, max_message_bytes=100_000) as (answers, line, _raw), unread(answers, line):
        count = 0
        while not line.is_lost:
            answers.send_error(8, "S", "")
            count += 1
        assert count < 1000


# Code of the application's runs without the lock, and not in the midst of an answer


def test_sources_that_are_given_up_run_without_the_lock(pipe: tuple[int, int]) -> None:
    with answering() as (answers, line, raw):
        seen = Notes()

        def items() -> Iterator[int]:
            try:
                yield 1
                yield 2
            finally:
                seen.note(Thread(lambda: is_free(line.lock)).result())

        refuse_descriptors(raw.sock)
        begun = items()
        next(begun)
        answers.send_result(5, begun)
        assert raw.receive()[2][0] == "rpc.DescriptorsLost"
        line.family.run_errands()
        assert seen.what == [True]

        line.end_by(None)
        begun = items()
        next(begun)
        answers.send_result(5, begun)
        line.family.run_errands()
        assert seen.what == [True, True]

        begun = items()
        next(begun)
        answers.send_error(5, "S.Wrong", "no", [begun, object()])
        line.family.run_errands()
        assert seen.what == [True, True, True]


def test_the_data_of_an_error_that_cannot_be_sent_is_given_up_without_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Notes()
    with answering() as (answers, line, _raw):

        def give_up(_session: Any, value: Any, _kept: Any = None) -> None:
            seen.note((value, Thread(lambda: is_free(line.lock)).result()))

        monkeypatch.setattr(Session, "give_up", give_up)
        answers.send_error(5, "S.Wrong", "no", [thing := object()])
        assert seen.what == [([thing], True)]


def test_what_encodes_a_result_cannot_call() -> None:
    with raw_peer() as (connection, raw):

        class Calls:
            def fileno(self) -> int:
                connection.call("Other.side")
                return 0

        line = connection._line
        line.session.requests[5] = None
        answers = Answers(line)
        raw.send(1, 0, None, None)
        with pytest.raises(RuntimeError, match="in use by this very thread"):
            answers.send_result(5, {Calls(): 1, "fd": Calls()})
        assert not line.entered


def test_giving_up_raises_nothing_and_does_nothing_in_a_forked_child(pipe: tuple[int, int]) -> None:
    notes = Notes()

    class Object(seqrpc.Service):
        def close(self) -> None:  # type: ignore[override]
            notes.note("close")

    with answering() as (answers, line, _raw):
        answers.give_up(NoNumber())

        def act() -> Any:
            answers.give_up(Object())
            answers.send_result(5, Object())
            line.family.run_errands()
            return notes.what

        assert in_child(act) == []
        answers.give_up(Object())
        line.family.run_errands()
        assert notes.what == ["close"]
