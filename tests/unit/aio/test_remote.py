"""Calls by name, of what connections and channels have in common."""

from __future__ import annotations

import abc
import os
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

import pytest
from support.daemons import on_a_pair, raw_client
from support.echo import Echo

import seqrpc


class Guest(seqrpc.Service):
    @seqrpc.method
    async def answer(self, question: str) -> str:
        if question == "again?":
            return await seqrpc.current_call().connection.proxy(Echo).ask_back("really?")
        return f"{question} yes"


async def test_arguments_go_by_position_or_by_name() -> None:
    async with on_a_pair(Echo()) as connection:
        assert await connection.call("Echo.give", {"a": 1}) == {"a": 1}
        assert await connection.call("Echo.echo", a=5) == [5, None]
        assert await connection.call("Echo.echo") == [None, None]
        with pytest.raises(TypeError, match="by position or by name, not both"):
            await connection.call("Echo.echo", 1, a=5)
        with pytest.raises(TypeError, match="by position or by name, not both"):
            await connection.notify("Echo.echo", 1, a=5)


@pytest.mark.parametrize("name", [5, None, Echo, Echo.give, b"Echo.give"], ids=str)
async def test_a_name_that_is_none_is_refused_and_ends_no_connection(name: Any) -> None:
    async with on_a_pair(Echo()) as connection:
        with pytest.raises(TypeError, match=r"a method is called by its name, as 'Service\.method', not by "):
            await connection.call(name)
        with pytest.raises(TypeError, match=r"a method is called by its name, as 'Service\.method', not by "):
            await connection.notify(name)
        assert await connection.call("Echo.give", 1) == 1


async def test_a_call_that_was_not_awaited_is_told_by_its_method() -> None:
    async with on_a_pair(Echo()) as connection:
        for make in (
            lambda: connection.call("Echo.give", 1),
            lambda: connection.notify("Echo.give", 1),
            lambda: connection.proxy(Echo).give(1),
        ):
            with pytest.warns(RuntimeWarning, match=r"^coroutine 'Echo\.give' was never awaited$"):
                make()


async def test_anything_with_a_descriptor_is_lent(pipe: tuple[int, int]) -> None:
    inode = os.fstat(pipe[0]).st_ino
    async with on_a_pair(Echo()) as connection:
        with os.fdopen(os.dup(pipe[0]), "rb") as file:
            assert await connection.call("Echo.echo", fd=file) == [None, inode]
            assert not file.closed
        told = r"^Echo\.echo: cannot send params\['fd'\]: I/O operation on closed file; lend it open, until .* returns$"
        with pytest.raises(ValueError, match=told):
            await connection.call("Echo.echo", fd=file)
        with pytest.raises(
            ValueError, match=r"^Echo\.give: cannot send params\[0\]\['a'\]\[1\]: I/O operation on closed file"
        ):
            await connection.notify("Echo.give", {"a": [pipe[0], file]})
        with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
            await connection.call("Echo.give", object())
        assert await connection.call("Echo.give", b"x" * 70_000) == b"x" * 70_000
    async with on_a_pair(Echo(), client_limits=seqrpc.Limits(max_message_bytes=100_000)) as connection:
        with pytest.raises(seqrpc.TooLarge, match=r"at most 100000 bytes \(max_message_bytes\)"):
            await connection.call("Echo.give", b"x" * 100_000)
        assert await connection.call("Echo.give", 1) == 1


async def test_deadline_and_metadata_are_sent_along() -> None:
    async with on_a_pair(Echo()) as connection:
        assert await connection.call("Echo.surroundings") == [{}, None]
        async with seqrpc.timeout(60):
            with seqrpc.metadata(trace="5"):
                meta, deadline = await connection.call("Echo.surroundings")
        assert meta == {"trace": "5"}
        assert 50 < deadline - time.monotonic() <= 60


