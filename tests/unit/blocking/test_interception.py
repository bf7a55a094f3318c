from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import in_child
from support.sync import Notes, Thread, far, raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.current import CurrentCall
from seqrpc.blocking.interception import InterceptedCaller, caller_of
from seqrpc.blocking.interceptors import NO_INTERCEPTION, Interceptor, Proceed
from seqrpc.calls.records import CallRecord, OutgoingCall
from seqrpc.kernel.descriptors import OwnedFd


class Wrong(seqrpc.RpcError, code="blocking.interception.Wrong"):
    """An error of an application's own."""


class S(seqrpc.Service):
    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self.act = act

    @seqrpc.method
    def do(self) -> Any:
        return self.act()

    @seqrpc.method(oneway=True)
    def tell(self, what: Any) -> None: ...

    @seqrpc.method(oneway=True)
    def fail(self) -> None:
        raise Wrong("no")

    @seqrpc.method
    def take(self, number: int) -> None: ...


class Diary(Interceptor):
    """Writes down calls as they begin and end, on either side."""

    def __init__(self, name: str, notes: Notes) -> None:
        self.name = name
        self.notes = notes

    def handle(self, call: CurrentCall, proceed: Proceed) -> Any:
        self.notes.note(f"{self.name} {call.method}")
        try:
            return proceed()
        finally:
            self.notes.note(f"{self.name} end")

    def request(self, call: OutgoingCall, proceed: Proceed) -> Any:
        self.notes.note((self.name, call.method, call.oneway, call.deadline is not None, dict(call.meta)))
        return proceed()


class Handling(Interceptor):
    """Handles as the test says."""

    def __init__(self, handle: Callable[[Proceed], Any]) -> None:
        self._handle = handle

    def handle(self, call: CurrentCall, proceed: Proceed) -> Any:
        return self._handle(proceed)


class Audit(Interceptor):
    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def ended(self, record: CallRecord) -> None:
        self.records.append(record)
        raise ValueError("at the end")

    @property
    def seen(self) -> list[tuple[str | None, str | None]]:
        return [(record.method, record.code) for record in self.records]


def ask(handle: Callable[[Proceed], Any], act: Callable[[], Any]) -> Any:
    with raw_peer(services=S(act), interceptors=[Handling(handle)]) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        connection.process()
        _kind, _id, error, result = raw.receive()
        return result if error is None else error


# Calls of this side


def test_calls_are_surrounded_from_the_outermost_on() -> None:
    notes = Notes()
    with raw_peer(interceptors=[Diary("outer", notes), Diary("inner", notes)]) as (connection, raw):
        raw.send(1, 0, None, 7)
        with seqrpc.timeout(100), seqrpc.metadata(by="me"):
            assert connection.call("X.y", 1) == 7
        connection.notify("X.tell")
        assert notes.what == [
            ("outer", "X.y", False, True, {"by": "me"}),
            ("inner", "X.y", False, True, {"by": "me"}),
            ("outer", "X.tell", True, False, {}),
            ("inner", "X.tell", True, False, {}),
        ]
        assert raw.receive()[4]["meta"] == {"by": "me"}
        assert raw.receive() == [2, "X.tell", []]


def test_an_interceptor_may_call_again_and_say_more() -> None:
    class Again(Interceptor):
        def request(self, call: OutgoingCall, proceed: Proceed) -> Any:
            with seqrpc.metadata(attempt="1"):
                try:
                    return proceed()
                except seqrpc.RpcError:
                    return proceed()

    with raw_peer(interceptors=[Again()]) as (connection, raw):
        raw.send(1, 0, ["X.Wrong", "no", None], None)
        raw.send(1, 1, None, 7)
        assert connection.call("X.y") == 7
        assert raw.receive() == [0, 0, "X.y", [], {"meta": {"attempt": "1"}}]
        assert raw.receive() == [0, 1, "X.y", [], {"meta": {"attempt": "1"}}]


def test_idempotent_calls_and_those_of_objects_are_surrounded_too() -> None:
    class Giving(seqrpc.Service):
        @seqrpc.method(idempotent=True)
        def give(self) -> Any:
            return S(lambda: 3)

    notes = Notes()
    with far(Giving(), near={"interceptors": [Diary("near", notes)]}) as (connection, _other):
        with connection.proxy(Giving).give() as channel:
            assert channel.call("S.do") == 3
        assert [note[1] for note in notes.what] == ["Giving.give", "S.do"]


def test_where_nobody_looks_nothing_is_surrounded() -> None:
    with raw_peer() as (connection, _raw):
        assert not isinstance(caller_of(connection._line, NO_INTERCEPTION), InterceptedCaller)


# Handlers


