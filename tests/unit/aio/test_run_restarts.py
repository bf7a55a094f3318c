"""Daemons that restart at SIGHUP: what clients, the service manager and those who watch the processes see."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.restarts import Watch, connected, handed_over, run, status_of, stop, watched
from support.waiting import PATIENCE

import seqrpc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="successors are held by pidfds")


@pytest.fixture
def watch(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Return a daemon that runs, and what it tells the manager."""
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(socket_path.with_name("notify")))
    with watched(socket_path) as watch:
        yield watch


class Nothing(seqrpc.Service):
    @seqrpc.method
    async def nothing(self) -> None: ...


def test_the_manager_and_clients_see_another_process(watch: Watch) -> None:
    async def work() -> int:
        async with connected(watch) as connection:
            assert await connection.call("Work.pid") == watch.first.pid
            pid = watch.restart(watch.first.pid)
            assert watch.first.wait(PATIENCE) == 0
            assert await connection.call("Work.pid") == pid
            async with connected(watch) as newcomer:
                assert await newcomer.call("Work.pid") == pid
                assert newcomer.peer is not None
                assert newcomer.peer.pid == pid
            successor = watch.restart(pid)
            assert status_of(pid) == 0
            assert await connection.call("Work.pid") == successor
        return successor

    stop(watch, run(work()))


def test_one_that_fails_to_start_changes_nothing(watch: Watch) -> None:
    async def work() -> None:
        async with connected(watch) as connection:
            for program in ("sys.exit(3)", "options['mode'] = 0o620", "options['on_start'] = lambda server: 1 / 0"):
                watch.change_program(program)
                os.kill(watch.first.pid, signal.SIGHUP)
                assert [watch.hear(), watch.hear()] == ["RELOADING=1", "READY=1"]
                assert await connection.call("Work.pid") == watch.first.pid
            async with connected(watch) as newcomer:
                assert await newcomer.call("Work.pid") == watch.first.pid

    run(work())
    os.kill(watch.first.pid, signal.SIGTERM)
    _output, errors = watch.first.communicate(timeout=PATIENCE)
    said = errors.decode()
    for status in (3, 1, 1):
        line = f"! restart: the successor exited with status {status}; this process serves on\n"
        assert line in said
        said = said.replace(line, "", 1)
    assert "a restart without a gap changes neither address nor mode=" in said
    assert not watch.path.exists()


def test_a_signal_to_the_predecessor_ends_what_is_left_of_it(watch: Watch) -> None:
    async def work() -> int:
        async with connected(watch) as connection, connected(watch) as busy:
            numbers = await connection.call("Work.numbers")
            call = await watch.keep_busy(busy)
            await anext(numbers)
            pid = watch.restart(watch.first.pid)
            await handed_over(connection, watch.first.pid, pid)
            os.kill(watch.first.pid, signal.SIGTERM)
            while busy.closing_reason is None:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.001)
            watch.end_work()
            assert await call == watch.first.pid
            assert await asyncio.to_thread(watch.first.wait, PATIENCE) == 0
            assert await connection.call("Work.pid") == pid
        return pid

    stop(watch, run(work()))


def test_a_restart_takes_an_address_and_sighup_for_itself(socket_path: Path) -> None:
    one, other = seqrpc.socket_pair()
    with one, other:
        with pytest.raises(ValueError, match="restart=True takes an address"):
            seqrpc.run(Nothing(), sock=one, restart=True)
        with pytest.raises(ValueError, match="are both for SIGHUP"):
            seqrpc.run(Nothing(), socket_path, restart=True, on_reload=lambda _server: None)
        with pytest.raises(SystemExit, match="where clients connect, not a socket pair"):
            seqrpc.run(Nothing(), f"fd:{os.dup(other.fileno())}", restart=True)


def test_a_predecessor_that_is_none_ends_the_start(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQRPC_PREDECESSOR", "0")
    with pytest.raises(SystemExit, match="SEQRPC_PREDECESSOR=0: the number of a descriptor was expected"):
        seqrpc.run(Nothing(), socket_path)
    assert not socket_path.exists()
