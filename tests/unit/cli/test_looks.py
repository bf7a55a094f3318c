"""Looks at a server, one after the other."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.desk import Desk, both
from support.sync import Thread, served
from support.waiting import PATIENCE

import seqrpc
from seqrpc.cli.endings import LATE, Ending
from seqrpc.cli.looks import Looker, Lookout, is_final, looks, tell_rule, trouble
from seqrpc.cli.places import place_of
from seqrpc.cli.screen import Screen

PROGRAM = """
import seqrpc
class A(seqrpc.Service):
    @seqrpc.method
    async def nothing(self) -> None: ...
seqrpc.run(A(), "fd:3")
"""


def looker_at(path: Path | str, seconds: float = PATIENCE) -> Looker:
    return Looker(place_of(str(path)), seconds)


@pytest.fixture
def looker(desk: Path) -> Iterator[Looker]:
    """Return what looks at a desk."""
    made = looker_at(desk)
    yield made
    made.close()


def test_it_looks_over_one_connection(looker: Looker) -> None:
    assert list(looker.services) == []
    for number in range(3):
        stats = looker.look()
        assert (stats.connections_made, stats.connections_open) == (1, 1)
        assert stats.methods["rpc.stats"].calls == number
    assert list(looker.services) == ["Desk", "Other"]
    assert looker.can_return


def test_it_connects_anew_when_the_server_is_there_again(socket_path: Path) -> None:
    looker = looker_at(socket_path)
    with pytest.raises(seqrpc.NobodyListens):
        looker.look()
    with served(socket_path, both()):
        looker.look()
        assert list(looker.services) == ["Desk", "Other"]
    with pytest.raises((seqrpc.ConnectionLost, seqrpc.Unavailable)) as caught:
        looker.look()
    assert not is_final(looker, caught.value)
    with pytest.raises(seqrpc.NobodyListens):
        looker.look()
    with served(socket_path, Desk()):
        assert looker.look().connections_made == 1
        assert list(looker.services) == ["Desk"]
        looker.close()


def test_a_program_that_was_started_is_gone_for_good(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(PROGRAM)
    looker = looker_at(f"exec:{sys.executable} {tmp_path}/a.py")
    try:
        stats = looker.look()
        assert looker.services == ("A",)
        assert not looker.can_return
        told = looks(Screen(), looker, stats, 0.01)
        assert next(told).stats is stats
        os.kill(stats.pid, signal.SIGKILL)
        with pytest.raises((seqrpc.ConnectionLost, seqrpc.Unavailable)):
            next(told)
    finally:
        looker.close()


def test_a_server_that_does_not_say_what_it_serves_is_looked_at(socket_path: Path) -> None:
    """Nobody may call anything of it, so nobody may ask."""
    with served(socket_path, Desk(), allow=lambda _caller: False) as loop:
        looker = looker_at(socket_path)
        assert looker.look().connections_open == 1
        assert looker.services in ((), ("Desk",))
        looker.close()
        assert loop.is_running()


def test_a_look_has_a_time(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(socket_path))
        silent.listen()
        looker = looker_at(socket_path, 0.05)
        with pytest.raises(Ending) as caught:
            looker.look()
        assert caught.value.status == LATE
        looker.close()


def test_a_refusal_says_the_rule() -> None:
    refusal = seqrpc.PermissionDenied("rpc.stats: this caller is not admitted")
    tell_rule(refusal)
    assert refusal.message.endswith("is not admitted (who may call it: (same_user | uid(0)))")


def test_what_answers_after_the_end_of_a_connection_is_another_server(socket_path: Path) -> None:
    """Were it in the same process, and looked at when it is older than the one before was."""
    looker = looker_at(socket_path)
    with served(socket_path, both()):
        told = looks(Screen(io.StringIO(), io.StringIO()), looker, replace(looker.look(), uptime=0.0), 0.01)
        next(told)
    with served(socket_path, both()):
        assert next(told).rates.is_first
        looker.close()


def test_it_says_once_that_there_is_none_and_looks_again(socket_path: Path) -> None:
    said = io.StringIO()
    with served(socket_path, both()):
        looker = looker_at(socket_path)
        told = looks(Screen(io.StringIO(), said), looker, looker.look(), 0.01)
        first = next(told)
        assert first.rates.is_first
        second = next(told)
        assert not second.rates.is_first
        assert second.rates.seconds == second.stats.uptime - first.stats.uptime
    thread = Thread(lambda: next(told))
    until = time.monotonic() + PATIENCE
    while "NobodyListens" not in said.getvalue():
        assert time.monotonic() < until
    time.sleep(0.05)  # several looks
    with served(socket_path, both()):
        assert thread.result().rates.is_first
        looker.close()
    lines = said.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("; the next look is in 0.01 s")
    assert "NobodyListens: cannot connect to " in lines[1]


def test_what_is_told_of_a_trouble() -> None:
    assert trouble(seqrpc.ConnectionLost("it went"), 2.0) == "ConnectionLost: it went; the next look is in 2 s"


def test_a_thread_looks_until_it_is_over(looker: Looker, desk: Path) -> None:
    looker.look()
    woken = threading.Semaphore(0)
    lookout = Lookout(looker, 0.01, woken.release)
    assert lookout.take() is None
    lookout.start()
    for _ in range(3):
        assert woken.acquire(timeout=PATIENCE)
    looked = lookout.take()
    assert looked is not None
    assert looked.stats is not None
    lookout.end()
    assert not lookout.is_alive()
    other = looker_at(desk)
    assert other.look().connections_open == 1  # that of the thread is closed
    other.close()


def test_a_thread_tells_what_failed_and_ends_while_nobody_is_there(socket_path: Path) -> None:
    looker = looker_at(socket_path)
    woken = threading.Semaphore(0)
    lookout = Lookout(looker, 0.01, woken.release)
    lookout.start()
    assert woken.acquire(timeout=PATIENCE)
    looked = lookout.take()
    assert looked is not None
    assert isinstance(looked.error, seqrpc.NobodyListens)
    lookout.end()
    lookout.join(PATIENCE)
    assert not lookout.is_alive()


def test_a_look_that_is_waited_for_ends_at_once(socket_path: Path) -> None:
    """The server is stopped, and does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(socket_path))
        silent.listen()
        lookout = Lookout(looker_at(socket_path), 0.001, lambda: None)
        lookout.start()
        connected, _address = silent.accept()
        with connected:
            connected.recv(65_536)  # it asks
            lookout.end()
            assert not lookout.is_alive()
