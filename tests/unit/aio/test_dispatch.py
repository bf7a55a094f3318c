from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgpack
import pytest
from daemons import PATIENCE, Stage, as_user, descriptor, needs_root, on_a_pair, raw_client
from helpers import AN_INCIDENT

import seqrpc
from seqrpc import OwnedFd, policy
from seqrpc.aio.dispatch import Registry
from seqrpc.aio.link import explain_refusal

CONVERTED: list[str] = []


@dataclasses.dataclass
class Traced:
    """An argument whose conversion leaves a trace."""

    word: str

    def __post_init__(self) -> None:
        CONVERTED.append(self.word)
        if self.word == "explode":
            raise KeyError(self.word)


class Witness(BaseException):
    """What a handler has no business to raise."""


KEPT: list[weakref.ref[Any]] = []


@dataclasses.dataclass
class Weighty:
    """An argument that shows whether it is still kept."""

    content: bytes

    def __post_init__(self) -> None:
        KEPT.append(weakref.ref(self))


class Insufficient(seqrpc.RpcError, code="test.Insufficient"):
    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} are missing", {"missing": missing})


class Silent(seqrpc.RpcError, code="test.Silent"):
    def __init__(self, number: int) -> None:
        self.number = number  # and nothing else


def raising(exc: Exception) -> None:
    raise exc


def closed_descriptor() -> OwnedFd:
    fd = OwnedFd.dup(0)
    fd.close()
    return fd


def endless() -> list[Any]:
    value: list[Any] = [OwnedFd.dup(0)]
    value.append(value)
    return value


FAILURES: dict[str, Callable[[], Any]] = {
    "typed": lambda: raising(Insufficient(5)),
    "silent": lambda: raising(Silent(5)),
    "number": lambda: raising(seqrpc.RpcError(5, code="test.Number")),  # type: ignore[arg-type]
    "own rpc": lambda: raising(seqrpc.Overloaded("come back later")),
    "unforeseen": lambda: raising(RuntimeError("the secret of the house")),
    "upstream": lambda: raising(seqrpc.RpcError.from_wire("rpc.MethodNotFound", "at another house", None)),
    "upstream takes none": lambda: raising(explain_refusal(OSError(errno.EPERM, "no descriptors"))),
    "upstream typed": lambda: raising(seqrpc.RpcError.from_wire("test.Insufficient", "at another house", [1])),
    "closed descriptor": closed_descriptor,
    "closed descriptor in an error": lambda: raising(
        seqrpc.RpcError("with data", closed_descriptor(), code="test.Data")
    ),
    "descriptor in an error": lambda: raising(seqrpc.RpcError("with data", [OwnedFd.dup(0)], code="test.Data")),
    "endless": endless,
    "large": lambda: [OwnedFd.dup(0), b"x" * 200_000],
    "object": object,
}


