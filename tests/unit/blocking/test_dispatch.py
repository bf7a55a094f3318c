from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import msgpack
import pytest
from support import processes
from support.sync import Notes, Raw, Thread, far, raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.dispatch import MAX_NESTED_CALLS, Dispatcher
from seqrpc.errors import DeadlineExceeded, WrongProcess
from seqrpc.interface.entries import MethodTable
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import Limits
from seqrpc.protocol.messages import NO_OPTIONS, Request


class Wrong(seqrpc.RpcError, code="blocking.dispatch.Wrong"):
    """An error of an application's own."""


def wrapped(function: Callable[..., Any], returns: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*_args: Any, **_kwargs: Any) -> Any:
        return returns()

    return wrapper


async def nothing() -> None: ...


class Pause:
    """What waits for whoever runs coroutines."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Odd:
    """An argument that cannot be made."""

    def __init__(self, value: int) -> None:
        raise OSError("odd")


seqrpc.register_type(Odd, wire_type=int, encode=lambda _odd: 0, decode=Odd)


class Panic(BaseException):
    """As those are that code in other languages raises as it panics."""


def panics(_caller: Any) -> bool:
    raise Panic


class Plain(seqrpc.Service, name="S"):
    """Handlers of every kind."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.act: Callable[[], Any] = lambda: None

    @seqrpc.method
    def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    def do(self) -> Any:
        """Do what the test says."""
        return self.act()

    @seqrpc.method
    def keep(self, fd: OwnedFd) -> bool:
        self.notes.note(fd)
        return not fd.closed

    @seqrpc.method
    async def add_without_waiting(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def wait(self) -> None:
        try:
            await Pause()
        finally:
            self.notes.note("finally")

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
        finally:
            self.notes.note("finally")

    @seqrpc.method
    async def contents(self, fd: OwnedFd) -> AsyncIterator[bool]:
        yield not fd.closed
        self.notes.note(fd)

    @seqrpc.method
    async def wrongly_awaited(self) -> None: ...

    @seqrpc.method
    async def wrongly_iterated(self, fd: OwnedFd) -> AsyncIterator[int]:
        yield 1

    @seqrpc.method(oneway=True)
    def tell(self, what: str) -> None:
        self.notes.note(what)

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    def forbidden(self) -> None: ...

    @seqrpc.method(allow=panics)
    def panics(self) -> None: ...

    def unmarked(self) -> None: ...


def ask(connection: blocking.Connection, raw: Raw, method: str, *params: Any, fds: Any = ()) -> Any:
    """Return error and result of a call that the other side makes."""
    raw.send(0, 5, method, params, fds=fds)
    connection.process()
    kind, call_id, error, result = raw.receive()
    assert (kind, call_id) == (1, 5)
    return error if error is not None else result


def test_a_policy_that_panics_costs_its_call_only() -> None:
    with raw_peer(services=Plain()) as (connection, raw):
        assert ask(connection, raw, "S.panics")[0] == "rpc.PermissionDenied"
        assert ask(connection, raw, "S.add", 2, 3) == 5


# Kinds of handlers


def test_handlers_are_run_and_answered() -> None:
    with raw_peer(services=Plain()) as (connection, raw):
        assert ask(connection, raw, "S.add", 2, 3) == 5
        assert ask(connection, raw, "S.add_without_waiting", 2, 3) == 5
        assert ask(connection, raw, "rpc.ping") is None


def test_a_coroutine_that_waits_is_ended_and_its_caller_told(caplog: pytest.LogCaptureFixture) -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        assert ask(connection, raw, "S.wait")[0] == "rpc.Internal"
        assert service.notes.what == ["finally"]
    assert "S.wait waits for something, and there is no event loop here" in caplog.text


def test_streams_are_produced_while_anything_waits() -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        raw.send(0, 5, "S.count", [3])
        connection.process()
        message, end = raw.receive_end()
        assert message[3] == msgpack.ExtType(2, b"\0")
        connection.process()
        assert end.rest() == [[0, 0], [0, 1, 2], [1, None]] or service.notes.what == ["finally"]
        end.close()


def test_descriptors_live_as_long_as_the_handler_or_its_stream(pipe: tuple[int, int]) -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        fd = msgpack.ExtType(1, b"\0")
        assert ask(connection, raw, "S.keep", fd, fds=[pipe[0]]) is True
        (kept,) = service.notes.what
        assert kept.closed
        raw.send(0, 5, "S.contents", [fd], fds=[pipe[0]])
        connection.process()
        _message, end = raw.receive_end()
        connection.process()
        assert end.receive() == [0, True]
        end.close()
        connection.process()
        assert len(service.notes.what) == 1 or service.notes.what[1].closed


def test_wrappers_that_return_something_else_fail_and_leak_nothing(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    class Wrapping(Plain, name="S"):
        wrongly_awaited = seqrpc.method(wrapped(Plain.wrongly_awaited, lambda: 3))
        wrongly_iterated = seqrpc.method(wrapped(Plain.wrongly_iterated, nothing))

    with raw_peer(services=Wrapping()) as (connection, raw):
        assert ask(connection, raw, "S.wrongly_awaited")[0] == "rpc.Internal"
        fd = msgpack.ExtType(1, b"\0")
        assert ask(connection, raw, "S.wrongly_iterated", fd, fds=[pipe[0]])[0] == "rpc.Internal"
    assert "returned an object of int and not something to await" in caplog.text
    assert "returned an object of coroutine and not an async iterator" in caplog.text


def test_a_plain_function_that_returns_a_coroutine_fails(caplog: pytest.LogCaptureFixture) -> None:
    service = Plain()
    service.act = nothing
    with raw_peer(services=service) as (connection, raw):
        assert ask(connection, raw, "S.do")[0] == "rpc.Internal"
    assert "S.do is a plain function, and returned a coroutine" in caplog.text


def test_a_plain_function_may_return_an_iterator() -> None:
    service = Plain()
    service.act = lambda: iter([1, 2])
    with raw_peer(services=service) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        connection.process()
        _message, end = raw.receive_end()
        connection.process()
        assert end.receive()[1] == 1
        end.close()


# Errors


def test_errors_reach_the_caller() -> None:
    service = Plain()

    def fail() -> None:
        raise Wrong("no", data=3)

    service.act = fail
    with raw_peer(services=service) as (connection, raw):
        assert ask(connection, raw, "S.do") == ["blocking.dispatch.Wrong", "no", 3]
        assert ask(connection, raw, "S.nothing")[0] == "rpc.MethodNotFound"
        assert ask(connection, raw, "S.unmarked")[0] == "rpc.MethodNotFound"
        assert ask(connection, raw, "S.forbidden")[0] == "rpc.PermissionDenied"
        assert ask(connection, raw, "S.add", "x", 3)[0] == "rpc.InvalidParams"


@pytest.mark.parametrize("error", [StopIteration(), ValueError("secret"), RecursionError()])
def test_what_nobody_foresaw_is_internal(error: Exception) -> None:
    service = Plain()

    def fail() -> None:
        raise error

    service.act = fail
    with raw_peer(services=service) as (connection, raw):
        code, message, _data = ask(connection, raw, "S.do")
        assert code == "rpc.Internal"
        assert "secret" not in message


def test_arguments_whose_conversion_fails_are_internal() -> None:
    class Converting(seqrpc.Service, name="C"):
        @seqrpc.method
        def take(self, odd: Odd) -> None: ...

    with raw_peer(services=Converting()) as (connection, raw):
        assert ask(connection, raw, "C.take", 3)[0] == "rpc.Internal"


def test_a_result_that_does_not_fit_or_cannot_be_sent_is_an_error(pipe: tuple[int, int]) -> None:
    class Unfit(seqrpc.Service, name="U"):
        @seqrpc.method
        def number(self) -> int:
            return "none"  # type: ignore[return-value]

        @seqrpc.method
        def given(self) -> Any:
            return [OwnedFd(os.dup(pipe[0])), object()]

    with raw_peer(services=Unfit()) as (connection, raw):
        assert ask(connection, raw, "U.number")[0] == "rpc.Internal"
        assert ask(connection, raw, "U.given")[0] == "rpc.Internal"


def test_the_data_of_an_error_that_is_closed_is_left_out(pipe: tuple[int, int]) -> None:
    service = Plain()

    def fail() -> None:
        fd = OwnedFd(os.dup(pipe[0]))
        fd.close()
        raise Wrong("no", data=fd)

    service.act = fail
    with raw_peer(services=service) as (connection, raw):
        assert ask(connection, raw, "S.do") == ["blocking.dispatch.Wrong", "no", None]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_is_answered_and_raised_in_the_thread_that_waits(error: type[BaseException]) -> None:
    service = Plain()

    def fail() -> None:
        raise error

    service.act = fail
    with raw_peer(services=service) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        with pytest.raises(error):
            connection.process()
        assert raw.receive() == [1, 5, ["rpc.Cancelled", "the work was interrupted", None], None]
        raw.send(0, 6, "S.do", [])
        with pytest.raises(error):
            connection.call("Other.side")
        assert raw.receive() == [0, 0, "Other.side", []]
        assert raw.receive()[1:3] == [6, ["rpc.Cancelled", "the work was interrupted", None]]
        assert raw.receive() == [3, 0]  # the call that waited was given up


# Requests


def test_one_way_calls_are_run_and_not_answered() -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        raw.send(2, "S.tell", ["first"])
        raw.send(2, "S.nothing", [])
        raw.send(2, "S.tell", [3])
        assert ask(connection, raw, "rpc.ping") is None
        assert service.notes.what == ["first"]


def test_a_call_whose_deadline_has_passed_is_not_run() -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        raw.send(0, 5, "S.do", [], {"deadline": time.monotonic_ns() - 1})
        connection.process()
        assert raw.receive()[2][0] == "rpc.DeadlineExceeded"


def test_what_a_handler_calls_has_its_deadline_and_a_stream_of_its_result_has_none() -> None:
    service = Plain()
    deadline = time.monotonic_ns() + 10**12

    def act() -> Iterator[Any]:
        seen = blocking.current_call().deadline

        def items() -> Iterator[Any]:
            yield seen
            connection.notify("Other.side")
            yield blocking.current_call().method

        return items()

    service.act = act
    with raw_peer(services=service) as (connection, raw):
        raw.send(0, 5, "S.do", [], {"deadline": deadline})
        connection.process()
        _message, end = raw.receive_end()
        while not service.notes.what:
            connection.process()
            message = end.receive()
            if message[0] == 1:
                break
            assert message[1] in (deadline / 1e9, "S.do")
        assert raw.receive() == [2, "Other.side", []]
        end.close()


def test_large_requests_are_refused_while_others_are_worked_on() -> None:
    service = Plain()
    limits = Limits(max_held_bytes=200_000)
    with raw_peer(services=service, limits=limits) as (connection, _raw):
        dispatcher = connection._line.handler
        assert isinstance(dispatcher, Dispatcher)
        assert dispatcher.lack_of_room(10**9) is None  # one alone always can
        dispatcher._held_bytes = 150_000
        assert dispatcher.lack_of_room(1000) is None
        assert "max_held_bytes" in str(dispatcher.lack_of_room(60_000))
        dispatcher._held_bytes = 0


def test_a_request_for_a_line_that_is_gone_is_dropped(pipe: tuple[int, int]) -> None:
    with raw_peer(services=Plain()) as (connection, _raw):
        dispatcher = Dispatcher(MethodTable([Plain()]), Limits())
        dispatcher.line_made(connection._line)
        dispatcher._line = lambda: None  # type: ignore[assignment]
        fd = OwnedFd(os.dup(pipe[0]))
        dispatcher.serve(Request(5, "S.add", [1, 2], NO_OPTIONS, [fd]), None)
        assert fd.closed
        dispatcher.line_lost()


def test_a_caller_who_is_not_known_is_refused() -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        dispatcher = connection._line.handler
        connection._line.session.requests[9] = None
        dispatcher.serve(Request(9, "S.do", [], NO_OPTIONS, []), None)
        assert raw.receive()[2][0] == "rpc.PermissionDenied"


def test_requests_without_end_do_not_outlast_the_deadline_of_a_call() -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):

        def again() -> None:
            raw.send(0, 1 + len(service.notes.what) % 2, "S.do", [])
            raw.sock.setblocking(False)
            service.notes.note("ran")

        service.act = again
        raw.send(0, 5, "S.do", [])
        raw.sock.setblocking(False)

        def drain() -> None:
            while not over.is_set():
                try:
                    raw.sock.recv(65_536)
                except BlockingIOError:
                    continue

        over = threading.Event()
        draining = Thread(drain)
        with pytest.raises(DeadlineExceeded), seqrpc.timeout(0.05):
            connection.call("Other.side")
        over.set()
        draining.result()
        assert len(service.notes.what) > 1


def test_an_answer_comes_through_while_an_object_is_called_without_end() -> None:
    class Endless(seqrpc.Service):
        @seqrpc.method(oneway=True)
        def hit(self) -> None:
            hits.note("hit")
            end.send(2, "Endless.hit", [])  # there is always one more
            if len(hits.what) == 50:
                raw.send(1, 1, None, "answer")

    hits = Notes()
    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, None)
        connection.call("Other.take", Endless())
        _message, end = raw.receive_end()
        end.send(2, "Endless.hit", [])
        assert connection.call("Other.side") == "answer"
        assert 50 <= len(hits.what) < 100
        end.close()


