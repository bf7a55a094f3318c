"""How a daemon makes way for its successor, and how it goes on where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from support.daemons import Stage, exists
from support.restarts import ASKED, Listening, Watch, connected, handed_over, played, run, status_of, stop, watched
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio import succession as module
from seqrpc.aio.hub import Hub
from seqrpc.aio.listener import Listener
from seqrpc.aio.server import hub_of
from seqrpc.aio.succession import Succession
from seqrpc.kernel.handover import Talk, Word

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="successors are held by pidfds")


@pytest.fixture
def watch(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Return a daemon that runs, and what it tells the manager."""
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(socket_path.with_name("notify")))
    with watched(socket_path) as watch:
        yield watch


def test_what_clients_hold_lives_on_in_the_predecessor(watch: Watch) -> None:
    async def work() -> int:
        first = watch.first.pid
        async with connected(watch) as connection:
            numbers = await connection.call("Work.numbers")
            count = await connection.call("Work.count")
            assert await anext(numbers) == first
            assert await count.call("Count.up") == [first, 1]
            pid = watch.restart(first)
            await handed_over(connection, first, pid)
            assert await count.call("Count.up") == [first, 2]
            watch.end_work()
            assert [number async for number in numbers] == [first]
            await count.close()
            assert await asyncio.to_thread(watch.first.wait, PATIENCE) == 0
            assert await connection.call("Work.pid") == pid
        return pid

    stop(watch, run(work()))


def test_whoever_watches_is_told_that_there_is_no_more_to_see(watch: Watch) -> None:
    async def work() -> int:
        first = watch.first.pid
        async with connected(watch) as connection:
            calls = await connection.call("rpc.monitor")
            busy = await watch.keep_busy(connection)
            pid = watch.restart(first)
            watch.end_work()
            await busy
            assert [call["method"] async for call in calls if call["method"] != "rpc.ping"] == ["Work.busy"]
            assert await asyncio.to_thread(watch.first.wait, PATIENCE) == 0
            assert await connection.call("Work.pid") == pid
        return pid

    stop(watch, run(work()))


def test_a_signal_ends_a_restart_that_has_not_come_to_anything(watch: Watch) -> None:
    watch.change_program("pathlib.Path(path + '.pid').write_text(str(os.getpid())); signal.pause()")
    os.kill(watch.first.pid, signal.SIGHUP)
    assert watch.hear() == "RELOADING=1"
    pid_file = Path(f"{watch.path}.pid")
    while not (pid_file.exists() and pid_file.read_text()):
        assert watch.first.poll() is None
    os.kill(watch.first.pid, signal.SIGTERM)
    assert watch.hear() == "STOPPING=1"
    assert watch.first.wait(PATIENCE) == 0
    assert not os.path.exists(f"/proc/{pid_file.read_text()}")
    assert not watch.path.exists()


def test_a_signal_for_a_restart_that_comes_during_one_is_for_the_successor(watch: Watch) -> None:
    async def work() -> int:
        async with connected(watch) as connection:
            call = await watch.keep_busy(connection)
            pid = watch.restart(watch.first.pid)
            os.kill(watch.first.pid, signal.SIGHUP)  # it still waits for the call
            watch.end_work()
            assert await call == watch.first.pid
            assert watch.hear() == "RELOADING=1"
            name, _, successor = watch.hear().partition("=")
            assert (name, watch.hear()) == ("MAINPID", "READY=1")
            assert await asyncio.to_thread(status_of, pid) == 0
            assert await connection.call("Work.pid") == int(successor)
        return int(successor)

    stop(watch, run(work()))


def test_a_successor_that_is_stopped_at_once_leaves_nothing_running(watch: Watch) -> None:
    async def work() -> None:
        async with connected(watch) as connection:
            call = await watch.keep_busy(connection)
            pid = watch.restart(watch.first.pid)
            stop(watch, pid)
            watch.end_work()
            with contextlib.suppress(seqrpc.ConnectionLost, seqrpc.Unavailable):
                assert await call == watch.first.pid
            assert await asyncio.to_thread(watch.first.wait, PATIENCE) == 0

    run(work())