class Everything(seqrpc.Service):
    """One method for everything that a handler can do."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.held: list[OwnedFd] = []
        self.file: IO[bytes] | None = None
        self.thread_may_go_on = threading.Event()
        self.thread_ended = threading.Event()
        self.saw_open = False

    @seqrpc.method
    async def add(self, a: int, b: int = 10, *, c: int = 100) -> int:
        return a + b + c

    @seqrpc.method
    async def trace(self, what: Traced) -> str:
        return what.word

    @seqrpc.method
    async def fail(self, kind: str) -> Any:
        return FAILURES[kind]()

    @seqrpc.method
    async def wait(self, name: str, fds: list[OwnedFd] = []) -> str:  # noqa: B006
        self.stage.reach(f"{name} began")
        try:
            await self.stage.wait(f"{name} may go on")
        except asyncio.CancelledError:
            self.stage.reach(f"{name} cancelled")
            raise
        finally:
            self.stage.reach(f"{name} ended")
        return name

    @seqrpc.method
    async def stubborn(self) -> str:
        self.stage.reach("stubborn began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "not now"
        return ""

    @seqrpc.method
    def block(self, fds: list[OwnedFd], *, give_back: bool = False, fail: bool = False) -> OwnedFd | None:
        loop = seqrpc.current_call().connection._loop
        loop.call_soon_threadsafe(self.stage.reach, "block began")
        assert self.thread_may_go_on.wait(PATIENCE)
        try:
            for fd in fds:
                os.fstat(fd.fileno())  # still open, whatever became of the call
            self.saw_open = True
            if fail:
                raise RuntimeError("nobody hears this")
            return OwnedFd.dup(fds[0]) if give_back else None
        finally:
            self.thread_ended.set()

    @seqrpc.method
    def in_thread(self) -> list[Any]:
        call = seqrpc.current_call()
        return [call.method, call.caller.pid, threading.current_thread() is threading.main_thread()]

    @seqrpc.method
    def take(self, what: Weighty, fd: OwnedFd) -> None:
        raise AssertionError("its call was cancelled before its turn")

    @seqrpc.method
    def late_error(self) -> None:
        loop = seqrpc.current_call().connection._loop
        loop.call_soon_threadsafe(self.stage.reach, "late error began")
        assert self.thread_may_go_on.wait(PATIENCE)
        raise seqrpc.RpcError("with data", [OwnedFd.dup(0)], code="test.Data")

    @seqrpc.method
    async def base(self, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise Witness("of the house")

    @seqrpc.method
    def base_in_thread(self, leave: bool) -> None:
        if leave:
            sys.exit(3)
        raise Witness("of the house")

    @seqrpc.method
    def stop_iteration(self) -> None:
        next(iter([]))

    @seqrpc.method
    async def keep(self, fd: OwnedFd, spare: OwnedFd) -> None:
        self.held += [OwnedFd(fd.take()), spare]

    @seqrpc.method
    async def echo(self, fds: list[OwnedFd]) -> list[OwnedFd]:
        return fds

    @seqrpc.method
    async def lend(self) -> Any:
        return self.file

    @seqrpc.method
    async def give_and_keep(self, fds: list[OwnedFd]) -> OwnedFd:
        return fds[0]

    @seqrpc.method(oneway=True)
    async def tell(self, name: str, fd: OwnedFd | None = None) -> Any:
        self.stage.reach(f"told {name}")
        if name == "wait":
            await self.stage.wait("tell may go on")
        if name == "fail":
            raise RuntimeError("nobody hears this")
        return OwnedFd.dup(fd) if fd else None


def in_milliseconds(number: int) -> int:
    return time.monotonic_ns() + number * 1_000_000


async def settle() -> None:
    """Let callbacks that are due run."""
    for _ in range(5):
        await asyncio.sleep(0)


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def same_file(one: OwnedFd, other: OwnedFd) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


async def test_arguments_by_position_and_by_name() -> None:
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.add", 1) == 111
        assert await connection.call("Everything.add", 1, 2) == 103
        assert await connection.call("Everything.add", b=1, c=2, a=3) == 6
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `str` - at `b`"):
            await connection.call("Everything.add", 1, "x")


async def test_where_anything_goes_arguments_and_results_are_passed_on_as_they_came() -> None:
    seen: list[Any] = []

    class Anything(seqrpc.Service):
        @seqrpc.method
        async def look(self, first: Any, second: int, third: Any = None) -> Any:
            seen.extend([first, third])
            return first

    moment = datetime(2024, 1, 1, tzinfo=UTC)
    things = [{1: [b"x", None]}, [1, [2.5]], "a", True, moment, OwnedFd.dup(0)]
    async with on_a_pair(Anything()) as connection:
        proxy = connection.proxy(Anything)
        for thing in things:
            seen.clear()
            for answer in (await connection.call("Anything.look", thing, 5, thing), await proxy.look(thing, 5, thing)):
                if isinstance(thing, OwnedFd):
                    assert isinstance(answer, OwnedFd)
                    assert same_file(answer, thing)
                    answer.close()
                    assert [type(one) for one in seen] == [OwnedFd] * len(seen)
                else:
                    assert (answer, type(answer)) == (thing, type(thing))
                    assert seen == [thing] * len(seen)
            assert len(seen) == 4
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `str` - at `second`"):
            await connection.call("Anything.look", 1, "x")
    things[-1].close()  # type: ignore[attr-defined]


class Watching(seqrpc.Service):
    """Looks at the task and the context that its handlers run in."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.tasks: list[str] = []  # their names, which are all different: one that is kept serves nobody else
        self.fatal: type[BaseException] = KeyboardInterrupt
        self.kept: list[weakref.ref[Any]] = []

    @seqrpc.method
    async def quick(self) -> bool:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task.get_name())
        return task in asyncio.all_tasks()

    @seqrpc.method
    async def slow(self, name: str) -> list[Any]:
        seen: list[Any] = [word.get()]
        word.set(name)
        self.stage.reach(f"{name} began")
        await self.stage.wait("all may go on")
        return [*seen, word.get(), seqrpc.current_call().method, asyncio.current_task() in asyncio.all_tasks()]

    @seqrpc.method
    async def pause(self) -> bool:
        await asyncio.sleep(0)
        return asyncio.current_task() in asyncio.all_tasks()

    @seqrpc.method
    async def die(self) -> None:
        raise self.fatal

    @seqrpc.method
    async def take(self, fd: OwnedFd, waits: bool) -> Weighty:
        self.kept.append(weakref.ref(fd))
        if waits:
            await asyncio.sleep(0)
        return Weighty(b"x")


