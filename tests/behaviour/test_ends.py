"""How connections end, and what is known of that; and what comes from those who break the protocol."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import Stage, daemon, raw_client, wait_until_it_listens
from support.echo import Echo
from support.faces import Kind
from support.oneway import Log
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import Limits


class Gate(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("began")
        await self.stage.wait("go on")
        return "waited"


async def error_of(awaitable: Any) -> seqrpc.SeqrpcError:
    with pytest.raises(seqrpc.SeqrpcError) as caught:
        async with asyncio.timeout(PATIENCE):
            await awaitable
    return caught.value


async def test_calls_of_a_connection_that_is_lost_fail_at_once(kind: Kind) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with kind.connected(sock=ours) as client:
        with raw_client(theirs) as peer:
            calls = [asyncio.ensure_future(client.call("Gone.wait")) for _ in range(3)]
            for _ in calls:
                await peer.receive()
        errors = [await error_of(call) for call in calls]
        assert {(type(error), str(error), error.execution) for error in errors} == {
            (seqrpc.ConnectionLost, "the connection ended", seqrpc.Execution.MAY_HAVE_RUN)
        }
        for after in (client.call("Gone.wait"), client.notify("Gone.wait")):
            error = await error_of(after)
            assert (type(error), error.execution) == (seqrpc.ConnectionLost, seqrpc.Execution.DID_NOT_RUN)
        assert client.closed


async def test_closing_gives_up_the_calls_that_wait(kind: Kind) -> None:
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        client = await kind.connect(sock=ours)
        calls = [asyncio.ensure_future(client.call("Deaf.wait")) for _ in range(3)]
        for _ in calls:
            await peer.receive()
        await client.close()
        for call in calls:
            error = await error_of(call)
            assert type(error) is seqrpc.ConnectionLost
            assert "closed on this side" in str(error)


async def test_a_server_that_drains_says_so_and_lets_what_runs_finish(kind: Kind, socket_path: Path) -> None:
    gate = Gate()
    server = await seqrpc.serve(gate, socket_path)
    async with kind.connected(socket_path) as client:
        assert client.closing_reason is None
        call = asyncio.ensure_future(client.call("Gate.wait"))
        await gate.stage.wait("began")
        draining = asyncio.ensure_future(server.drain(PATIENCE))
        await comes_true(lambda: client.closing_reason is not None)
        error = await error_of(client.call("rpc.ping"))
        assert isinstance(error, seqrpc.Unavailable)
        assert error.reason == client.closing_reason == "the server is stopping"
        assert error.execution is seqrpc.Execution.DID_NOT_RUN
        assert isinstance(await error_of(client.notify("rpc.ping")), seqrpc.Unavailable)
        gate.stage.reach("go on")
        assert await call == "waited"
        await draining
        ended = await error_of(client.call("rpc.ping"))
        assert "the server is stopping" in str(ended)
        assert client.closing_reason == "the server is stopping"


async def test_a_server_that_is_killed_in_a_call(kind: Kind, socket_path: Path) -> None:
    program = """
import os, signal, sys
import seqrpc

class Daemon(seqrpc.Service):
    @seqrpc.method
    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

