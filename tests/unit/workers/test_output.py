from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import pytest
from support.descriptors import open_fds
from support.waiting import comes_true, turns_of_the_loop

from seqrpc.workers.output import Outputs, Pipe


class Passed:
    """Notes what a pipe passes on."""

    def __init__(self) -> None:
        self.told: list[tuple[bytes, list[str]]] = []

    def __call__(self, data: bytes, lines: list[str]) -> None:
        self.told.append((data, lines))


def written(pipe: Pipe) -> int:
    """Return a descriptor of what a child would write to, to be closed."""
    return os.dup(pipe.writer.fileno())


async def test_what_is_written_is_read_on_the_loop() -> None:
    passed = Passed()
    pipe = Pipe(passed)
    fd = written(pipe)
    pipe.begin()
    os.write(fd, b"one\ntw")
    await comes_true(lambda: passed.told)
    os.write(fd, b"o\n")
    await comes_true(lambda: len(passed.told) == 2)
    assert passed.told == [(b"one\ntw", ["one"]), (b"o\n", ["two"])]
    assert pipe.tail.lines == ("one", "two")
    pipe.close()
    os.close(fd)


async def test_a_line_without_an_end_ends_with_the_stream() -> None:
    passed = Passed()
    pipe = Pipe(passed)
    fd = written(pipe)
    pipe.begin()
    os.write(fd, b"no end")
    os.close(fd)
    await comes_true(lambda: len(passed.told) == 2)
    assert passed.told == [(b"no end", []), (b"", ["no end"])]
    pipe.finish()
    pipe.close()
    assert len(passed.told) == 2


async def test_one_that_writes_without_end_leaves_the_loop_to_others() -> None:
    passed = Passed()
    pipe = Pipe(passed)
    fd = written(pipe)
    os.set_blocking(fd, False)
    pipe.begin()

    def write_again(_data: bytes, _lines: list[str]) -> None:
        os.write(fd, b"more\n")

    pipe._pass_on = write_again
    os.write(fd, b"first\n")
    await turns_of_the_loop()  # it would never come back
    pipe.close()
    os.close(fd)


async def test_what_is_left_of_one_that_has_ended_is_read_and_it_is_bounded() -> None:
    passed = Passed()
    pipe = Pipe(passed)
    fd = written(pipe)
    pipe.begin()
    os.write(fd, b"the last\nwords")
    pipe.finish()  # somebody holds the writing end yet: a child of the child
    assert passed.told == [(b"the last\nwords", ["the last"]), (b"", ["words"])]
    with pytest.raises(BrokenPipeError):
        os.write(fd, b"x")
    os.close(fd)


async def test_one_that_was_never_begun_is_only_closed() -> None:
    passed = Passed()
    before = open_fds()
    pipe = Pipe(passed)
    os.write(pipe.writer.fileno(), b"unread\n")
    pipe.finish()
    assert open_fds() == before
    assert not passed.told


def test_a_loop_that_is_closed_is_left_alone() -> None:
    passed = Passed()

    async def begin() -> Pipe:
        pipe = Pipe(passed)
        pipe.begin()
        return pipe

    loop = asyncio.new_event_loop()
    pipe = loop.run_until_complete(begin())
    loop.close()
    pipe.close()
    assert not passed.told


async def both(output: Any, out: bytes, err: bytes) -> Outputs:
    """Return outputs of a child that wrote so much and ended."""
    outputs = Outputs(output, "child")
    stdout, stderr = outputs.numbers
    if stdout is not None:
        os.write(stdout, out)
    os.write(stderr, err)
    outputs.begin()
    outputs.finish()
    return outputs


async def test_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "some.logger"):
        outputs = await both(logging.getLogger("some.logger"), b"1\n2\n", b"3\n4")
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert sorted(told) == [
        ("INFO", "child: 1"),
        ("INFO", "child: 2"),
        ("WARNING", "child: 3"),
        ("WARNING", "child: 4"),
    ]
    assert outputs.stderr.tail.lines == ("3", "4")


async def test_what_is_inherited_goes_to_the_streams_of_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = await both("inherit", b"", b"one\n\xff")
    assert outputs.stdout is None
    assert capsys.readouterr() == ("", "one\n\\xff")
    assert outputs.stderr.tail.lines == ("one", "\\xff")


async def test_what_is_captured_goes_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = await both("capture", b"out\n", b"err\n")
    assert capsys.readouterr() == ("", "")
    assert outputs.stdout is not None
    assert (outputs.stdout.tail.lines, outputs.stderr.tail.lines) == (("out",), ("err",))


async def test_a_process_without_standard_error_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def write(self, _text: str) -> None:
            raise BrokenPipeError

    for stream in (None, Broken()):
        monkeypatch.setattr(sys, "stderr", stream)
        outputs = await both("inherit", b"", b"err\n")
        assert outputs.stderr.tail.lines == ("err",)


def test_where_there_is_no_second_pipe_the_first_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    pipe2 = os.pipe2

    def only_one(flags: int) -> tuple[int, int]:
        if made:
            raise OSError(24, "no descriptor is left")
        made.append(pipe2(flags))
        return made[-1]

    before = open_fds()
    monkeypatch.setattr(os, "pipe2", only_one)
    with pytest.raises(OSError, match="no descriptor is left"):
        Outputs("capture", "child")
    assert open_fds() == before


async def test_what_cannot_be_passed_on_is_told_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_data: bytes, _lines: list[str]) -> None:
        raise RuntimeError("the log server is gone")

    pipe = Pipe(fail)
    fd = written(pipe)
    pipe.begin()
    for text in (b"one\n", b"two\n"):
        os.write(fd, text)
        await comes_true(lambda text=text: text.decode().strip() in pipe.tail.lines)  # type: ignore[misc]
    os.close(fd)
    pipe.finish()
    assert [record.getMessage() for record in caplog.records] == ["! what a worker writes cannot be passed on"]


async def test_of_very_many_lines_some_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "children"):
        outputs = Outputs(logging.getLogger("children"), "talks")
        fd = written(outputs.stderr)
        outputs.begin()
        os.write(fd, b"\n" * 250)
        os.close(fd)
        outputs.finish()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["talks: "] * 100 + ["talks: (150 lines are left out)"]


async def test_another_user_gets_no_stream_of_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Outputs("inherit", "nobody", is_foreign=True)
    assert outputs.stdout is not None
    fd = written(outputs.stdout)
    outputs.begin()
    os.write(fd, b"hello\n")
    os.close(fd)
    outputs.finish()
    assert capsys.readouterr().out == "hello\n"