word: ContextVar[str] = ContextVar("word", default="none")


async def test_a_handler_is_among_all_tasks_and_its_context_is_its_own_to_the_end() -> None:
    service = Watching()
    async with on_a_pair(service) as connection:
        assert await connection.call("Watching.quick") is True
        calls = [asyncio.ensure_future(connection.call("Watching.slow", name)) for name in "ab"]
        for name in "ab":
            await service.stage.wait(f"{name} began")
        assert await connection.call("Watching.quick") is True
        service.stage.reach("all may go on")
        assert await asyncio.gather(*calls) == [["none", name, "Watching.slow", True] for name in "ab"]


async def test_each_handler_has_a_task_of_its_own_whatever_its_connection(socket_path: Path) -> None:
    service = Watching()
    async with (
        seqrpc.serve(service, socket_path),
        seqrpc.connect(socket_path) as one,
        seqrpc.connect(socket_path) as other,
    ):
        for connection in (one, other, one, other):
            await connection.call("Watching.quick")
        assert len(set(service.tasks)) == 4
        calls = [
            asyncio.ensure_future(connection.call("Watching.slow", name))
            for connection, name in ((one, "a"), (other, "b"))
        ]
        for name in "ab":
            await service.stage.wait(f"{name} began")
        await one.close()
        with pytest.raises(seqrpc.ConnectionLost):
            await calls[0]
        await other.call("Watching.quick")
        service.stage.reach("all may go on")
        assert await calls[1] == ["none", "b", "Watching.slow", True]


@pytest.mark.parametrize("waits", [False, True])
async def test_nothing_keeps_what_came_with_a_call_and_what_it_answered_after_its_end(
    waits: bool, pipe: tuple[int, int]
) -> None:
    """Without the garbage collector."""
    KEPT.clear()
    service = Watching()
    async with on_a_pair(service) as connection:
        gc.disable()
        try:
            with OwnedFd.dup(pipe[0]) as fd:
                for _ in range(3):
                    await connection.call("Watching.take", fd, waits)
            assert [kept() for kept in service.kept] == [kept() for kept in KEPT] == [None] * 3
        finally:
            gc.enable()


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_a_loop_that_a_handler_stopped_serves_the_next_call_when_it_runs_again(fatal: type[BaseException]) -> None:
    service = Watching()
    service.fatal = fatal
    ours, theirs = seqrpc.socket_pair()

    async def answer() -> Any:
        return msgpack.unpackb(await loop.sock_recv(ours, 65_536))

    with ours, asyncio.Runner() as runner:
        loop = runner.get_loop()
        ours.setblocking(False)
        server = runner.run(start(service, theirs))
        ours.send(msgpack.packb([0, 1, "Watching.die", []]))
        with pytest.raises(fatal):
            loop.run_forever()
        assert runner.run(answer()) == [1, 1, ["rpc.Internal", AN_INCIDENT, None], None]
        for _ in range(2):
            ours.send(msgpack.packb([0, 1, "Watching.quick", []]))
            assert runner.run(answer()) == [1, 1, None, True]
        ours.send(msgpack.packb([0, 1, "Watching.pause", []]))
        assert runner.run(answer()) == [1, 1, None, True]
        runner.run(server.close())


async def start(service: seqrpc.Service, sock: socket.socket) -> seqrpc.Server:
    return await seqrpc.serve(service, sock=sock)


async def test_ping_answers_whoever_asks() -> None:
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        assert await connection.call("rpc.ping") is None
        await connection.notify("rpc.ping")
        assert await connection.call("rpc.ping") is None


async def test_ping_on_the_wire_closes_descriptors(pipe: tuple[int, int]) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Everything(), sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "rpc.ping", [descriptor(0)], fds=[pipe[0]])
            assert await client.receive() == [1, 1, None, None]
            assert open_count() == before
            await client.send(2, "rpc.ping", [descriptor(0)], fds=[pipe[0]])
            await client.send(0, 2, "rpc.ping", [])
            assert await client.receive() == [1, 2, None, None]
            assert open_count() == before