seqrpc.run(Daemon(), sys.argv[1])
"""
    with daemon(program, socket_path) as child:
        await asyncio.to_thread(wait_until_it_listens, socket_path)
        async with kind.connected(socket_path) as client:
            error = await error_of(client.call("Daemon.die"))
            assert (type(error), error.execution) == (seqrpc.ConnectionLost, seqrpc.Execution.MAY_HAVE_RUN)
        assert await asyncio.to_thread(child.wait, PATIENCE) == -signal.SIGKILL


MALFORMED = {
    "nothing of MessagePack": b"\xc1",
    "no array": msgpack.packb({"a": 1}),
    "an answer to no call": msgpack.packb([1, 999, None, 5]),
    "an answer that is cut": b"\x94\x01\x00\xc0",
    "too deep": b"\x94\x01\x00\xc0" + b"\x91" * 100 + b"\xc0",
    "a descriptor that did not come": msgpack.packb([1, 0, None, msgpack.ExtType(1, b"\0")]),
    "a stream that did not come": msgpack.packb([1, 0, None, msgpack.ExtType(2, b"\0")]),
    "an error that is none": msgpack.packb([1, 0, "no", None]),
    "an empty packet": b"",
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_what_is_malformed_ends_alike(what: str, both: tuple[Kind, Kind]) -> None:
    seen = []
    for kind in both:
        ours, theirs = seqrpc.socket_pair()
        async with kind.connected(sock=ours) as client:
            with raw_client(theirs) as peer:
                call = asyncio.ensure_future(client.call("Odd.one"))
                request = await peer.receive()
                assert request == [0, 0, "Odd.one", []]
                peer.sock.send(MALFORMED[what])
                said = await peer.receive() if what not in ("an answer to no call", "an empty packet") else None
            error = await error_of(call)
            cause = error.__cause__
            seen.append((type(error), str(error), error.execution, repr(cause), said, client.closed))
    assert seen[0] == seen[1]


async def test_an_answer_that_comes_late_is_ignored(kind: Kind) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with kind.connected(sock=ours) as client:
        with raw_client(theirs) as peer:
            with pytest.raises(seqrpc.DeadlineExceeded):
                async with kind.timeout(0.02):
                    await client.call("Slow.one")
            first = await peer.receive()
            assert (await peer.receive())[0] == 3, "it was told to stop"
            await peer.send(1, first[1], None, "late")
            call = asyncio.ensure_future(client.call("Slow.two"))
            second = await peer.receive()
            await peer.send(1, second[1], None, "in time")
            assert await call == "in time"


async def test_requests_for_what_is_not_served_are_refused_while_we_wait(both: tuple[Kind, Kind]) -> None:
    seen = []
    for kind in both:
        ours, theirs = seqrpc.socket_pair()
        async with kind.connected(sock=ours) as client:
            with raw_client(theirs) as peer:
                call = asyncio.ensure_future(client.call("Odd.one"))
                await peer.receive()
                await peer.send(0, 7, "Guest.answer", ["?"])
                refused = await peer.receive()
                await peer.send(0, 8, "rpc.ping", [])
                pong = await peer.receive()
                await peer.send(2, "Guest.answer", [])
                await peer.send(1, 0, None, "done")
                assert await call == "done"
                seen.append((refused, pong))
    assert seen[0] == seen[1]


async def test_a_line_that_does_not_move_is_refused(kind: Kind) -> None:
    gate = Gate()
    async with kind.serving(gate, limits=Limits(max_calls_in_flight=1, stall_timeout=0.05)) as client:
        first = asyncio.ensure_future(client.call("Gate.wait"))
        await gate.stage.wait("began")
        error = await error_of(client.call("rpc.ping"))
        assert str(error) == (
            "rpc.Overloaded: 1 calls of this connection are unanswered (max_calls_in_flight), and no answer came for"
            " 0.05 s (stall_timeout)"
        )
        assert error.execution is seqrpc.Execution.DID_NOT_RUN
        gate.stage.reach("go on")
        assert await first == "waited"
        assert await client.call("rpc.ping") is None


async def test_calls_in_line_fail_with_the_connection_and_did_not_run(kind: Kind, socket_path: Path) -> None:
    gate = Gate()
    server = await seqrpc.serve(gate, socket_path)
    async with kind.connected(socket_path, limits=Limits(max_calls_in_flight=1)) as client:
        sent = asyncio.ensure_future(client.call("Gate.wait"))
        await gate.stage.wait("began")
        in_line = [asyncio.ensure_future(client.call("rpc.ping")) for _ in range(3)]
        await asyncio.sleep(0.05)  # they are in line, or come later, which ends alike
        await server.close()
        assert (await error_of(sent)).execution is seqrpc.Execution.MAY_HAVE_RUN
        for call in in_line:
            assert (await error_of(call)).execution is seqrpc.Execution.DID_NOT_RUN


async def test_notices_that_the_other_side_does_not_read_wait_and_a_deadline_bounds_that(kind: Kind) -> None:
    log = Log()
    log.gate.set()
    async with kind.serving(log) as client:
        for number in range(500):
            await client.notify("Log.write", str(number))
        await client.call("rpc.ping")
        await comes_true(lambda: len(log.lines) == 500)
        assert log.lines == [str(number) for number in range(500)]


def said_in_a_child(attempts: list[Any]) -> list[str]:
    """Fork, and return what the child is told when it makes these calls."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for make in attempts:
                try:
                    made = make()
                    getattr(made, "send", id)(None)
                except seqrpc.WrongProcess as exc:
                    os.write(writing, f"{exc}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as file:
        return file.read().splitlines()


async def test_in_a_forked_child_it_is_nobody_s(both: tuple[Kind, Kind]) -> None:
    seen = []
    for kind in both:
        async with kind.serving(Echo()) as client:
            raw, proxy = client.raw, client.proxy(Echo).raw
            attempts = [
                lambda raw=raw: raw.call("Echo.give", 1),
                lambda raw=raw: raw.notify("Echo.tell", "x"),
                lambda proxy=proxy: proxy.give(1),
                raw.close,
            ]
            seen.append(said_in_a_child(attempts))
            assert await client.call("Echo.give", 5) == 5, "the parent's is as it was"
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3
    assert "this connection belongs to the process that made it, and this is a fork" in seen[0][0]


async def test_dropping_it_unclosed_closes_it_with_a_warning(kind: Kind) -> None:
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        raw = kind.connecting(sock=ours)  # in this thread, for another one may hold it a moment longer
        if kind.name == "asyncio":
            raw = await raw
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del raw
            await asyncio.sleep(0)
            gc.collect()
        assert [str(each.message) for each in told] == ["unclosed <Connection open peer=None>"]
        assert await peer.receive() is None


async def test_what_is_kept_of_an_error_keeps_nothing_open(kind: Kind) -> None:
    kept = []
    async with kind.serving(Echo()) as client:
        try:
            async with kind.timeout(0.01):
                await client.call("Echo.wait")
        except seqrpc.DeadlineExceeded as exc:
            kept.append(exc)
    kept.append(kept)  # type: ignore[arg-type] # a circle, for Python to collect