def test_a_successor_that_dies_at_once_is_replaced_by_its_predecessor(watch: Watch) -> None:
    async def work() -> None:
        async with connected(watch) as connection:
            call = await watch.keep_busy(connection)
            pid = watch.restart(watch.first.pid)
            os.kill(pid, signal.SIGKILL)
            assert [watch.hear(), watch.hear()] == [f"MAINPID={watch.first.pid}", "READY=1"]
            watch.end_work()
            assert await call == watch.first.pid
            async with connected(watch) as newcomer:
                assert await newcomer.call("Work.pid") == watch.first.pid

    run(work())
    os.kill(watch.first.pid, signal.SIGTERM)
    _output, errors = watch.first.communicate(timeout=PATIENCE)
    assert b"! restart: the successor died of SIGKILL while it took over; this process serves on\n" in errors
    assert not watch.path.exists()


async def test_a_predecessor_that_has_gone_gives_nothing(socket_path: Path) -> None:
    async with played(socket_path) as p:
        asking = asyncio.ensure_future(p.predecessor.ask(p.address, 10, **ASKED))
        await turns_of_the_loop()
        p.conversation.close()
        with pytest.raises(seqrpc.ListenError, match="has gone"):
            await asking
        with pytest.raises(seqrpc.ListenError, match="has gone"):
            await p.predecessor.ask(p.address, 10, **ASKED)
        await p.predecessor.wait_gone()


@contextlib.asynccontextmanager
async def successor(p: Listening) -> AsyncIterator[Hub]:
    """Serve with what the predecessor listens with."""
    listening = await p.give()
    async with seqrpc.serve(Nothing(), f"{p.address}2") as server:
        hub = hub_of(server)
        own, hub._listener = hub.listener, Listener(asyncio.get_running_loop(), listening, hub.new_link)
        try:
            yield hub
        finally:
            assert own is not None
            own.close()


class Nothing(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def nothing(self) -> None: ...

    @seqrpc.method
    async def busy(self) -> None:
        self.stage.reach("busy")
        await self.stage.wait("done")


async def test_a_predecessor_that_goes_before_it_is_relieved_is_told_of(socket_path: Path) -> None:
    async with played(socket_path) as p, successor(p) as hub:
        relieving = asyncio.ensure_future(p.predecessor.relieve(hub))
        await turns_of_the_loop()
        p.conversation.close()
        with pytest.raises(seqrpc.ListenError, match="has gone"):
            await relieving
        with pytest.raises(seqrpc.ListenError, match="has gone"):
            await p.predecessor.relieve(hub)


async def test_connections_are_taken_until_the_predecessor_has_none(socket_path: Path) -> None:
    async with played(socket_path) as p, successor(p) as hub:
        relieving = asyncio.ensure_future(p.predecessor.relieve(hub))
        heard = await p.conversation.hear()
        assert heard is not None
        assert heard.word is Word.SERVING
        p.listening.is_anothers = True
        p.conversation.say(Word.YOURS)
        await relieving
        one, other = seqrpc.socket_pair()
        with other:
            p.conversation.say(Word.CONNECTION, fds=[one.fileno()])
            one.close()
            p.conversation.say(Word.CONNECTION)
            for word in (Word.TAKEN, Word.LOST):
                heard = await p.conversation.hear()
                assert heard is not None
                assert heard.word is word
            async with seqrpc.connect(sock=other) as client:
                await client.call("Nothing.nothing")
            p.conversation.close()
            await p.predecessor.wait_gone()


@pytest.mark.parametrize("is_yours", [False, True])
async def test_one_that_is_stopped_as_it_takes_over_knows_whose_the_name_is(is_yours: bool, socket_path: Path) -> None:
    async with played(socket_path) as p, successor(p) as hub:
        relieving = asyncio.ensure_future(p.predecessor.relieve(hub))
        await p.conversation.hear()
        relieving.cancel()
        await asyncio.wait([relieving])
        if is_yours:
            p.listening.is_anothers = True
            p.conversation.say(Word.YOURS)
        await p.predecessor.end()
        heard = await p.conversation.hear()
        assert (heard is not None and heard.word is Word.STOPPING) == is_yours
    assert not exists(socket_path)


class Silent:
    """A service manager that is not there."""

    def environment(self) -> dict[str, str]:
        return {}

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self) -> None:
        self.told.append("ready")

    def reloading(self) -> None:
        self.told.append("reloading")

    def main_pid(self, pid: int) -> None:
        self.told.append("own" if pid == os.getpid() else "other")


SPEAKING = """
import sys
from seqrpc.kernel.handover import Word, take_predecessor
import select
talk = take_predecessor()
for word in map(Word, sys.argv[1].encode().split(b",")):
    talk.say(word)
select.select([talk.sock], [], [])
if sys.argv[2] == "stays":
    talk.sock.close()
    select.select([], [], [])
"""