async def test_an_unknown_method_is_told_to_those_whom_the_policy_admits() -> None:
    class Closed(seqrpc.Service, allow=~policy.anyone):
        @seqrpc.method(allow=policy.anyone)
        async def open(self) -> int:
            return 1

    async with on_a_pair(Everything(), Closed()) as connection:
        for name in ("Everything.nothing", "Nothing.at_all", "nothing", "", "rpc.nothing"):
            with pytest.raises(seqrpc.MethodNotFound, match="there is no method"):
                await connection.call(name)
        with pytest.raises(seqrpc.PermissionDenied, match="not admitted"):
            await connection.call("Closed.nothing")
        assert await connection.call("Closed.open") == 1
    async with on_a_pair(Everything(), allow=policy.uid(4_242)) as connection:
        with pytest.raises(seqrpc.PermissionDenied, match="not admitted"):
            await connection.call("Nothing.at_all")
        await connection.notify("Nothing.at_all")
        await connection.call("rpc.ping")


async def test_the_most_specific_allow_wins() -> None:
    class Default(seqrpc.Service):
        @seqrpc.method
        async def plain(self) -> str:
            return "plain"

        @seqrpc.method(allow=policy.anyone)
        async def open(self) -> str:
            return "open"

    class Open(seqrpc.Service, allow=policy.anyone):
        @seqrpc.method
        async def plain(self) -> str:
            return "plain"

        @seqrpc.method(allow=~policy.anyone)
        async def closed(self) -> str:
            return "closed"

    class Inherited(Open):
        async def closed(self) -> str:
            return "overridden"

    async with on_a_pair(Default(), Open(), Inherited(), allow=~policy.anyone) as connection:
        admitted = []
        for name in (
            "Default.plain",
            "Default.open",
            "Open.plain",
            "Open.closed",
            "Inherited.plain",
            "Inherited.closed",
        ):
            try:
                await connection.call(name)
                admitted.append(name)
            except seqrpc.PermissionDenied:
                continue
        assert admitted == ["Default.open", "Open.plain", "Inherited.plain"]


async def test_arguments_of_a_refused_caller_are_never_converted() -> None:
    CONVERTED.clear()
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.trace", {"word": "refused"})
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.trace", 5)
    assert CONVERTED == []
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.trace", {"word": "admitted"}) == "admitted"
    assert CONVERTED == ["admitted"]


@needs_root
async def test_another_user_is_refused_and_its_arguments_are_never_converted(socket_path: Path) -> None:
    CONVERTED.clear()
    socket_path.parent.chmod(0o755)
    program = "sock = connected(argv[0])\nshow([ask(sock, 0, 1, name, [{'word': 'other'}]) for name in argv[1:]])"
    async with seqrpc.serve(Everything(), socket_path, mode=0o666):
        answers = await as_user(program, socket_path, "Everything.trace", "Everything.nothing", "rpc.ping")
    assert [error and error[0] for error, _result in answers] == ["rpc.PermissionDenied", "rpc.PermissionDenied", None]
    assert CONVERTED == []


async def test_a_type_that_explodes_while_it_is_converted_costs_its_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Everything.trace", {"word": "explode"})
        assert caught.value.message == AN_INCIDENT
        assert "KeyError: 'explode'" in caplog.text
        assert await connection.call("Everything.add", 1) == 111


async def test_typed_errors_come_back_as_their_class_with_their_data() -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(Insufficient, match="5 are missing") as caught:
            await connection.call("Everything.fail", "typed")
        assert caught.value.data == {"missing": 5}
        assert caught.value.remote
        with pytest.raises(Silent):
            await connection.call("Everything.fail", "silent")
        with pytest.raises(seqrpc.RpcError, match=r"test\.Number: 5"):
            await connection.call("Everything.fail", "number")
        with pytest.raises(seqrpc.Overloaded, match="come back later"):
            await connection.call("Everything.fail", "own rpc")
        with pytest.raises(Insufficient, match="at another house"):
            await connection.call("Everything.fail", "upstream typed")
        with pytest.raises(seqrpc.RpcError, match="with data") as another:
            await connection.call("Everything.fail", "descriptor in an error")
        assert another.value.code == "test.Data"
        (fd,) = another.value.data
        fd.close()
        with pytest.raises(seqrpc.RpcError, match=r"test\.Data: with data"):
            await connection.call("Everything.fail", "closed descriptor in an error")


