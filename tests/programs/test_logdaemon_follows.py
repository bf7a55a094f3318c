"""The log daemon follows logs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.programs import NO_LOGS, WITHIN, daemon, in_background

import seqrpc


@contextlib.contextmanager
def followed(address: Path, name: str, start: int | None = None) -> Iterator[Callable[[], str]]:
    """Follow a log; yield what waits for its next line."""

    async def begin() -> tuple[seqrpc.Connection, seqrpc.Stream[str]]:
        connection = await seqrpc.connect(address)
        return connection, await connection.call("Logs.follow", name, start)

    async def next_line() -> str:
        async with seqrpc.timeout(WITHIN):
            return await anext(stream)

    with asyncio.Runner() as runner:
        connection, stream = runner.run(begin())
        try:
            yield lambda: runner.run(next_line())
        finally:
            runner.run(stream.aclose())
            runner.run(connection.close())


def test_follows_what_is_appended(tmp_path: Path, socket_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\nthr")
    with (
        daemon(socket_path, tmp_path),
        open(log, "ab", buffering=0) as file,
        followed(socket_path, "x.log", 4) as next_line,
    ):
        assert next_line() == "two"
        file.write(b"ee\nfour\n\xff")
        assert [next_line(), next_line()] == ["three", "four"]
        file.write(b"\n")
        assert next_line() == "\\xff"


def test_follows_from_what_is_the_end_at_first(logs: Path, socket_path: Path) -> None:
    def append() -> None:
        with open(logs / "system.log", "a") as file:
            print("new", file=file)

    with daemon(socket_path, logs), in_background(append), followed(socket_path, "system.log") as next_line:
        assert next_line() == "new"


def test_follows_a_log_that_is_cut_short_and_one_that_takes_its_place(tmp_path: Path, socket_path: Path) -> None:
    log, old = tmp_path / "x.log", tmp_path / "x.log.1"
    log.write_text("a beginning, and half of a line")
    with daemon(socket_path, tmp_path), followed(socket_path, "x.log", 0) as next_line:
        with open(log, "a") as writer:
            print(" and the rest", file=writer)
        assert next_line() == "a beginning, and half of a line and the rest"

        log.write_text("shorter\n")
        assert next_line() == "shorter"

        with open(log, "a") as writer:
            log.rename(old)
            print("a late one", file=writer)
            writer.write("and one without an end")
        log.write_text("the first of the new\n")
        assert [next_line() for _ in range(3)] == ["a late one", "and one without an end", "the first of the new"]

        log.unlink()
        log.symlink_to(old)  # which is not served as a log
        log.unlink()
        log.write_text("the first of another\n")
        assert next_line() == "the first of another"


def test_a_line_without_an_end_comes_in_pieces(tmp_path: Path, socket_path: Path) -> None:
    (tmp_path / "x.log").write_text("x" * 300_000 + "\nshort\n")
    with daemon(socket_path, tmp_path), followed(socket_path, "x.log", 0) as next_line:
        pieces = [*iter(next_line, "short")]

    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 2 * 65_536
    assert "".join(pieces) == "x" * 300_000


def test_follows_nothing_that_is_no_log(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        for name in NO_LOGS:
            with followed(socket_path, name) as next_line, pytest.raises(seqrpc.RpcError) as caught:
                next_line()
            assert caught.value.code == "logs.NoSuchLog"


def test_what_was_followed_does_not_stay_open_in_the_daemon(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs) as process, followed(socket_path, "empty.log"):
        descriptors = Path(f"/proc/{process.pid}/fd")
        with followed(socket_path, "system.log", 0) as next_line:
            assert next_line() == "line 0"
            before = len(list(descriptors.iterdir()))
        for _ in range(10):
            with followed(socket_path, "system.log", 0) as next_line:
                assert next_line() == "line 0"
        until = time.monotonic() + WITHIN
        while len(list(descriptors.iterdir())) >= before:  # it notices a moment later that its clients have gone
            assert time.monotonic() < until
            time.sleep(0.005)
