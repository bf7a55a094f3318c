"""Daemons as processes of their own, and clients of all kinds."""

from __future__ import annotations

import asyncio
import grp
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.daemons import as_user, daemon, exists, needs_root, raw_client, said_closing, wait_until_it_listens
from support.processes import OTHER_GID, OTHER_UID
from support.waiting import PATIENCE

import seqrpc
from seqrpc import policy

PROGRAM = """
import asyncio, sys, threading
import seqrpc

class Daemon(seqrpc.Service):
    @seqrpc.method
    async def wait(self, go_on: seqrpc.OwnedFd) -> str:
        began()
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(go_on.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(go_on.fileno())
        return "done"

    @seqrpc.method
    async def whoami(self) -> int | None:
        return seqrpc.current_call().caller.uid

    @seqrpc.method
    async def stubborn(self) -> None:
        began()
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    @seqrpc.method
    async def tidy(self) -> None:
        began()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3600)

    @seqrpc.method
    async def block_a_thread_of_asyncio(self) -> None:
        began()
        go_on = threading.Event()
        try:
            await asyncio.to_thread(go_on.wait)
        finally:
            threading.Timer(0.5, go_on.set).start()  # Python itself waits for such threads as it exits

    @seqrpc.method
    def block(self) -> None:
        began()
        threading.Event().wait()

def began():
    sys.stdout.write("+")
    sys.stdout.flush()

seqrpc.run(Daemon(), sys.argv[1], **eval(sys.argv[2]))
"""


@contextmanager
def running(path: Path | str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with daemon(PROGRAM, path, repr(options)) as child:
        if isinstance(path, Path):
            wait_until_it_listens(path)
        yield child


async def began(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(child.stdout.read, 1) == b"+"


async def ended(child: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(child.wait, PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_runs_finish_and_refuses_what_comes(
    number: signal.Signals, socket_path: Path, pipe: tuple[int, int]
) -> None:
    with running(socket_path) as child:
        async with seqrpc.connect(socket_path) as connection:
            with seqrpc.OwnedFd.dup(pipe[0]) as fd:
                call = asyncio.ensure_future(connection.call("Daemon.wait", fd))
                await began(child)
            child.send_signal(number)
            await said_closing(connection)
            with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
                await connection.call("Daemon.whoami")
            with pytest.raises(seqrpc.ConnectError, match="there is no such file"):
                await seqrpc.connect(socket_path)
            assert not call.done()
            os.write(pipe[1], b"+")
            assert await call == "done"
        assert await ended(child) == 0


async def test_a_second_signal_stops_at_once(socket_path: Path, pipe: tuple[int, int]) -> None:
    with running(socket_path, drain_timeout=600) as child:
        async with seqrpc.connect(socket_path) as connection:
            with seqrpc.OwnedFd.dup(pipe[0]) as fd:
                call = asyncio.ensure_future(connection.call("Daemon.wait", fd))
                await began(child)
            child.terminate()
            await said_closing(connection)
            child.terminate()
            with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled)):
                await call
        assert await ended(child) == 0


@pytest.mark.parametrize("method", ["wait", "block"])
async def test_draining_has_a_bound_also_for_threads(method: str, socket_path: Path, pipe: tuple[int, int]) -> None:
    with running(socket_path, drain_timeout=0.05) as child:
        async with seqrpc.connect(socket_path) as connection:
            with seqrpc.OwnedFd.dup(pipe[0]) as fd:
                params = (fd,) if method == "wait" else ()
                call = asyncio.ensure_future(connection.call(f"Daemon.{method}", *params))
                await began(child)
            child.terminate()
            with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled)):
                await call
        assert await ended(child) == 0
    assert not exists(socket_path)


@pytest.mark.parametrize("method", ["stubborn", "tidy", "block_a_thread_of_asyncio"])
@pytest.mark.parametrize("signals", [1, 2])
async def test_the_stop_has_a_bound_whatever_handlers_do(method: str, signals: int, socket_path: Path) -> None:
    drain_timeout = 0.05 if signals == 1 else 600
    options = f"dict(drain_timeout={drain_timeout}, limits=seqrpc.Limits(close_timeout=0.05))"
    with daemon(PROGRAM, socket_path, options) as child:
        wait_until_it_listens(socket_path)
        async with seqrpc.connect(socket_path) as connection:
            call = asyncio.ensure_future(connection.call(f"Daemon.{method}"))
            await began(child)
            child.terminate()
            await said_closing(connection)
            if signals == 2:
                child.terminate()
            with pytest.raises((seqrpc.ConnectionLost, seqrpc.Cancelled)):
                await call
        assert await ended(child) == 0
    assert not exists(socket_path)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process can be set on Linux only")