@pytest.mark.parametrize(
    "kind, logged",
    [
        ("unforeseen", "RuntimeError: the secret of the house"),
        ("upstream", "rpc.MethodNotFound: at another house"),
        ("upstream takes none", "the other side takes no descriptors"),
        ("closed descriptor", "ValueError: the descriptor is closed"),
        ("endless", "LocalProtocolError"),
        ("object", "a value of type object cannot be sent"),
    ],
)
async def test_what_was_not_foreseen_is_internal_without_text_and_is_logged_here(
    kind: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Everything.fail", kind)
        assert (caught.value.message, caught.value.data) == (AN_INCIDENT, None)
        assert "Traceback" in caplog.text
        assert logged in caplog.text
        assert await connection.call("Everything.add", 1) == 111


async def test_a_result_that_is_too_large_is_said_to_be() -> None:
    async with on_a_pair(Everything(), limits=seqrpc.Limits(max_message_bytes=100_000)) as connection:
        with pytest.raises(seqrpc.TooLarge, match="100000"):
            await connection.call("Everything.fail", "large")
    async with on_a_pair(Everything()) as connection:
        fd, large = await connection.call("Everything.fail", "large")
        fd.close()
        assert large == b"x" * 200_000


async def test_plain_functions_run_in_threads_and_know_their_call(caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.in_thread") == ["Everything.in_thread", os.getpid(), False]
        with pytest.raises(seqrpc.Internal):
            await connection.call("Everything.stop_iteration")
        assert "a handler raised StopIteration" in caplog.text


async def test_cancelling_a_call_reaches_its_handler_and_its_finally_runs() -> None:
    service = Everything()
    async with on_a_pair(service) as connection:
        call = asyncio.ensure_future(connection.call("Everything.wait", "a"))
        await service.stage.wait("a began")
        call.cancel()
        await service.stage.wait("a ended")
        assert service.stage.reached == ["a began", "a cancelled", "a ended"]
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await connection.call("Everything.add", 1) == 111


async def test_a_cancelled_call_is_still_answered() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            await client.send(0, 7, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await client.send(3, 7)
            assert await client.receive() == [1, 7, ["rpc.Cancelled", "the work was cancelled", None], None]
            await client.send(3, 7)
            await client.send(0, 8, "Everything.stubborn", [])
            await service.stage.wait("stubborn began")
            await client.send(3, 8)
            assert await client.receive() == [1, 8, None, "not now"]


async def test_a_call_that_is_cancelled_before_its_first_step_is_answered_and_its_descriptors_closed(
    pipe: tuple[int, int],
) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    with raw_client(ours) as client:
        await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], fds=[pipe[0]])
        await client.send(3, 1)  # both are there before the server reads either
        async with seqrpc.serve(service, sock=theirs):
            before = open_count()
            answer = await client.receive()
            assert answer == [1, 1, ["rpc.Cancelled", "the work was cancelled", None], None]
            await settle()
            assert service.stage.reached in ([], ["a began", "a cancelled", "a ended"])
            assert open_count() == before


async def test_a_deadline_ends_the_handler_and_is_told() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            for milliseconds in (50, 1_000, 10_000):  # a busy machine may need longer to begin
                await client.send(0, 1, "Everything.wait", ["a"], {"deadline": in_milliseconds(milliseconds)})
                code, message, _data = (await client.receive())[2]
                if service.stage.reached:
                    break
            assert (code, message) == ("rpc.DeadlineExceeded", "the deadline passed while the call ran")
            assert service.stage.reached[-1] == "a ended"
            await client.send(0, 2, "Everything.add", [1], {"deadline": in_milliseconds(60_000)})
            assert await client.receive() == [1, 2, None, 111]
            await client.send(0, 3, "Everything.add", [1], {"deadline": 2**64 - 1})
            assert await client.receive() == [1, 3, None, 111]


async def test_a_call_whose_deadline_has_passed_never_begins(pipe: tuple[int, int]) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], {"deadline": 5}, fds=[pipe[0]])
            code, message, _data = (await client.receive())[2]
            assert (code, message) == ("rpc.DeadlineExceeded", "the deadline passed before the call began")
            assert open_count() == before
    assert service.stage.reached == []


