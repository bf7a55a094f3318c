"""Descriptors, buffers and messages of any size, in both directions."""

from __future__ import annotations

import os
import re
import threading
from typing import Any

import pytest
from support.descriptors import is_open, owned, refuse_descriptors, same_file
from support.faces import Kind
from support.scarcity import table_full
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import Buffer, Limits, OwnedFd


class Lost(seqrpc.RpcError, code="descriptors.Lost"):
    """An error that has a descriptor."""


class Files(seqrpc.Service):
    def __init__(self) -> None:
        self.kept: list[Any] = []

    @seqrpc.method
    async def inode(self, file: OwnedFd) -> int:
        return os.fstat(file.fileno()).st_ino

    @seqrpc.method
    async def open(self, number: int = 1) -> list[OwnedFd]:
        return [OwnedFd(os.open("/dev/null", os.O_RDONLY)) for _ in range(number)]

    @seqrpc.method
    async def fails(self) -> None:
        raise Lost("here it is", data={"file": OwnedFd(os.open("/dev/null", os.O_RDONLY))})

    @seqrpc.method
    async def back(self, file: OwnedFd) -> OwnedFd:
        return file

    @seqrpc.method
    async def brightest(self, pixels: Buffer) -> int:
        return max(pixels)

    @seqrpc.method
    async def image(self, size: int) -> Buffer:
        return Buffer.copy_of(b"\5" * size)

    @seqrpc.method
    async def length(self, data: bytes) -> int:
        return len(data)

    @seqrpc.method
    async def data(self, size: int) -> bytes:
        return b"x" * size

    @seqrpc.method
    async def many(self, numbers: list[int]) -> list[int]:
        return numbers[::-1]


async def test_an_argument_is_lent_and_a_result_is_owned(kind: Kind) -> None:
    async with kind.serving(Files()) as client:
        with open("/dev/zero", "rb") as file, OwnedFd.dup(file) as fd:  # noqa: ASYNC230 - it takes no time
            assert await client.call("Files.inode", file) == os.fstat(file.fileno()).st_ino
            assert await client.proxy(Files).inode(fd) == os.fstat(file.fileno()).st_ino
            with await client.proxy(Files).back(fd) as back:
                assert same_file(fd, back)
                assert fd.fileno() != back.fileno()
        (result,) = await client.call("Files.open")
        assert os.get_inheritable(result.fileno()) is False
        result.close()


async def test_as_many_as_a_packet_takes(kind: Kind) -> None:
    async with kind.serving(Files()) as client:
        for fd in await client.call("Files.open", seqrpc.MAX_DESCRIPTORS):
            with fd:
                assert os.path.samestat(os.fstat(fd.fileno()), os.stat("/dev/null"))


async def test_errors_bring_descriptors(kind: Kind) -> None:
    async with kind.serving(Files()) as client:
        with pytest.raises(Lost) as caught:
            await client.call("Files.fails")
        with caught.value.data["file"] as fd:
            assert is_open(fd.fileno())


async def test_what_nobody_takes_is_closed(kind: Kind) -> None:
    async with kind.serving(Files()) as client:

        class Misread(seqrpc.Service, name="Files"):
            @seqrpc.method
            async def open(self, number: int) -> int:
                raise NotImplementedError

        with pytest.raises(seqrpc.InvalidResult):
            await client.proxy(Misread).open(3)


async def test_descriptors_that_this_side_has_no_room_for_are_lost_and_the_connection_is_well(kind: Kind) -> None:
    async with kind.serving(Files()) as client:
        assert await client.call("Files.length", b"") == 0
        with table_full(), pytest.raises(seqrpc.RpcError):
            await client.call("Files.open")
        assert await client.call("Files.length", b"abc") == 3


async def test_a_server_that_takes_no_descriptors_says_so(kind: Kind) -> None:
    class Numbers(seqrpc.Service):
        @seqrpc.method
        async def add(self, a: int, b: int) -> int:
            return a + b

    ours, theirs = seqrpc.socket_pair()
    refuse_descriptors(theirs)
    async with (
        seqrpc.serve(Numbers(), sock=theirs, accept_descriptors=False),
        kind.connected(sock=ours) as client,
    ):
        with owned(1) as fds, pytest.raises(seqrpc.PermissionDenied, match="descriptors") as caught:
            await client.call("Numbers.add", fds[0], 1)
        assert caught.value.execution is seqrpc.Execution.DID_NOT_RUN
        assert await client.call("Numbers.add", 1, 1) == 2


async def test_buffers_are_lent_and_received(kind: Kind) -> None:
    async with kind.serving(Files()) as client:
        with Buffer.copy_of(b"\1\7\2" * 100_000) as pixels:
            assert await client.proxy(Files).brightest(pixels) == 7
            assert await client.call("Files.brightest", pixels) == 7
        with await client.proxy(Files).image(1_000_000) as image:
            assert (len(image), image[0], image[-1]) == (1_000_000, 5, 5)
        raw = await client.call("Files.image", 10)
        assert bytes(raw) == b"\5" * 10
        raw.close()


@pytest.mark.parametrize("size", [65_000, 65_536, 70_000, 5_000_000])
async def test_messages_of_any_size_go_both_ways(kind: Kind, size: int) -> None:
    async with kind.serving(Files()) as client:
        assert await client.call("Files.length", b"x" * size) == size
        assert await client.call("Files.data", size) == b"x" * size
        assert await client.proxy(Files).data(size) == b"x" * size
    async with kind.serving(Files()) as client:
        numbers = [*range(size // 5)]
        assert await client.proxy(Files).many(numbers) == numbers[::-1]


async def test_what_is_too_large_costs_its_call_and_no_more(kind: Kind) -> None:
    small = Limits(max_message_bytes=100_000)
    async with kind.serving(Files(), limits=small) as client:
        with pytest.raises(seqrpc.TooLarge, match=re.escape("max_message_bytes")):
            await client.call("Files.length", bytes(200_000))
        with pytest.raises(seqrpc.TooLarge):
            await client.call("Files.data", 200_000)
        with pytest.raises(seqrpc.TooLarge):
            await client.notify("Files.length", bytes(200_000))
        assert await client.call("Files.data", 70_000) == b"x" * 70_000
    async with kind.serving(Files(), server_limits=small) as client:
        with pytest.raises(seqrpc.TooLarge):
            await client.call("Files.length", bytes(200_000))
        with pytest.raises(seqrpc.TooLarge):
            await client.call("Files.data", 200_000)
        assert await client.call("Files.length", bytes(70_000)) == 70_000


async def test_the_answers_of_calls_that_were_given_up_leave_nothing_open(kind: Kind) -> None:
    began, go_on = threading.Event(), threading.Event()
    given: list[OwnedFd] = []

    class Slow(Files, name="Slow"):
        @seqrpc.method
        def late(self) -> OwnedFd:
            began.set()
            go_on.wait(PATIENCE)
            given.append(OwnedFd(os.open("/dev/null", os.O_RDONLY)))
            return given[0]

    async with kind.serving(Slow()) as client:
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with kind.timeout(0.05):
                await client.call("Slow.late")
        go_on.set()
        assert await client.call("Slow.length", b"ab") == 2
        await comes_true(lambda: not began.is_set() or (given and given[0].closed))
