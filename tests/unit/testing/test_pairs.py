"""Two ends with something between: what passes, and how it is closed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import pytest
from support.descriptors import owned
from support.faulty import Echo, outcome
from support.packets import receive, send_with

import seqrpc
from seqrpc import policy
from seqrpc.testing import Fault, FaultyPair, Packet, assert_no_leaks, faulty_pair, serve_in_memory
from seqrpc.testing.pairs import pair_of


async def test_packets_pass_both_ways_with_descriptors_and_files_of_memory() -> None:
    echo = Echo()
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(echo, pair=pair) as connection:
        proxy = connection.proxy(Echo)
        assert await asyncio.gather(*(proxy.say(str(number)) for number in range(300))) == [*map(str, range(300))]
        content = bytes(range(256)) * 4_000
        assert await proxy.large(content) == content[::-1]
        (await proxy.null()).close()
        with owned(1) as fds:
            assert await proxy.size(fds[0]) == "a file"
        other = await proxy.itself()
        assert await other.say("again") == "again"
        await other.close()
    assert len(echo.heard) == 301


async def test_a_pair_may_be_given_to_serve_and_connect() -> None:
    async with (
        faulty_pair() as pair,
        seqrpc.serve(Echo(), sock=pair.server),
        seqrpc.connect(sock=pair.client) as connection,
    ):
        assert await connection.proxy(Echo).say("yes") == "yes"


async def test_the_ends_are_those_of_one_connection_only() -> None:
    async with faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        assert await connection.call("Echo.say", "yes") == "yes"
        assert repr(pair) == "<FaultyPair open>"
        with pytest.raises(RuntimeError, match="this pair is, or was, another connection's: make one for each"):
            async with serve_in_memory(Echo(), pair=pair):
                raise AssertionError("it is served")
        pair.disconnect()
        assert repr(pair) == "<FaultyPair over>"


async def test_a_pair_stays_on_its_loop() -> None:
    async with faulty_pair() as pair:
        with pytest.raises(seqrpc.WrongLoop, match="this pair belongs to another event loop"):
            await asyncio.to_thread(pair_of(pair).take)


async def test_a_mistake_in_a_function_of_the_test_comes_out_of_the_block() -> None:
    def mistaken(packet: Packet) -> bool:
        raise KeyError("typo", packet.number)

    async def story() -> None:
        async with faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
            pair.to_server.drop(mistaken)
            with pytest.raises(seqrpc.ConnectionLost):
                await connection.call("Echo.say", "anything")

    async with assert_no_leaks():
        with pytest.raises(KeyError, match="typo"):
            await story()


async def test_a_test_may_disconnect_at_any_moment() -> None:
    reached, cancelled = asyncio.Event(), asyncio.Event()

    class Slow(seqrpc.Service, allow=policy.anyone):
        @seqrpc.method
        async def wait(self) -> None:
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(Slow(), pair=pair) as connection:
        call = asyncio.create_task(connection.proxy(Slow).wait())
        await reached.wait()
        pair.disconnect()
        assert isinstance(await outcome(call), seqrpc.ConnectionLost)
        await cancelled.wait()


async def test_a_client_in_another_process_has_the_faults_of_packets() -> None:
    if sys.platform != "linux":
        pytest.skip("needs fork")
    from support.processes import in_child

    async with faulty_pair() as pair:
        drop = pair.to_server.drop(2)

        def send() -> None:
            for data in (b"1", b"2", b"3"):
                socket.socket(fileno=os.dup(pair.client.fileno())).send(data)

        in_child(send)
        assert [await receive(pair.server) for _ in range(2)] == [b"1", b"3"]
        assert drop.count == 1


async def test_what_a_test_leaves_is_closed_at_the_end(pipe: tuple[int, int]) -> None:
    async with assert_no_leaks():
        async with faulty_pair() as pair:
            held = pair.to_server.hold()
            for data in (b"1", b"2"):
                send_with(pair.client, data, [pipe[0]])
            await held.happened()
            assert isinstance(held, Fault)
            assert isinstance(pair, FaultyPair)
        assert pair.client.fileno() == pair.server.fileno() == -1
    async with assert_no_leaks(), faulty_pair():
        pass


async def test_only_async_with_enters_it() -> None:
    block: Any = faulty_pair()
    with pytest.raises(TypeError, match=r"seqrpc\.testing\.faulty_pair\(\) is entered by 'async with'"), block:
        raise AssertionError("it is entered")


async def test_a_reset_leaves_the_packet_unread_and_passes_on_what_came_the_other_way() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        stopped = pair.to_client.stop_reading()
        fault = pair.to_server.reset()
        pair.server.send(b"answer")
        pair.client.send(b"request")
        await fault.happened()
        stopped.release()
        with pytest.raises(ConnectionResetError):
            pair.client.recv(1)
        assert [pair.client.recv(100) for _ in range(2)] == [b"answer", b""]
        assert repr(pair) == "<FaultyPair over>"