async def test_a_deadline_that_comes_after_its_end_does_no_harm() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            for milliseconds in (20, 1_000, 10_000):  # a busy machine may need longer to answer
                await client.send(0, 1, "Everything.add", [1], {"deadline": in_milliseconds(milliseconds)})
                answer = await client.receive()
                if answer[2] is None:
                    break
            assert answer == [1, 1, None, 111]
            await client.send(0, 2, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await asyncio.sleep(milliseconds / 1_000)  # now it passes
            service.stage.reach("a may go on")
            assert await client.receive() == [1, 2, None, "a"]


async def test_a_lost_connection_cancels_its_handlers(pipe: tuple[int, int]) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with await seqrpc.serve(service, sock=theirs) as server:
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], fds=[pipe[0]])
            await client.send(0, 2, "Everything.stubborn", [])
            await service.stage.wait("stubborn began")
        await service.stage.wait("a ended")
        await server.wait_closed()
        await settle()
    assert "a cancelled" in service.stage.reached
    assert open_count() < before


async def test_a_lost_connection_stops_what_has_not_begun() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    with raw_client(ours) as client:
        await client.send(0, 1, "Everything.wait", ["a"])
    async with await seqrpc.serve(service, sock=theirs) as server:
        await server.wait_closed()
        await settle()
    assert service.stage.reached in ([], ["a began", "a cancelled", "a ended"])


async def test_descriptors_that_nobody_takes_are_closed_when_the_handler_ends(pipe: tuple[int, int]) -> None:
    service = Everything()
    async with on_a_pair(service) as connection:
        before = open_count()
        lent = [OwnedFd.dup(pipe[0]), OwnedFd.dup(pipe[1])]
        assert await connection.call("Everything.keep", *lent) is None
        for fd in lent:
            fd.close()
        taken, left = service.held
        assert not taken.closed
        assert left.closed
        assert os.fstat(taken.fileno()).st_ino == os.fstat(pipe[0]).st_ino
        assert open_count() == before + 1
        taken.close()


async def test_returned_descriptors_are_given_away(pipe: tuple[int, int]) -> None:
    async with on_a_pair(Everything()) as connection:
        before = open_count()
        with OwnedFd.dup(pipe[0]) as first, OwnedFd.dup(pipe[1]) as second:
            echoed = await connection.call("Everything.echo", [first, second])
            assert [os.fstat(fd.fileno()).st_ino for fd in echoed] == [os.fstat(fd).st_ino for fd in pipe]
            given = await connection.call("Everything.give_and_keep", [first, second])
        assert open_count() == before + 3, "what the handler had is closed"
        for fd in (*echoed, given):
            fd.close()


async def test_other_things_with_a_descriptor_are_lent_when_they_are_returned(pipe: tuple[int, int]) -> None:
    service = Everything()
    with os.fdopen(os.dup(pipe[0]), "rb") as service.file:
        async with on_a_pair(service) as connection:
            with await connection.call("Everything.lend") as fd:
                assert os.fstat(fd.fileno()).st_ino == os.fstat(pipe[0]).st_ino
        assert not service.file.closed


async def test_draining_waits_for_handlers_on_behalf_of_all_who_ask() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs) as server:
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a"])
            await client.send(0, 2, "Everything.wait", ["b"])
            await service.stage.wait("b began")
            draining = [asyncio.ensure_future(server.drain(PATIENCE)) for _ in range(2)]
            service.stage.reach("a may go on")
            assert await client.receive() == [5, "the server is stopping"]
            assert await client.receive() == [1, 1, None, "a"]
            assert not any(task.done() for task in draining)
            service.stage.reach("b may go on")
            assert await client.receive() == [1, 2, None, "b"]
            assert await asyncio.gather(*draining) == [True, True]


@pytest.mark.parametrize("kind", ["endless", "large", "object", "closed descriptor"])
async def test_descriptors_of_a_result_that_cannot_be_sent_are_closed(kind: str) -> None:
    async with on_a_pair(Everything(), limits=seqrpc.Limits(max_message_bytes=100_000)) as connection:
        before = open_count()
        with pytest.raises(seqrpc.RpcError):
            await connection.call("Everything.fail", kind)
        assert open_count() == before