# Handlers in one another


def test_handlers_nest_as_deep_as_is_bearable() -> None:
    class Deep(seqrpc.Service):
        @seqrpc.method
        def down(self, left: int) -> Any:
            connection = blocking.current_call().connection
            try:
                return connection.call("Deep.down", left - 1) if left else "bottom"
            except seqrpc.Overloaded as exc:
                return exc.message

    with far(Deep(), near={"services": Deep(), "allow": seqrpc.policy.anyone}) as (connection, _other):
        assert connection.call("Deep.down", 20) == "bottom"
        refusal = f"{MAX_NESTED_CALLS} handlers of this thread wait for one another already"
        assert connection.call("Deep.down", 200) == refusal
        assert connection.call("Deep.down", 20) == "bottom"


def test_a_handler_sees_the_connection_that_it_is_called_on() -> None:
    service = Plain()
    with raw_peer(services=service) as (connection, raw):
        service.act = lambda: blocking.current_call().connection is connection
        assert ask(connection, raw, "S.do") is True


def test_a_handler_of_an_object_sees_its_own_connection() -> None:
    seen = []

    class Object(seqrpc.Service):
        @seqrpc.method
        def hit(self) -> None:
            here = blocking.current_call().connection
            assert here is blocking.current_call().connection
            seen.append(here)

    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, None)
        connection.call("Other.take", Object())
        _message, end = raw.receive_end()
        end.send(0, 1, "Object.hit", [])
        connection.process()
        assert end.receive() == [1, 1, None, None]
        assert seen[0] is not connection
        end.close()


