"""The processes of the two scripts about hostile callers: how they are started, asked, watched and ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

OTHER_UID = 12_345
OTHER_GID = 23_456

FRIEND_UID = 12_346
"""Whose the friendly caller is."""

_ROOT = Path(__file__).parent.parent
_STARTS_WITHIN = 20.0  # seconds
_ENDS_WITHIN = 5.0
_CPU_CLOCK_OF_A_PROCESS = 2  # CPUCLOCK_SCHED: how Linux numbers the clocks that clock_getcpuclockid(3) returns


class FailedError(Exception):
    """A process did not do what it was asked to; the text says which, and what it said."""


def needs_root() -> str | None:
    """Return why this cannot be measured here, or None if it can."""
    if not sys.platform.startswith("linux"):
        return "it reads /proc, which is Linux's"
    return None if os.geteuid() == 0 else "it needs root, for one of its processes becomes another user"


def become(uid: int) -> None:
    """Make this process another user's, who may nothing here."""
    os.setgroups([])
    os.setresgid(OTHER_GID, OTHER_GID, OTHER_GID)
    os.setresuid(uid, uid, uid)


def become_other() -> None:
    """Make this process that of the user who means ill."""
    become(OTHER_UID)


class Memory(NamedTuple):
    """Bytes of a process (proc_pid_status(5))."""

    resident: int
    own: int
    """What it has for itself, and of memory files."""
    peak: int
    """The most that was ever resident since :func:`forget_peak`."""


def memory(pid: int) -> Memory:
    """Return what a process has now."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())

    def size(name: str) -> int:
        return int(lines[name].removesuffix("kB")) * 1024

    return Memory(size("VmRSS"), size("RssAnon") + size("RssShmem"), size("VmHWM"))


def processor_ns(pid: int) -> int:
    """Return the processor time that a process has used, of all its threads, in nanoseconds."""
    return time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK_OF_A_PROCESS)


def forget_peak(pid: int) -> None:
    """Let the peak of a process begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def shared_memory() -> int:
    """Return the bytes of all memory files of this machine, also of those that are on their way in a socket."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    return 0


class Worker:
    """A process that is told what to do by lines of JSON, and answers by such lines. Use it in ``with``."""

    def __init__(self, module: str, *args: str, log: Path) -> None:
        self._module = module
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}", *args],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    def tell(self, **command: Any) -> None:
        """Say what to do."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, within: float) -> Any:
        """Return the answer.

        Raises:
            FailedError: there is none.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], within)[0]:
            raise FailedError(f"{self._module} did not answer within {within:g} s")
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").splitlines()
            raise FailedError(f"{self._module} ended: {said[-1] if said else 'without a word'}")
        return json.loads(line)

    def ask(self, within: float = 30.0, **command: Any) -> Any:
        """Say what to do, and return the answer."""
        self.tell(**command)
        return self.hear(within)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class ServerProcess:
    """``python -m benchmarks.targets``: started here, listening when this returns. Killed at the end of ``with``."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.address = str(directory / "socket")
        self.said = directory / "server.said"
        with self.said.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.targets", self.address, *options],
                cwd=_ROOT,
                stdin=subprocess.PIPE,  # it ends with whoever started it
                stdout=file,
                stderr=file,
            )
        self.pid = self._process.pid
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.kill()
            raise

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
                contextlib.suppress(FileNotFoundError, ConnectionRefusedError),
            ):
                sock.connect(self.address)
                return
            time.sleep(0.01)
        raise FailedError(f"the server did not begin to listen: {self.said.read_text()[-1000:]}")

    def processor_ns(self) -> int:
        """Return the processor time that it has used, of all its threads, in nanoseconds."""
        return processor_ns(self.pid)

    def settle(self, within: float = 2.0) -> None:
        """Wait until it does nothing: what it does after an answer belongs to it as well."""
        deadline = time.monotonic() + within
        quiet, used = 0, self.processor_ns()
        while quiet < 3 and time.monotonic() < deadline:
            time.sleep(0.002)
            before, used = used, self.processor_ns()
            quiet = quiet + 1 if used - before < 100_000 else 0

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def terminate(self, within: float) -> float | None:
        """Send SIGTERM and return the seconds until it had ended; None if it had not within so many."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - started

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