@pytest.mark.parametrize("how", ["cancelled", "deadline", "lost"])
async def test_a_thread_keeps_its_descriptors_as_long_as_it_runs_whatever_became_of_its_call(
    how: str, pipe: tuple[int, int]
) -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    before = open_count() - 2
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            options = {"deadline": in_milliseconds(500)} if how == "deadline" else {}
            params = {"fds": [descriptor(0)], "give_back": how != "lost", "fail": how == "lost"}
            await client.send(0, 1, "Everything.block", params, options, fds=[pipe[0]])
            await service.stage.wait("block began")
            if how != "lost":
                if how == "cancelled":
                    await client.send(3, 1)
                answer = await client.receive()
                assert answer[2][0] == ("rpc.Cancelled" if how == "cancelled" else "rpc.DeadlineExceeded")
            else:
                client.sock.close()
                await settle()
            assert not service.thread_ended.is_set()
            service.thread_may_go_on.set()
            assert await asyncio.to_thread(service.thread_ended.wait, PATIENCE)
            assert service.saw_open
    deadline = time.monotonic() + PATIENCE
    while open_count() > before and time.monotonic() < deadline:  # noqa: ASYNC110 - it has ended, and then closes them
        await asyncio.sleep(0.001)
    assert open_count() <= before


async def test_a_call_that_waits_for_a_thread_can_be_cancelled(pipe: tuple[int, int]) -> None:
    service = Everything()
    limits = seqrpc.Limits(max_threads=1)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs, limits=limits):
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.block", [[]])
            await service.stage.wait("block began")
            before = open_count()
            await client.send(0, 2, "Everything.block", [[descriptor(0)]], fds=[pipe[0]])
            await client.send(0, 3, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await client.send(3, 2)
            assert (await client.receive())[1:3] == [2, ["rpc.Cancelled", "the work was cancelled", None]]
            await settle()
            assert open_count() == before
            service.thread_may_go_on.set()
            assert await client.receive() == [1, 1, None, None]


@pytest.mark.parametrize("how", ["cancelled", "deadline", "lost"])
async def test_nothing_is_kept_of_a_call_that_ended_while_it_waited_for_a_thread(
    how: str, pipe: tuple[int, int]
) -> None:
    KEPT.clear()
    service = Everything()
    limits = seqrpc.Limits(max_threads=1)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs, limits=limits):
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.block", [[]])
            await service.stage.wait("block began")
            before = open_count()
            for call_id in range(2, 12):
                options = {"deadline": in_milliseconds(100)} if how == "deadline" else {}
                params = [{"content": b"x" * 1_000}, descriptor(0)]
                await client.send(0, call_id, "Everything.take", params, options, fds=[pipe[0]])
            await client.send(0, 20, "rpc.ping", [])
            if how == "lost":
                assert await client.receive() == [1, 20, None, None]
                client.sock.close()
                before -= 2
            else:
                if how == "cancelled":
                    for call_id in range(2, 12):
                        await client.send(3, call_id)
                for _ in range(11):
                    await client.receive()
            for _ in range(5):
                await settle()
            assert len(KEPT) == 10
            gc.collect()
            assert [ref() for ref in KEPT] == [None] * 10
            assert open_count() <= before
            service.thread_may_go_on.set()


async def test_descriptors_in_an_error_that_comes_after_its_call_ended_are_closed() -> None:
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.late_error", [])
            await service.stage.wait("late error began")
            before = open_count()
            await client.send(3, 1)
            assert (await client.receive())[2][0] == "rpc.Cancelled"
            gc.disable()
            try:
                service.thread_may_go_on.set()
                await client.send(0, 2, "Everything.in_thread", [])
                await client.receive()
                await asyncio.sleep(0.05)
                assert open_count() == before
            finally:
                gc.enable()