@contextlib.asynccontextmanager
async def restarting(
    path: Path, monkeypatch: pytest.MonkeyPatch, words: str, end: str = "", *, restart_timeout: float = PATIENCE
) -> AsyncIterator[tuple[Succession, Silent]]:
    """Restart a server of this process with a successor that says some words, and then ends."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", SPEAKING, words, end])
    manager, bounds = (
        Silent(),
        seqrpc.Limits(close_timeout=0.1 if end == "stays" else PATIENCE, restart_timeout=restart_timeout),
    )
    service = Nothing()
    async with (
        asyncio.timeout(PATIENCE),
        seqrpc.serve(service, path, limits=bounds) as server,
        seqrpc.connect(path) as client,
    ):
        call = asyncio.ensure_future(client.call("Nothing.busy"))
        await service.stage.wait("busy")
        succession = Succession(hub_of(server), manager, bounds, PATIENCE, None)
        succession.begin_soon()
        try:
            yield succession, manager
            service.stage.reach("done")
            await call
            async with seqrpc.connect(path) as newcomer:
                await newcomer.call("Nothing.nothing")
        finally:
            await succession.end()
    assert not exists(path)


@pytest.mark.parametrize(
    "words, end, reason",
    [
        ("?", "", "exited with status 0"),
        ("!", "", "exited with status 0 while it took over"),
        ("!", "stays", "said nothing any more, and is killed while it took over"),
    ],
)
async def test_one_that_does_not_serve_is_told_of_and_this_process_serves_on(
    words: str,
    end: str,
    reason: str,
    *,
    socket_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with restarting(socket_path, monkeypatch, words, end) as (succession, manager):
        await comes_true(lambda: "ready" in manager.told)
        assert caplog.messages[-1] == f"! restart: the successor {reason}; this process serves on"
        assert manager.told == ["reloading", *(["other", "own"] if words == "!" else []), "ready"]
        assert not succession.is_relieved


async def test_one_that_hangs_is_killed_after_a_while(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with restarting(socket_path, monkeypatch, "+", restart_timeout=0.01) as (succession, manager):
        await comes_true(lambda: manager.told)
        assert succession.is_under_way
        succession.begin_soon()  # is remembered
        await comes_true(lambda: manager.told.count("ready") == 2)
        assert caplog.messages.count(f"! restart: {HANGS}; this process serves on") == 2


HANGS = "the successor did not serve within 0.01 s (restart_timeout), and is killed"


async def test_one_that_cannot_be_started_is_told_of(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with restarting(socket_path, monkeypatch, "?") as (_succession, manager):
        await comes_true(lambda: "ready" in manager.told)
        assert "no successor could be started, and this process serves on" in caplog.text


@pytest.mark.parametrize("failure", [None, errno.ETOOMANYREFS, errno.EPIPE])
async def test_one_that_cannot_be_given_what_it_asks_for_is_told_of(
    failure: int | None, socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def give(self: Talk, listening: object) -> None:
        if failure is not None:
            raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(Talk, "give", give)
    waits = PATIENCE if failure == errno.ETOOMANYREFS else 0.5  # the others wait as long as they may
    async with restarting(socket_path, monkeypatch, "?", restart_timeout=waits) as (_succession, manager):
        await comes_true(lambda: "ready" in manager.told)
        if failure == errno.ETOOMANYREFS:
            assert "could not be given the socket, and is killed" in caplog.text


async def test_one_that_ends_as_it_says_that_it_serves_is_no_successor(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Talk):
        def say(self, word: Word, data: bytes = b"", fds: Sequence[int] = ()) -> None:
            if word is Word.YOURS:
                self.sock.shutdown(socket.SHUT_RDWR)
            super().say(word, data, fds)

    monkeypatch.setattr(module, "Talk", Deaf)
    async with restarting(socket_path, monkeypatch, "!") as (_succession, manager):
        await comes_true(lambda: "ready" in manager.told)
        assert "! restart: the successor exited with status 0; this process serves on" in caplog.messages


async def test_what_never_ends_is_left_after_the_drain_timeout(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", SPEAKING, "!", ""])
    async with asyncio.timeout(PATIENCE), seqrpc.serve(Nothing(), socket_path) as server:
        succession = Succession(hub_of(server), Silent(), seqrpc.Limits(), 0.0, None)
        succession.begin_soon()
        await succession.done
        assert succession.is_relieved
        await succession.end()