async def test_a_daemon_short_of_descriptors_lets_clients_wait_and_serves_on(socket_path: Path) -> None:
    with running(socket_path) as child, ExitStack() as stack:
        async with seqrpc.connect(socket_path) as first:
            assert await first.call("Daemon.whoami") == os.geteuid()
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (80, 80))
            clients = [stack.enter_context(raw_client(socket_path)) for _ in range(100)]
            for client in clients:
                await client.send(0, 1, "Daemon.whoami", [])
            for client in clients:  # each makes room for another
                assert await client.receive() == [1, 1, None, os.geteuid()]
                client.sock.close()
            assert await first.call("Daemon.whoami") == os.geteuid()


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o666])
async def test_another_user_is_kept_out_by_the_mode_and_by_the_policy(mode: int, socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    program = """
try:
    show(ask(connected(argv[0]), 0, 1, "Daemon.whoami", []))
except PermissionError as exc:
    show(["PermissionError", None])
"""
    with running(socket_path, mode=mode):
        error, _result = await as_user(program, socket_path)
        assert (error if mode == 0o600 else error[0]) == (
            "PermissionError" if mode == 0o600 else "rpc.PermissionDenied"
        )
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Daemon.whoami") == 0


GROUP = grp.getgrgid(1).gr_name


@needs_root
@pytest.mark.parametrize("groups, admitted", [([1], True), ([], False)])
async def test_a_group_is_let_in_by_the_mode_and_by_the_policy(
    groups: Sequence[int], admitted: bool, socket_path: Path
) -> None:
    socket_path.parent.chmod(0o755)
    program = """
try:
    show(ask(connected(argv[0]), 0, 1, "Daemon.whoami", []))
except PermissionError as exc:
    show(["PermissionError", None])
"""
    with daemon(PROGRAM, socket_path, f"dict(mode=0o660, group={GROUP!r}, allow=seqrpc.policy.group({GROUP!r}))"):
        wait_until_it_listens(socket_path)
        answer = await as_user(program, socket_path, groups=groups)
    assert answer == ([None, OTHER_UID] if admitted else ["PermissionError", None])


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
async def test_a_daemon_under_socket_activation(socket_path: Path) -> None:
    passed = ("ASAN", "COV", "LD_PRELOAD", "PYTHON", "SEQRPC")
    variables = [f"--setenv={name}" for name in os.environ if name.startswith(passed)]
    command = ["systemd-socket-activate", "--seqpacket", f"--listen={socket_path}", "--fdname=daemon", *variables]
    with subprocess.Popen(  # noqa: ASYNC220 - it takes no time worth a thread
        [*command, sys.executable, "-c", PROGRAM, "systemd:daemon", "{}"], stderr=subprocess.DEVNULL
    ) as child:
        try:
            await asyncio.to_thread(wait_until_it_listens, socket_path)
            async with seqrpc.connect(socket_path) as connection:
                assert await connection.call("Daemon.whoami") == os.geteuid()
            child.terminate()
            assert await ended(child) == 0
        finally:
            child.kill()
    assert exists(socket_path), "it is the manager's, not the daemon's"


async def test_of_two_daemons_on_one_path_the_second_is_told(socket_path: Path) -> None:
    with running(socket_path):
        with daemon(PROGRAM, socket_path, "{}") as second:
            _output, errors = await asyncio.to_thread(second.communicate, timeout=PATIENCE)
            assert second.returncode == 1
            assert errors.decode() == f"{socket_path} is in use: another process holds its lock\n"
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Daemon.whoami") == os.geteuid()


async def test_a_daemon_that_was_killed_starts_again_at_its_path(socket_path: Path) -> None:
    with running(socket_path) as child:
        async with seqrpc.connect(socket_path) as connection:
            child.kill()
            await connection.wait_closed()
            with pytest.raises(seqrpc.ConnectionLost):
                await connection.call("Daemon.whoami")
        assert await ended(child) == -signal.SIGKILL
    assert exists(socket_path)
    with running(socket_path) as child:
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Daemon.whoami") == os.geteuid()
        child.terminate()
        assert await ended(child) == 0
    assert not exists(socket_path)


PING = b"\x94\x00\x01\xa8rpc.ping\x90"
PONG = b"\x94\x01\x01\xc0\xc0"


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
async def test_a_client_in_one_line_of_shell(socket_path: Path) -> None:
    script = f"printf '\\x94\\x00\\x01\\xa8rpc.ping\\x90' | socat - UNIX-CONNECT:{socket_path},type=5"
    with running(socket_path):
        ran = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", script], capture_output=True, timeout=PATIENCE, check=True
        )
    assert ran.stdout == PONG


async def test_a_client_in_one_line_of_python(socket_path: Path) -> None:
    with running(socket_path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(os.fspath(socket_path))
        sock.send(PING)
        assert sock.recv(100) == PONG


@needs_root
@pytest.mark.parametrize("allow, answer", [
    (policy.anyone, [None, OTHER_UID]),
    (policy.gid(OTHER_GID), [None, OTHER_UID]),
    (None, [["rpc.PermissionDenied", "Pair.whoami: this caller is not admitted", None], None]),
])  # fmt: skip
async def test_a_child_of_another_user_is_itself_on_a_pair_that_root_made(
    allow: policy.Policy | None, answer: list[object]
) -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        async with seqrpc.serve(Pair(), sock=ours, allow=allow):
            program = "show(ask(socket.socket(fileno=int(argv[0])), 0, 1, 'Pair.whoami', []))"
            number = theirs.fileno()
            assert await as_user(program, str(number), pass_fds=[number]) == answer
            with raw_client(theirs.dup()) as own:
                await own.send(0, 1, "Pair.whoami", [])
                own_answer = await own.receive()
                assert own_answer[2:] == ([None, 0] if allow in (None, policy.anyone) else own_answer[2:])


class Pair(seqrpc.Service):
    @seqrpc.method
    async def whoami(self) -> int | None:
        return seqrpc.current_call().caller.uid


async def test_a_daemon_on_a_pair_ends_when_its_parent_goes() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs, daemon(PROGRAM, f"fd:{theirs.fileno()}", "{}", pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        async with seqrpc.connect(sock=ours) as connection:
            assert await connection.call("Daemon.whoami") == os.geteuid()
        assert await ended(child) == 0