def test_handlers_are_surrounded_from_the_outermost_on() -> None:
    notes = Notes()
    service = S(lambda: notes.note("handler"))
    with raw_peer(services=service, interceptors=[Diary("outer", notes), Diary("inner", notes)]) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        connection.process()
        assert raw.receive() == [1, 5, None, None]
    assert notes.what == ["outer S.do", "inner S.do", "handler", "inner end", "outer end"]


def test_a_handler_runs_once() -> None:
    def twice(proceed: Proceed) -> Any:
        proceed()
        with pytest.raises(RuntimeError, match="a handler runs once"):
            proceed()
        kept.append(proceed)
        return "done"

    kept: list[Proceed] = []
    assert ask(twice, lambda: 1) == "done"
    with pytest.raises(RuntimeError, match="a handler runs once"):
        kept[0]()


def test_what_is_not_passed_on_is_let_go(pipe: tuple[int, int]) -> None:
    fds = [OwnedFd(os.dup(pipe[0])) for _ in range(4)]

    def replace(proceed: Proceed) -> Any:
        proceed()
        return "another"

    assert ask(replace, lambda: fds[0]) == "another"
    assert fds[0].closed

    def fail(proceed: Proceed) -> Any:
        proceed()
        raise Wrong("no")

    assert ask(fail, lambda: fds[1])[0] == "blocking.interception.Wrong"
    assert fds[1].closed

    def wrap(proceed: Proceed) -> Any:
        return {"wrapped": proceed()[0]}

    with raw_peer(services=S(lambda: [fds[2], fds[3]]), interceptors=[Handling(wrap)]) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        connection.process()
        _message, got = raw.receive_with()
        assert len(got) == 1
        got[0].close()
    assert fds[2].closed
    assert fds[3].closed


def test_the_data_of_an_error_that_is_raised_instead_is_kept(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[0]))

    def fail(proceed: Proceed) -> Any:
        raise Wrong("no", data=proceed())

    with raw_peer(services=S(lambda: fd), interceptors=[Handling(fail)]) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        connection.process()
        _message, got = raw.receive_with()
        got[0].close()
    assert fd.closed


def test_a_handler_that_is_left_in_a_thread_gives_nobody_what_it_returns(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[0]))
    go_on = threading.Event()
    left: list[Thread] = []

    def act() -> Any:
        assert go_on.wait(30)
        return fd

    def leave(proceed: Proceed) -> Any:
        left.append(Thread(proceed))
        return "at once"

    with raw_peer(services=S(act), interceptors=[Handling(leave)]) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        connection.process()
        assert raw.receive()[3] == "at once"
        go_on.set()
        assert left[0].result() is None
        assert fd.closed


# Records


def test_every_request_that_has_ended_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit()

    def interrupted() -> Iterator[None]:
        raise KeyboardInterrupt

    service = S()
    with raw_peer(services=service, interceptors=[audit]) as (connection, raw):
        raw.send(0, 1, "S.do", [], {"meta": {"by": "me"}})
        raw.send(0, 2, "S.none", [])
        raw.send(2, "S.none", [])
        raw.send(2, "S.tell", [1])
        raw.send(2, "S.fail", [])
        raw.send(0, 3, "S.take", ["x"])
        raw.send(0, 4, "rpc.ping", [])
        connection.process()
        service.act = interrupted
        raw.send(0, 5, "S.do", [])
        with pytest.raises(KeyboardInterrupt):
            connection.process()
    assert audit.seen == [
        ("S.do", None),
        ("S.none", "rpc.MethodNotFound"),
        ("S.none", "rpc.MethodNotFound"),
        ("S.tell", None),
        ("S.fail", "blocking.interception.Wrong"),
        ("S.take", "rpc.InvalidParams"),
        ("rpc.ping", None),
        ("S.do", "rpc.Cancelled"),
    ]
    assert [record.oneway for record in audit.records[:5]] == [False, False, True, True, True]
    assert audit.records[0].meta == {"by": "me"}
    assert audit.records[0].caller is not None
    assert [record.duration > 0 for record in audit.records] == [True, False, False, True, True, False, False, True]
    assert "Audit.ended failed" in caplog.text


def test_a_one_way_handler_that_is_interrupted_is_not_told_as_a_success() -> None:
    audit = Audit()

    class Interrupted(seqrpc.Service, name="S"):
        @seqrpc.method(oneway=True)
        def stop(self) -> None:
            raise SystemExit

    with raw_peer(services=Interrupted(), interceptors=[audit]) as (connection, raw):
        raw.send(2, "S.stop", [])
        with pytest.raises(SystemExit):
            connection.process()
    assert audit.seen == [("S.stop", "rpc.Cancelled")]


def test_a_forked_child_tells_nobody() -> None:
    audit = Audit()

    def act() -> int:
        connection._line.handler._tell("S.do", None, None, oneway=False)  # type: ignore[attr-defined]
        return len(audit.records)

    with raw_peer(services=S(), interceptors=[audit]) as (connection, _raw):
        assert in_child(act) == 0
    assert isinstance(connection, blocking.Connection)