async def test_time_that_is_up_fails_the_call_here_and_stops_the_handler_there() -> None:
    service = Echo()
    async with on_a_pair(service) as connection:
        for delay in (0.05, 1, 10):  # a busy machine may need longer to begin
            with pytest.raises(seqrpc.DeadlineExceeded):
                async with seqrpc.timeout(delay):
                    await connection.call("Echo.wait")
            if service.stage.reached:
                break
        await service.stage.wait("ended")
        with pytest.raises(seqrpc.DeadlineExceeded, match="before the call was sent"):
            async with seqrpc.timeout(0):
                await connection.call("Echo.wait")
        assert service.stage.reached == ["began", "ended"]


async def test_a_peer_that_knows_no_deadlines_is_not_waited_for() -> None:
    ours, theirs = seqrpc.socket_pair()
    with raw_client(theirs) as peer:
        async with seqrpc.connect(sock=ours) as connection:
            with pytest.raises(seqrpc.DeadlineExceeded):
                async with seqrpc.timeout(0.05):
                    await connection.call("Deaf.wait")
            kind, call_id, _method, _params, options = await peer.receive()
            assert (kind, list(options)) == (0, ["deadline"])
            assert await peer.receive() == [3, call_id]


async def test_a_notify_wants_no_answer() -> None:
    service = Echo()
    async with on_a_pair(service) as connection:
        assert await connection.notify("Echo.tell", "a") is None  # type: ignore[func-returns-value]
        await connection.notify("Echo.tell", word="b")
        await connection.notify("Echo.nothing")
        await service.stage.wait("b")
    assert service.stage.reached == ["a", "b"]


async def test_both_sides_call_on_one_connection() -> None:
    async with on_a_pair(Echo(), client=[Guest()]) as connection:
        assert await connection.call("Echo.ask_back", "well?") == "the guest says: well? yes"
        answer = await connection.call("Echo.ask_back", "again?")
        assert answer == "the guest says: the guest says: really? yes"


async def test_what_the_other_side_s_other_side_refuses_is_not_the_handler_s_own_error() -> None:
    """The guest is not there: that is an error of the handler's call, not of the caller's."""
    async with on_a_pair(Echo()) as connection:
        with pytest.raises(seqrpc.Internal):
            await connection.call("Echo.ask_back", "well?")


@runtime_checkable
class Greets(Protocol):
    async def answer(self, question: str) -> str: ...

    def many(self, number: int) -> AsyncIterator[int]: ...


class Abstract(abc.ABC):
    @abc.abstractmethod
    async def answer(self, question: str) -> str: ...

    @abc.abstractmethod
    def many(self, number: int) -> seqrpc.Items[int]: ...


class Guests(seqrpc.Service):
    @seqrpc.method
    def answer(self, question: str) -> str:
        return f"{question} yes"

    @seqrpc.method
    async def many(self, number: int) -> AsyncIterator[int]:
        for item in range(number):
            yield item


async def test_a_proxy_is_made_of_a_protocol_and_of_an_abstract_class() -> None:
    for interface in (Greets, Abstract):
        service = type(interface.__name__, (Guests,), {})()
        async with on_a_pair(service) as connection:
            proxy = connection.proxy(interface)
            assert await proxy.answer("again?") == "again? yes"
            assert [item async for item in proxy.many(3)] == [0, 1, 2]
            assert isinstance(proxy.many(3), seqrpc.Stream)


class Largest(seqrpc.Service):
    @seqrpc.method
    async def of(self, content: seqrpc.BytesLike) -> list[str]:
        view = memoryview(content)
        return [type(content).__name__, str(max(view))]


async def test_a_parameter_takes_whatever_is_like_bytes() -> None:
    async with on_a_pair(Largest()) as connection:
        largest = connection.proxy(Largest)
        with seqrpc.Buffer.copy_of(b"ab") as buffer:
            for content in (b"ab", bytearray(b"ab"), memoryview(b"ab"), buffer):
                assert await largest.of(content) == ["memoryview", "98"]
