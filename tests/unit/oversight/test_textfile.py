"""The file is whole whenever it is read, and gone when the server is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest
from support.daemons import daemon
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.listener import Listener
from seqrpc.aio.server import hub_of
from seqrpc.oversight import MetricsFile

DAEMON = """
import sys, seqrpc
from seqrpc.oversight import MetricsFile

class Work(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

seqrpc.run(Work(), sys.argv[1], on_start=MetricsFile(sys.argv[2], interval=0.01))
"""


class Work(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


def exists(path: Path) -> bool:
    return path.exists()


async def test_it_is_there_at_once_whole_and_goes_with_the_server(socket_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "seqrpc.prom"
    async with seqrpc.serve(Work(), socket_path) as server:
        metrics = MetricsFile(path, interval=0.005)
        await metrics(server)
        assert "seqrpc_uptime_seconds" in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o644
        with pytest.raises(RuntimeError, match="already"):
            await metrics(server)
        async with seqrpc.connect(socket_path) as connection:
            await connection.call("Work.add", 1, 2)
        await comes_true(lambda: 'count{method="Work.add"} 1' in path.read_text())
    await comes_true(lambda: not exists(path))
    assert os.listdir(tmp_path) == []


def test_a_daemon_writes_it_from_its_start_to_its_end(socket_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "seqrpc.prom"

    async def story() -> None:
        with daemon(DAEMON, socket_path, path) as child:
            await comes_true(lambda: exists(path))
            assert "seqrpc_info" in path.read_text()
            child.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(child.wait) == 0
            assert child.stderr is not None
            assert child.stderr.read() == b""

    asyncio.run(story())
    assert os.listdir(tmp_path) == []


async def test_what_is_a_successor_s_is_left_to_it(socket_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "seqrpc.prom"
    async with seqrpc.serve(Work(), socket_path) as server:
        await MetricsFile(path, interval=0.005)(server)
        listener = hub_of(server).listener
        assert isinstance(listener, Listener)
        listener.listening.is_anothers = True
        await asyncio.sleep(0.02)  # what was being written is
        path.write_text("the successor's")
        await asyncio.sleep(0.02)
        assert path.read_text() == "the successor's"
    await turns_of_the_loop()
    assert path.read_text() == "the successor's"
    os.unlink(socket_path)


async def test_a_directory_that_is_not_there_ends_the_start(socket_path: Path, tmp_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with pytest.raises(FileNotFoundError):
            await MetricsFile(tmp_path / "no" / "seqrpc.prom")(server)


async def test_a_file_that_cannot_be_written_any_more_is_tried_again(
    socket_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "collector"
    directory.mkdir()
    path = directory / "seqrpc.prom"
    async with seqrpc.serve(Work(), socket_path) as server:
        await MetricsFile(path, interval=0.005)(server)
        while exists(directory):  # until no writing comes in between
            path.unlink(missing_ok=True)
            try:
                directory.rmdir()
            except OSError:
                await asyncio.sleep(0)
        with caplog.at_level(logging.WARNING):
            await comes_true(lambda: "cannot be written" in caplog.text)
        directory.mkdir()
        await comes_true(lambda: exists(path))


async def test_what_another_run_left_is_no_obstacle_and_no_way_elsewhere(socket_path: Path, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "seqrpc.prom", tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / f"seqrpc.prom.{os.getpid()}.new").symlink_to(elsewhere)
    async with seqrpc.serve(Work(), socket_path) as server:
        await MetricsFile(path)(server)
        assert elsewhere.read_text() == "mine"
        assert not path.is_symlink()
    await comes_true(lambda: not exists(path))


async def test_what_is_written_when_it_is_over_is_removed(socket_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "seqrpc.prom"
    async with seqrpc.serve(Work(), socket_path) as server:
        metrics = MetricsFile(path)
        metrics._is_over = True  # as if it ended while a thread writes
        await asyncio.to_thread(metrics._write, server.stats())
        assert not exists(path)
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            metrics._write(server.stats())
        assert os.listdir(tmp_path) == ["seqrpc.prom"]


async def test_only_its_own_process_removes_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "seqrpc.prom"
    path.mkdir()
    metrics = MetricsFile(path)
    metrics._remove()
    assert "cannot be removed" in caplog.text
    caplog.clear()
    metrics._pid += 1  # as in a forked child
    metrics._remove()
    assert not caplog.text
    assert exists(path)


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_that_would_not_end_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="interval="):
        MetricsFile("x.prom", interval=interval)