@pytest.mark.parametrize(
    "method, argument, logged",
    [
        ("base", False, "Witness: of the house"),
        ("base", True, "Witness: of the house"),
        ("base_in_thread", False, "a handler raised Witness"),
        ("base_in_thread", True, "a handler raised SystemExit"),
    ],
)
async def test_exceptions_that_are_none_cost_their_call_only(
    method: str, argument: bool, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await asyncio.wait_for(connection.call(f"Everything.{method}", argument), PATIENCE)
        assert caught.value.message == AN_INCIDENT
        assert logged in caplog.text
        assert await connection.call("Everything.add", 1) == 111


@pytest.mark.parametrize("waits", [False, True])
def test_a_coroutine_may_end_the_program_and_its_call_is_answered(waits: bool) -> None:
    class Exit(seqrpc.Service):
        @seqrpc.method
        async def leave(self) -> None:
            if waits:
                await asyncio.sleep(0)
            sys.exit(3)

    async def serve(theirs: socket.socket, ours: socket.socket) -> None:
        async with seqrpc.serve(Exit(), sock=theirs):
            with raw_client(ours) as client:
                await client.send(0, 1, "Exit.leave", [])
                answers.append(await client.receive())
                await asyncio.sleep(PATIENCE)

    answers: list[Any] = []
    ours, theirs = seqrpc.socket_pair()
    kept = ours.dup()
    with kept:
        with pytest.raises(SystemExit):
            asyncio.run(serve(theirs, ours))
        kept.setblocking(False)
        assert answers or b"rpc.Internal" in kept.recv(65536)


async def test_a_notify_is_never_answered(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    service = Everything()
    caplog.set_level("DEBUG")
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            for params in (
                ["a", descriptor(0)],
                ["fail", descriptor(0)],
                [5, descriptor(0)],
                [object.__name__, descriptor(0)],
            ):
                await client.send(2, "Everything.tell", params, fds=[pipe[0]])
            await client.send(2, "Everything.nothing", [])
            await client.send(2, "Everything.wait", ["late"], {"deadline": 5})
            for milliseconds in (50, 1_000, 10_000):  # a busy machine may need longer to begin
                await client.send(2, "Everything.wait", ["a"], {"deadline": in_milliseconds(milliseconds)})
                await client.send(0, 0, "rpc.ping", [])
                assert await client.receive() == [1, 0, None, None]
                if "a began" in service.stage.reached:
                    break
            await service.stage.wait("a ended")
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            await settle()
            assert open_count() == before
    assert service.stage.reached == ["told a", "told fail", "told object", "a began", "a cancelled", "a ended"]
    assert "RuntimeError: nobody hears this" in caplog.text
    assert "a NOTIFY of 'Everything.tell' is dropped: rpc.InvalidParams: " in caplog.text


async def test_notifies_beyond_the_limit_are_dropped_and_their_deadlines_with_them(pipe: tuple[int, int]) -> None:
    service = Everything()
    limits = seqrpc.Limits(max_calls_in_flight=2)
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(service, sock=theirs, limits=limits):
        before = open_count()
        with raw_client(ours) as client:
            for _ in range(2):
                await client.send(2, "Everything.tell", ["wait"])
            for _ in range(3):
                options = {"deadline": in_milliseconds(20)}
                await client.send(2, "Everything.tell", ["too many", descriptor(0)], options, fds=[pipe[0]])
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            assert open_count() == before
            await asyncio.sleep(0.03)  # their deadlines pass
            assert service.stage.reached == ["told wait", "told wait"]
            service.stage.reach("tell may go on")
            await settle()
            await client.send(2, "Everything.tell", ["again"])
            await service.stage.wait("told again")


async def test_calls_start_in_order_and_finish_in_any() -> None:
    service = Everything()
    async with on_a_pair(service) as connection:
        calls = [asyncio.ensure_future(connection.call("Everything.wait", name)) for name in "abc"]
        await service.stage.wait("c began")
        assert service.stage.reached == ["a began", "b began", "c began"]
        for name in "bca":
            service.stage.reach(f"{name} may go on")
            await service.stage.wait(f"{name} ended")
        assert await asyncio.gather(*calls) == ["a", "b", "c"]


def test_a_registry_takes_services_only_and_no_name_twice() -> None:
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected, got 5"):
        Registry([5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected, got <class"):
        Registry([Everything])  # type: ignore[list-item]

    class Another(seqrpc.Service, name="Everything"):
        pass

    with pytest.raises(ValueError, match="two services are named 'Everything'"):
        Registry([Everything(), Another()])


def test_a_registry_knows_whether_anything_takes_descriptors() -> None:
    class Plain(seqrpc.Service):
        @seqrpc.method
        async def add(self, a: int) -> int:
            return a

    assert not Registry([Plain()]).takes_descriptors
    assert Registry([Plain(), Everything()]).takes_descriptors
    assert not Registry([]).takes_descriptors


async def test_several_services_share_one_address() -> None:
    class Other(seqrpc.Service, name="org.example.Other"):
        @seqrpc.method
        async def hello(self) -> str:
            return "hello"

    async with on_a_pair(Everything(), Other()) as connection:
        assert await connection.call("org.example.Other.hello") == "hello"
        assert await connection.call("Everything.add", 1) == 111


async def test_refusals_are_logged_with_who_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seqrpc.dispatch")
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.add", 1)
    assert f"'Everything.add' refused to Credentials(pid={os.getpid()}" in caplog.text