# Interceptors


class Surrounding(blocking.Interceptor):
    """Notes what happens, and gives away something else than it was given."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.instead: Callable[[Any], Any] = lambda result: result

    def handle(self, call: blocking.CurrentCall, proceed: Callable[[], Any]) -> Any:
        result = proceed()
        with pytest.raises(RuntimeError, match="a handler runs once"):
            proceed()
        return self.instead(result)

    def ended(self, record: seqrpc.CallRecord) -> None:
        self.notes.note((record.method, record.code))
        raise ValueError("at the end")


def test_handlers_are_surrounded_and_what_is_replaced_is_let_go(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    service, surrounding = Plain(), Surrounding()
    with raw_peer(services=service, interceptors=[surrounding]) as (connection, raw):
        assert ask(connection, raw, "S.add", 2, 3) == 5
        fd = OwnedFd(os.dup(pipe[0]))
        service.act, surrounding.instead = lambda: fd, lambda _fd: "another"
        assert ask(connection, raw, "S.do") == "another"
        assert fd.closed

        def fail(_result: Any) -> Any:
            raise Wrong("no")

        surrounding.instead = fail
        assert ask(connection, raw, "S.do")[0] == "blocking.dispatch.Wrong"
        assert surrounding.notes.what == [("S.add", None), ("S.do", None), ("S.do", "blocking.dispatch.Wrong")]
    assert "Surrounding.ended failed" in caplog.text


def test_a_handler_that_is_left_in_a_thread_gives_nobody_what_it_returns(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[0]))
    go_on = threading.Event()
    left: list[Thread] = []

    class Leaving(blocking.Interceptor):
        def handle(self, call: blocking.CurrentCall, proceed: Callable[[], Any]) -> Any:
            left.append(Thread(proceed))

    def act() -> Any:
        assert go_on.wait(30)
        return fd

    service = Plain()
    service.act = act
    with raw_peer(services=service, interceptors=[Leaving()]) as (connection, raw):
        assert ask(connection, raw, "S.do") is None
        go_on.set()
        assert left[0].result() is None
        assert fd.closed


# In a forked child


def test_a_fork_in_a_handler_answers_nothing_and_says_so_in_the_child() -> None:
    service = Plain()
    reader, writer = os.pipe()
    closed = Notes()

    class Given(seqrpc.Service):
        @seqrpc.method
        def hit(self) -> None: ...

        def close(self) -> None:  # type: ignore[override]
            closed.note("close")

    class Audit(blocking.Interceptor):
        def ended(self, record: seqrpc.CallRecord) -> None:
            closed.note("ended")

    def fork() -> Any:
        pid = processes.fork()
        service.notes.note(pid)
        return given if pid == 0 else "parent"

    given = Given()
    service.act = fork
    with raw_peer(services=service, interceptors=[Audit()]) as (connection, raw):
        raw.send(0, 5, "S.do", [])
        raw.send(1, 0, None, "answer")
        try:
            result = connection.call("Other.side")
        except BaseException as exc:
            result = f"{type(exc) is WrongProcess} {exc.execution is seqrpc.Execution.MAY_HAVE_RUN}"  # type: ignore[attr-defined]
        if service.notes.what == [0]:
            os.write(writer, f"{result} {closed.what}".encode())
            os._exit(0)
        (pid,) = service.notes.what
        os.waitpid(pid, 0)
        assert os.read(reader, 1000) == b"True True []"
        assert result == "answer"
        assert raw.receive() == [0, 0, "Other.side", []]
        assert raw.receive() == [1, 5, None, "parent"]
    os.close(reader)
    os.close(writer)
