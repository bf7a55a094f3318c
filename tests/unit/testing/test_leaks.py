"""What is left behind is told of, each by what it is; what ends by itself is waited for."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import memory_file

import seqrpc
from seqrpc.kernel.closing import CLOSER
from seqrpc.testing import assert_no_leaks

SOON = 0.05


def left(error: pytest.ExceptionInfo[AssertionError]) -> list[str]:
    first, *rest = str(error.value).splitlines()
    assert first == "these were left behind:"
    return rest


def leak(*what: Any) -> None:
    """Be a block that leaves something."""
    with assert_no_leaks(patience=SOON):
        for make in what:
            make()


def test_a_file_that_is_left_open_is_told_with_its_name() -> None:
    files: list[Any] = []
    with pytest.raises(AssertionError) as caught:
        leak(lambda: files.append(open("/dev/null")))  # noqa: SIM115 - it is to be left open
    number = files[0].fileno()
    files[0].close()
    assert len(left(caught)) == 1
    assert left(caught)[0].startswith(f"descriptor {number}: /dev/null (")


def test_so_is_a_socket_with_its_kind_and_address() -> None:
    socks: list[socket.socket] = []

    def make() -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind(f"\0seqrpc-test-{os.getpid()}")
        socks.append(sock)

    with pytest.raises(AssertionError) as caught:
        leak(make)
    socks[0].close()
    (line,) = left(caught)
    assert f"AF_UNIX SOCK_SEQPACKET at b'\\x00seqrpc-test-{os.getpid()}'" in line


def test_another_file_under_a_number_that_was_taken_is_told() -> None:
    reader, writer = os.pipe()
    os.close(writer)

    def replace() -> None:
        os.close(reader)
        assert os.open(os.devnull, os.O_RDONLY) == reader

    with pytest.raises(AssertionError, match=f"descriptor {reader}: /dev/null"):
        leak(replace)
    os.close(reader)


def test_a_thread_is_told_by_its_name() -> None:
    goes_on = threading.Event()
    threads: list[threading.Thread] = []

    def start() -> None:
        threads.append(threading.Thread(target=goes_on.wait, name="the forgotten"))
        threads[0].start()

    with pytest.raises(AssertionError, match="thread 'the forgotten'"):
        leak(start)
    goes_on.set()
    threads[0].join()


def test_memory_files_are_told_while_they_are_mapped() -> None:
    buffers: list[seqrpc.Buffer] = []
    with pytest.raises(AssertionError) as caught:
        leak(lambda: buffers.append(seqrpc.Buffer.copy_of(b"x" * 10)))
    buffers.clear()
    assert any(line.startswith("memory file mapped at ") and "/memfd:" in line for line in left(caught))


async def test_a_task_is_told_by_what_it_does() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    tasks = []
    with pytest.raises(AssertionError, match=r"task <Task pending .*forgotten"):
        async with assert_no_leaks(patience=SOON):
            tasks.append(asyncio.create_task(forgotten()))
    tasks[0].cancel()


async def test_with_sees_tasks_too_where_a_loop_runs() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def forgotten() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="forgotten"):
        leak(lambda: tasks.append(asyncio.create_task(forgotten())))
    tasks[0].cancel()


async def test_what_ends_by_itself_is_waited_for() -> None:
    reader, writer = os.pipe()
    loop = asyncio.get_running_loop()

    async def brief() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        os.close(writer)

    async with assert_no_leaks():
        task = asyncio.create_task(brief())
        duplicate = os.dup(reader)
        loop.call_later(0.01, os.close, duplicate)
    assert task.done()
    os.close(reader)


def test_a_thread_that_ends_soon_is_waited_for() -> None:
    with assert_no_leaks():
        ending = threading.Timer(0.02, lambda: None)
        ending.start()
    assert not ending.is_alive()


def test_what_nobody_refers_to_is_no_leak() -> None:
    class Circle:
        def __init__(self) -> None:
            self.me = self
            self.buffer = seqrpc.Buffer.copy_of(b"x")

    with assert_no_leaks():
        Circle()


def test_threads_that_close_for_seqrpc_are_no_leak() -> None:
    with assert_no_leaks():
        ours, theirs = socket.socketpair()
        theirs.close()
        CLOSER.put(ours.detach(), 4_242)


def test_a_large_file_that_is_being_closed_is_waited_for() -> None:
    with assert_no_leaks():
        file = memory_file(b"x" * 100, size=50_000_000, whole=True)
        CLOSER.close(file.detach(), 4_242)


async def test_threads_that_the_loop_keeps_are_no_leak() -> None:
    async with assert_no_leaks():
        await asyncio.to_thread(lambda: None)


def test_a_block_that_raises_is_not_looked_at(pipe: tuple[int, int]) -> None:
    numbers = []
    with pytest.raises(ZeroDivisionError), assert_no_leaks():  # noqa: PT012 - that is the story
        numbers.append(os.dup(pipe[0]))
        1 / 0  # noqa: B018
    os.close(numbers[0])


async def test_nor_one_of_async_with(pipe: tuple[int, int]) -> None:
    numbers = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - as above
        async with assert_no_leaks():
            numbers.append(os.dup(pipe[0]))
            1 / 0  # noqa: B018
    os.close(numbers[0])


def test_a_file_that_is_renamed_or_removed_stays_the_same(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with one.open("w"):
        with assert_no_leaks(patience=SOON):
            one.rename(other)
        with assert_no_leaks(patience=SOON):
            other.unlink()


def test_of_files_without_a_name_another_kind_is_another() -> None:
    """The kernel has one inode for them all."""
    number = os.eventfd(0)

    def replace() -> None:
        with select.epoll() as other:
            os.dup2(other.fileno(), number)

    with pytest.raises(AssertionError, match=rf"descriptor {number}: anon_inode:\[eventpoll\]"):
        leak(replace)
    os.close(number)


async def test_a_task_that_is_being_cancelled_ends_by_itself() -> None:
    with assert_no_leaks(patience=SOON):  # it lets no loop run, in which the task would end
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
    assert not task.done()
    await asyncio.wait([task])


def test_what_was_there_before_may_go() -> None:
    file = open(os.devnull)  # noqa: SIM115 - it is closed within
    with assert_no_leaks():
        file.close()
        gc.collect()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_first_loop_of_a_process_leaves_nothing(loop: str) -> None:
    program = f"""
import asyncio, sys
from seqrpc.testing import assert_no_leaks

async def main():
    await asyncio.to_thread(lambda: None)

with assert_no_leaks():
    import {loop}
    {loop}.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
