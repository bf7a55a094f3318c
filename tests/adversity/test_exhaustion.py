"""When something runs out the daemon answers what it can, says once what is short, does not spin, and comes back.

What is short is really short: limits of the daemon's process are lowered while it runs, and raised again.
"""

from __future__ import annotations

import ast
import errno
import os
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.processes import AS_ROOT
from support.waiting import PATIENCE

import seqrpc
from benchmarks import raw
from benchmarks.processes import ServerProcess

CLIENTS = int(os.environ.get("SEQRPC_CLIENTS", "500"))
"""Of the daemon with 64 descriptors."""

ROOT = Path(__file__).parent.parent.parent


class Client:
    """A connection that waits for its answers."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        self._last = 0

    def send(self, method: str, *params: Any, fds: tuple[int, ...] = (), **options: Any) -> None:
        self._last += 1
        message: list[Any] = [0, self._last, method, list(params)]
        raw.Packet(raw.pack([*message, options] if options else message), fds).send(self.sock)

    def hear(self) -> Any:
        """Return what the next call came to: a result, "long", or the code of an error."""
        data, fds, _flags, _address = socket.recv_fds(self.sock, 65_536, 4)
        for fd in fds:
            os.close(fd)
        message = msgpack.unpackb(data)
        if message[0] == 4:
            return "long"
        return message[3] if message[2] is None else message[2][0]

    def call(self, method: str, *params: Any, fds: tuple[int, ...] = ()) -> Any:
        self.send(method, *params, fds=fds)
        return self.hear()


class Daemon:
    """``benchmarks.targets`` in a process, with what it logs and uses."""

    def __init__(self, server: ServerProcess, log: Path) -> None:
        self.server = server
        self.address = server.address
        self._log = log

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(self.address)
        with client.sock:
            yield client

    @contextmanager
    def limited(self, what: int, soft: int) -> Iterator[None]:
        """Lower a limit of the process inside the block."""
        before = resource.prlimit(self.server.pid, what)
        resource.prlimit(self.server.pid, what, (soft, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.server.pid, what, before)

    def no_descriptors(self) -> Any:
        """Let the process get no descriptor more inside the block, however many it closes there."""
        return self.limited(resource.RLIMIT_NOFILE, 3)  # the three that are always there

    def said(self, what: str) -> int:
        """Return how often something is in the log."""
        return self._log.read_text().count(what)

    def until_it_says(self, what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not self.said(what):
            assert time.monotonic() < until, "it says nothing"
            time.sleep(0.01)

    def is_quiet(self, seconds: float, part: float = 0.5) -> bool:
        """Return whether it uses less than a part of a processor, for so many seconds."""
        used = self.server.processor_ns()
        time.sleep(seconds)
        return self.server.processor_ns() - used < seconds * part * 1e9


@pytest.fixture(params=["uvloop", "asyncio"])
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    log = tmp_path / "log"
    options = ["--log", str(log), *(["--asyncio"] if request.param == "asyncio" else [])]
    with ServerProcess(tmp_path, *options) as server:
        yield Daemon(server, log)


def test_out_of_descriptors_at_accept_who_comes_waits_and_the_others_are_served(daemon: Daemon) -> None:
    with daemon.client() as first, ExitStack() as stack:
        assert first.call("Target.add", 1, 2) == 3
        with daemon.no_descriptors():
            others = [stack.enter_context(daemon.client()) for _ in range(5)]
            for other in others:
                other.send("Target.add", 2, 2)
            daemon.until_it_says("! out of descriptors")
            assert daemon.is_quiet(0.2)
            assert first.call("Target.add", 1, 2) == 3
        assert [other.hear() for other in others] == [4] * 5
        assert daemon.said("! out of descriptors") == 1, "not once for each try"


def test_out_of_descriptors_at_receipt_a_call_is_refused_and_its_connection_lives_on(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    inside = msgpack.ExtType(1, b"\x00")
    try:
        with daemon.client() as client:
            assert client.call("Target.take", inside, fds=(reader,)) is None
            with daemon.no_descriptors():
                for _ in range(20):
                    assert client.call("Target.take", inside, fds=(reader,)) == "rpc.DescriptorsLost"
                    assert client.call("Target.add", 1, 2) == 3
            assert client.call("Target.take", inside, fds=(reader,)) is None
    finally:
        os.close(reader)
        os.close(writer)
    assert daemon.said("! out of descriptors: what came with a message was lost") == 1


@pytest.mark.parametrize(
    "what, soft, code",
    [(resource.RLIMIT_NOFILE, None, "rpc.Overloaded"), (resource.RLIMIT_FSIZE, 100_000, "rpc.TooLarge")],
    ids=["no_descriptor", "no_long_files"],
)
def test_a_long_answer_that_finds_no_memory_file_is_an_error_and_the_next_is_sent(
    daemon: Daemon, what: int, soft: int | None, code: str
) -> None:
    with daemon.client() as client:
        assert client.call("Target.blob") == "long"
        with daemon.no_descriptors() if soft is None else daemon.limited(what, soft):
            for _ in range(5):
                assert client.call("Target.blob") == code
                assert client.call("Target.add", 1, 2) == 3
        assert client.call("Target.blob") == "long"
    assert daemon.said("! there is no room for messages that are longer than a packet") == (soft is None)


def test_out_of_address_space_a_long_request_is_refused_and_the_next_is_taken(daemon: Daemon) -> None:
    data = raw.pack([0, 5, "Target.take", [bytes(48 << 20)]])
    file = raw.sealed(data)
    with daemon.client() as client:
        assert client.call("Target.add", 1, 2) == 3
        used = int(Path(f"/proc/{daemon.server.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        long = raw.Packet(raw.pack([4, len(data), 5]), (file,))
        try:
            with daemon.limited(resource.RLIMIT_AS, used + (24 << 20)):
                for _ in range(3):
                    long.send(client.sock)
                    assert client.hear() == "rpc.Overloaded"
                    assert client.call("Target.add", 1, 2) == 3
            long.send(client.sock)
            assert client.hear() is None
        finally:
            os.close(file)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is what makes memory short")
@pytest.mark.parametrize("daemon", ["uvloop"], indirect=True)
@pytest.mark.parametrize("call, error", [("memfd_create", "ENOMEM"), ("writev", "ENOSPC")])
def test_out_of_memory_a_long_answer_is_an_error_and_the_next_is_sent(daemon: Daemon, call: str, error: str) -> None:
    with daemon.client() as client:
        with _injected(daemon.server.pid, f"{call}:error={error}"):
            assert client.call("Target.blob") == "rpc.Overloaded"
            assert client.call("Target.add", 1, 2) == 3
        assert client.call("Target.blob") == "long"


@contextmanager
def _injected(pid: int, fault: str) -> Iterator[None]:
    """Have system calls of a process fail inside the block."""
    command = ["strace", "-f", "-qq", "-o", os.devnull, f"--inject={fault}", "-p", str(pid)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        status = Path(f"/proc/{pid}/status")
        try:
            _until(lambda: "TracerPid:\t0\n" not in status.read_text())
            time.sleep(0.05)  # it has stopped the process by then, and set up what is injected
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            _until(lambda: "TracerPid:\t0\n" in status.read_text())


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a disk that is full")
def test_on_a_full_disk_nothing_is_begun_and_what_runs_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    reader, writer = os.pipe()  # it ends when its standard input does
    try:
        with ServerProcess(disk) as server:  # its socket, its lock, and what it said are all that there is room for
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.targets", str(disk / "another")],
                cwd=ROOT, stdin=reader, capture_output=True, text=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1, "one line for an administrator"
            assert os.strerror(errno.ENOSPC) in done.stderr
            client = Client(server.address)
            with client.sock:
                assert client.call("Target.add", 1, 2) == 3
                assert client.call("Target.blob") == "long"
    finally:
        os.close(reader)
        os.close(writer)
        subprocess.run(["umount", disk], check=True)


def test_after_a_handler_has_blocked_the_loop_all_that_waited_is_answered(daemon: Daemon) -> None:
    with daemon.client() as first, daemon.client() as second, daemon.client() as third:
        assert [one.call("Target.add", 1, 2) for one in (first, second, third)] == [3] * 3
        first.send("Target.block", 1.0)
        for number in range(50):
            second.send("Target.add", number, 1)
        third.send("Target.idle", deadline=time.monotonic_ns() + 10_000_000)
        with daemon.client() as late:
            late.send("Target.add", 7, 7)
            assert late.hear() == 14
        assert first.hear() is None
        assert [second.hear() for _ in range(50)] == [number + 1 for number in range(50)]
        assert third.hear() in (None, "rpc.DeadlineExceeded"), "it may have come before the loop was blocked"


def test_no_clock_is_read_that_can_be_set() -> None:
    """A clock that jumps matters to nothing: only CLOCK_MONOTONIC and CLOCK_PROCESS_CPUTIME_ID are read."""
    settable = {"time", "time_ns", "localtime", "gmtime", "now", "utcnow", "today", "CLOCK_REALTIME", "clock_settime"}
    found = []
    root = Path(seqrpc.__file__).parent
    for file in root.rglob("*.py"):
        if file == root / "cli" / "clock.py":  # it writes the time of day, and waits for nothing
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in settable and isinstance(node.value, ast.Name):
                if node.value.id in {"time", "datetime", "date"}:
                    found.append(f"{file.name}:{node.lineno}")
            elif isinstance(node, ast.ImportFrom) and node.module in {"time", "datetime"}:
                found += [f"{file.name}: {name.name}" for name in node.names if name.name in settable]
    assert found == []


@pytest.mark.parametrize("daemon", ["uvloop"], indirect=True)
def test_with_64_descriptors_all_of_many_clients_are_served_in_the_end(daemon: Daemon) -> None:
    request = raw.pack([0, 1, "Target.add", [2, 3]])
    with daemon.limited(resource.RLIMIT_NOFILE, 64), ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(CLIENTS):
            client = stack.enter_context(daemon.client())
            client.sock.send(request)
            selector.register(client.sock, selectors.EVENT_READ)

        def served(within: float) -> list[socket.socket]:
            """Return those that were answered."""
            found = []
            for key, _events in selector.select(within):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                assert msgpack.unpackb(sock.recv(1_000)) == [1, 1, None, 5]
                selector.unregister(sock)
                found.append(sock)
            return found

        inside: list[socket.socket] = []
        while len(inside) < 32:
            inside += served(PATIENCE)
        assert daemon.is_quiet(0.3, 0.1), "full, and idle"
        assert not served(0.0)
        count = len(inside)
        while count < CLIENTS:
            for sock in inside:
                sock.close()
            inside = served(PATIENCE)
            assert inside, "nobody is served though somebody left"
            count += len(inside)
        assert daemon.said("that RLIMIT_NOFILE leaves room for: others wait") == 1
    with daemon.client() as after:
        assert after.call("Target.blob") == "long"
