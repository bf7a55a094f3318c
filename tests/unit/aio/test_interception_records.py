"""Every request that ends is told of, once, however it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import RawClient, descriptor, on_a_pair, raw_client
from support.dispatch import Everything, in_milliseconds
from support.interceptors import Audit
from support.processes import in_child
from support.waiting import PATIENCE, turns_of_the_loop

import seqrpc


class Picky(seqrpc.Service):
    @seqrpc.method(allow=lambda _caller: False)
    async def secret(self) -> None:
        raise AssertionError("nobody may call this")

    @seqrpc.method
    async def wrong(self) -> int:
        return "a text"  # type: ignore[return-value]

    @seqrpc.method
    async def large(self) -> bytes:
        return b"x" * 2_000_000

    @seqrpc.method
    async def file(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd.dup(0)

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


def handlers() -> list[Any]:
    """Return the coroutines of the handlers that wait."""
    return [task.get_coro() for task in asyncio.all_tasks() if "Dispatcher._run" in repr(task)]


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[tuple[Audit, RawClient, Everything]]:
    """Serve everything to a client of raw packets."""
    audit, service = Audit(), Everything()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve([service, Picky()], sock=theirs, interceptors=[audit], limits=seqrpc.Limits(**limits)):
        with raw_client(ours) as client:
            yield audit, client, service


async def test_a_record_says_who_called_what_with_what_outcome_and_how_long_it_took() -> None:
    async with served() as (audit, client, service):
        options = {"meta": {"trace": "1"}, "deadline": in_milliseconds(60_000)}
        before = time.monotonic()
        await client.send(0, 1, "Everything.wait", ["a"], options)
        await service.stage.wait("a began")
        began = time.monotonic()
        await turns_of_the_loop()
        assert audit.records == []
        ending = time.monotonic()
        service.stage.reach("a may go on")
        assert await client.receive() == [1, 1, None, "a"]
        (record,) = await audit.wait(1)
        assert (record.method, record.code, record.oneway, record.meta) == (
            "Everything.wait", None, False, {"trace": "1"}
        )  # fmt: skip
        assert record.caller is not None
        assert (record.caller.pid, record.caller.uid) == (os.getpid(), os.geteuid())
        assert ending - began <= record.duration <= time.monotonic() - before


REFUSED = {
    "policy": ((0, 1, "Picky.secret", []), "rpc.PermissionDenied"),
    "unknown": ((0, 1, "Picky.nothing", []), "rpc.MethodNotFound"),
    "unknown service": ((0, 1, "Nothing.at_all", []), "rpc.MethodNotFound"),
    "does not fit": ((0, 1, "Everything.add", ["one"]), "rpc.InvalidParams"),
    "too many arguments": ((0, 1, "Everything.add", [1, 2, 3, 4]), "rpc.InvalidParams"),
    "too late": ((0, 1, "Everything.add", [1], {"deadline": 5}), "rpc.DeadlineExceeded"),
    "explodes": ((0, 1, "Everything.trace", [{"word": "explode"}]), "rpc.Internal"),
}


@pytest.mark.parametrize("kind", [*REFUSED])
@pytest.mark.parametrize("oneway", [False, True])
async def test_what_is_refused_is_told_of_with_the_code_that_was_sent(kind: str, oneway: bool) -> None:
    message, code = REFUSED[kind]
    async with served() as (audit, client, _service):
        await client.send(*((2, *message[2:]) if oneway else message))
        if not oneway:
            answer = await client.receive()
            assert answer[2][0] == code
        (record,) = await audit.wait(1)
        assert (record.method, record.code, record.duration, record.oneway) == (message[2], code, 0.0, oneway)
        assert record.caller is not None
        assert record.caller.pid == os.getpid()


FAILED = {
    "typed": "test.Insufficient",
    "silent": "test.Silent",
    "own rpc": "rpc.Overloaded",
    "unforeseen": "rpc.Internal",
    "closed descriptor": "rpc.Internal",
    "closed descriptor in an error": "test.Data",
    "descriptor in an error": "test.Data",
    "object": "rpc.Internal",
}


@pytest.mark.parametrize("kind", [*FAILED])
async def test_what_a_handler_failed_with_is_told(kind: str) -> None:
    async with served() as (audit, client, _service):
        await client.send(0, 1, "Everything.fail", [kind])
        answer = await client.receive()
        (record,) = await audit.wait(1)
        assert answer[2][0] == record.code == FAILED[kind]
        assert record.duration > 0.0


async def test_results_that_do_not_fit_or_cannot_be_sent_are_no_success() -> None:
    async with served(max_message_bytes=100_000) as (audit, client, _service):
        for number, method in enumerate(("Picky.wrong", "Picky.large")):
            await client.send(0, number, method, [])
            answer = await client.receive()
            assert answer[2][0] == (await audit.wait(number + 1))[-1].code
    assert [code for _method, code in audit.seen] == ["rpc.Internal", "rpc.TooLarge"]


async def test_an_answer_that_the_kernel_does_not_take_is_told_of_as_the_error_in_its_place(socket_path: Path) -> None:
    audit = Audit()
    async with seqrpc.serve(Picky(), socket_path, interceptors=[audit]):
        with raw_client(socket_path) as client:
            try:
                client.sock.setsockopt(socket.SOL_SOCKET, 83, 0)  # SO_PASSRIGHTS
            except OSError:
                pytest.skip("this kernel cannot refuse descriptors")
            await client.send(0, 1, "Picky.file", [])
            answer = await client.receive()
            assert answer[2][0] == "rpc.DescriptorsLost"
            await client.send(0, 2, "rpc.ping", [])
            assert await client.receive() == [1, 2, None, None]
    assert audit.seen == [("Picky.file", "rpc.DescriptorsLost"), ("rpc.ping", None)]


async def test_calls_that_are_cancelled_or_run_out_of_time_are_told_of() -> None:
    async with served() as (audit, client, service):
        await client.send(0, 1, "Everything.wait", ["a"])
        await service.stage.wait("a began")
        await client.send(3, 1)
        await audit.wait(1)
        await client.send(0, 2, "Everything.wait", ["b"], {"deadline": in_milliseconds(20)})
        await audit.wait(2)
        await client.send(0, 3, "Everything.stubborn", [])
        await service.stage.wait("stubborn began")
        await client.send(3, 3)
        await audit.wait(3)
        await client.send(0, 4, "Everything.wait", ["d"])
        await service.stage.wait("d began")
        client.sock.close()  # nobody waits any more
        await audit.wait(4)
    assert audit.seen == [
        ("Everything.wait", "rpc.Cancelled"),
        ("Everything.wait", "rpc.DeadlineExceeded"),
        ("Everything.stubborn", None),
        ("Everything.wait", "rpc.Cancelled"),
    ]


async def test_one_way_calls_are_told_of_with_what_their_callers_never_hear() -> None:
    async with served(max_calls_in_flight=1) as (audit, client, service):
        await client.send(2, "Everything.tell", ["ann"])
        await audit.wait(1)
        await client.send(2, "Everything.tell", ["fail"])
        await audit.wait(2)
        await client.send(2, "Everything.tell", ["wait"])
        await service.stage.wait("told wait")
        await client.send(2, "Everything.tell", ["dropped"])
        await audit.wait(3)
        service.stage.reach("tell may go on")
        await client.send(2, "rpc.ping", [])
        await audit.wait(5)
    assert [(record.code, record.oneway) for record in audit.records if record.method == "Everything.tell"] == [
        (None, True),
        ("rpc.Internal", True),
        ("rpc.Overloaded", True),
        (None, True),
    ]
    assert ("rpc.ping", None) in audit.seen


async def test_calls_over_the_limit_and_those_after_the_last_are_told_of() -> None:
    audit, service = Audit(), Everything()
    ours, theirs = seqrpc.socket_pair()
    limits = seqrpc.Limits(max_calls_in_flight=1)
    async with seqrpc.serve(service, sock=theirs, interceptors=[audit], limits=limits) as server:
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a"])
            await service.stage.wait("a began")
            await client.send(0, 2, "Everything.add", [1])
            await audit.wait(1)
            draining = asyncio.ensure_future(server.drain(PATIENCE))
            await turns_of_the_loop()
            service.stage.reach("a may go on")
            await audit.wait(2)
            await client.send(0, 3, "Everything.add", [1])
            assert await draining
    assert audit.seen == [
        ("Everything.add", "rpc.Overloaded"),
        ("Everything.wait", None),
        ("Everything.add", "rpc.Unavailable"),
    ]


async def test_what_is_built_in_is_told_of_and_so_are_names_that_callers_make_up() -> None:
    async with served() as (audit, client, _service):
        for method in ("rpc.ping", "rpc.nothing", "A." + "b" * 1_000):
            await client.send(0, 1, method, [])
            await client.receive()
    assert audit.seen == [
        ("rpc.ping", None),
        ("rpc.nothing", "rpc.MethodNotFound"),
        ("A." + "b" * 198 + "…", "rpc.MethodNotFound"),
    ]


async def test_a_message_that_was_lost_is_told_of_as_far_as_it_is_known() -> None:
    async with served(max_message_bytes=seqrpc.MAX_PACKET) as (audit, client, _service):
        await client.send(4, 100_000, 7)  # a memory file that did not come with it
        assert (await client.receive())[2][0] == "rpc.TooLarge"
        reader, writer = os.pipe()
        try:
            await client.send(0, 8, "Everything.add", [descriptor(0)], fds=[reader])
        finally:
            os.close(reader)
            os.close(writer)
        assert (await client.receive())[2][0] == "rpc.InvalidParams"
    assert audit.seen == [(None, "rpc.TooLarge"), ("Everything.add", "rpc.InvalidParams")]


async def test_malformed_packets_are_no_requests() -> None:
    async with served() as (audit, client, _service):
        client.sock.send(msgpack.packb([0, "no id", "Everything.add", [1]]))
        assert (await client.receive())[0] == 5
        assert await client.receive() is None
    assert audit.records == []


async def test_a_stream_is_told_of_when_it_is_handed_out() -> None:
    audit = Audit()
    async with on_a_pair(Picky(), interceptors=[audit]) as connection:
        stream = seqrpc.Stream.of(connection.proxy(Picky).count(3))
        async with stream:
            assert await anext(stream) == 0
            await audit.wait(1)
    assert audit.seen == [("Picky.count", None)]


class Broken(seqrpc.Interceptor):
    def ended(self, record: seqrpc.CallRecord) -> None:
        raise KeyError(record.method)


async def test_one_that_fails_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit()
    async with on_a_pair(Everything(), interceptors=[Broken(), audit]) as connection:
        assert await connection.call("Everything.add", 1) == 111
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("Everything.nothing")
        await audit.wait(2)
    assert caplog.text.count("Broken.ended failed") == 2
    assert "KeyError: 'Everything.add'" in caplog.text


async def test_calls_that_never_begin_are_told_of() -> None:
    loop, audit = asyncio.get_running_loop(), Audit()

    def cancelling(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        task = asyncio.Task(coro, loop=loop, context=context)
        if "Dispatcher._run" in repr(coro):
            task.cancel()
        return task

    def failing(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None, **kwargs: Any) -> Any:
        if "Dispatcher._run" in repr(coro):
            raise MemoryError
        return asyncio.Task(coro, loop=loop, context=context)

    async with on_a_pair(Everything(), interceptors=[audit]) as connection:
        before = loop.get_task_factory()
        for factory, error in ((cancelling, seqrpc.Cancelled), (failing, seqrpc.Internal)):
            loop.set_task_factory(factory)
            try:
                for method, arguments in (("Everything.add", (1,)), ("Everything.in_thread", ())):
                    with pytest.raises(error):
                        await asyncio.wait_for(connection.call(method, *arguments), PATIENCE)
            finally:
                loop.set_task_factory(before)
        await audit.wait(4)
    assert [code for _method, code in audit.seen] == [*["rpc.Cancelled"] * 2, *["rpc.Internal"] * 2]


async def test_in_a_forked_child_nothing_is_told() -> None:
    async with served() as (audit, client, service):
        await client.send(0, 1, "Everything.wait", ["a"])
        await service.stage.wait("a began")
        (waiting,) = handlers()

        def use() -> tuple[list[str], int]:
            waiting.close()  # as when the child's interpreter throws it away
            return service.stage.reached, len(audit.records)

        assert in_child(use) == (["a began", "a ended"], 0)
        service.stage.reach("a may go on")
        assert await client.receive() == [1, 1, None, "a"]
    assert audit.seen == [("Everything.wait", None)]


def test_a_call_whose_loop_is_gone_is_told_of_as_cancelled() -> None:
    async def begin() -> list[Any]:
        audit, service = Audit(), Everything()
        ours, theirs = seqrpc.socket_pair()
        server = await seqrpc.serve(service, sock=theirs, interceptors=[audit])
        client = RawClient(ours)
        await client.send(0, 1, "Everything.wait", ["a"])
        await service.stage.wait("a began")
        return [audit, server, ours, *handlers()]

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # its task was not finished
    audit, server, ours, handler = loop.run_until_complete(begin())
    handler.close()
    with ours:
        loop.run_until_complete(server.close())
    loop.close()
    assert audit.seen == [("Everything.wait", "rpc.Cancelled")]
