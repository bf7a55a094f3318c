"""Child processes: started by exec with one descriptor, watched and killed by their pidfd, and gone when we are.

A child is a program of its own, never a fork that goes on: a fork of a program with threads may hang at the first lock.
It inherits its standard streams and one socket. What is done to it goes by its pidfd (pidfd_open(2)), which names this
process for good, and not by its number, which may soon be another's.

Linux only (5.4).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Final

from seqrpc.kernel import ancillary, forks
from seqrpc.kernel.descriptors import OwnedFd

_F_SETSIG: Final = 10
"""Linux's, of all architectures (fcntl(2)); Python has no name for it."""

_HIGHEST_STANDARD: Final = 2

Output = int | IO[bytes] | None
"""Where what a process writes goes, as :class:`subprocess.Popen` takes it."""


class Leash:
    """Kills a process when this one has gone, however it went, and however busy the other one is.

    A pipe whose reading end asks for a signal to the child where there is something to read, or no writer any more
    (fcntl(2), ``F_SETOWN``, ``F_SETSIG``). Nobody ever writes. The reading end must outlive the writing one, in
    whatever order the kernel closes the descriptors of a process that has gone: so this process does not have it, but
    it is on its way in a message that nobody receives, and is closed as a consequence of closing the socket.

    ``PR_SET_PDEATHSIG`` would not do: it tells of the end of the thread that made the child.

    Args:
        pid: a child of this process that has not been waited for.
    """

    __slots__ = ("__weakref__", "_fds")

    def __init__(self, pid: int) -> None:
        """Begin to hold it."""
        self._fds: list[int] = []
        forks.register(self, Leash.let_go)  # a copy in a forked child would be a writer that goes on
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._fds.append(writer)
        try:
            fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
            fcntl.fcntl(reader, _F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours:
                self._fds.insert(0, theirs.detach())  # closed before the writer where this lets go
                ancillary.send(ours, b"\0", [reader])
        except BaseException:
            self.let_go()
            raise
        finally:
            os.close(reader)

    def let_go(self) -> None:
        """Let the process live on without this one."""
        while self._fds:
            os.close(self._fds.pop(0))

    def __del__(self) -> None:
        """Let go."""
        self.let_go()


class Process:
    """A child process that :func:`start` started; it is killed when this is dropped, or this process ends.

    One that is let off its leash lives on.

    Args:
        popen: the process, which has not been waited for.
        name: what it is called in errors.
    """

    __slots__ = ("__weakref__", "_leash", "_lock", "_pidfd", "_popen", "name", "pid", "returncode")

    def __init__(self, popen: subprocess.Popen[bytes], name: str) -> None:
        """Take hold of it."""
        self.name = name
        self.pid: Final = popen.pid
        """Its number, for people: it stays its own until :meth:`poll` has returned True."""
        self.returncode: int | None = None
        """Its exit status, or the number of the signal that killed it, negative; None if it lives, or nobody knows."""
        self._lock = threading.RLock()
        self._popen: subprocess.Popen[bytes] | None = popen
        self._pidfd: OwnedFd | None = None
        self._leash: Leash | None = None
        try:
            self._pidfd = OwnedFd(os.pidfd_open(popen.pid))
            self._leash = Leash(popen.pid)
        except BaseException:
            popen.kill()
            popen.wait()
            self._popen = None
            self._close()
            raise
        forks.register(self, Process._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Leave it alone: this is a copy in a forked child."""
        self._lock = threading.RLock()  # another thread of the parent may hold the other one
        if self._popen is not None:
            self._popen.returncode = 0  # its finalizer is to say nothing
        self._popen = None
        self._close()

    def _close(self) -> None:
        if self._leash is not None:
            self._leash.let_go()
        if self._pidfd is not None:
            self._pidfd.close()
        self._leash = self._pidfd = None

    @property
    def has_ended(self) -> bool:
        """Whether it was waited for."""
        return self._popen is None

    def fileno(self) -> int:
        """Return its pidfd, lent: it is readable once the process has ended.

        Raises:
            ValueError: it was waited for.
        """
        if self._pidfd is None:
            raise ValueError(f"{self.name} has ended")
        return self._pidfd.fileno()

    def poll(self) -> bool:
        """Return whether it has ended, and take its exit status if it has, after which it is no zombie."""
        with self._lock:  # of two threads one gets the status, and the other would take the process for somebody else's
            if self._popen is None or self._pidfd is None:
                return True
            try:
                result = os.waitid(os.P_PIDFD, self._pidfd.fileno(), os.WEXITED | os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for all children, or SIGCHLD is ignored
                self._ended(None)
                return True
            if result is None:
                return False
            self._ended(result.si_status if result.si_code == os.CLD_EXITED else -result.si_status)
            return True

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, waited for or not; unlike :meth:`poll` this changes nothing."""
        with self._lock:
            if self._popen is None or self._pidfd is None:
                return True
            try:
                flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
                return os.waitid(os.P_PIDFD, self._pidfd.fileno(), flags) is not None
            except ChildProcessError:
                return True

    @property
    def is_leashed(self) -> bool:
        """Whether it ends with this process."""
        return self._leash is not None

    def unleash(self) -> None:
        """Let it live on, whatever becomes of this process and of this object, which can still tell how it ends."""
        with self._lock:
            if self._leash is not None:
                self._leash.let_go()
                self._leash = None
            if self._popen is not None:
                self._popen.returncode = 0  # its finalizer is to say nothing

    def _ended(self, returncode: int | None) -> None:
        assert self._popen is not None
        self.returncode = returncode
        self._popen.returncode = 0 if returncode is None else returncode  # for its own finalizer
        self._popen = None
        self._close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with self._lock, suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd.fileno(), number)

    def kill(self) -> None:
        """Kill it, unless it has ended; :meth:`poll` is still to be called."""
        self.send_signal(signal.SIGKILL)

    def memory_bytes(self) -> int:
        """Return how much of its own memory it has (proc(5), ``RssAnon``), 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as status:
                line = next((line for line in status if line.startswith(b"RssAnon:")), b": 0 kB")
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return int(line.split()[1]) * 1024

    def __del__(self) -> None:
        """Kill it, unless it was let off, and wait for it: nobody else does."""
        popen = getattr(self, "_popen", None)
        if popen is not None and not self.poll():
            if self.is_leashed:
                self.kill()
                popen.returncode = popen.wait()
            self._close()

    def __repr__(self) -> str:
        """Return its name, and whether it runs."""
        state = "running" if not self.has_ended else how_it_ended(self.returncode)
        return f"<Process {self.name} pid={self.pid} {state}>"


def how_it_ended(returncode: int | None) -> str:
    """Return, for people, how a process ended."""
    if returncode is None:
        return "ended"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"died of {signal.Signals(-returncode).name}"
    except ValueError:  # a real-time signal
        return f"died of signal {-returncode}"


def start(
    argv: Sequence[str | bytes | os.PathLike[str]],
    fd: int,
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: Output = subprocess.DEVNULL,
    stdout: Output = None,
    stderr: Output = None,
    variable: str = "SEQRPC_FD",
) -> Process:
    """Start a program with one descriptor besides its standard streams.

    Args:
        argv: the program and its arguments.
        fd: the descriptor, lent; its number is in an environment variable, and the same in the child.
        name: what it is called in errors.
        environment: its environment; by default this process's.
        cwd: its working directory.
        stdin: where its input comes from, by default from nowhere; None: from where this process's does.
        stdout: where its output goes, by default where this process's does; lent.
        stderr: likewise.
        variable: the name of the environment variable.

    Raises:
        OSError: the program cannot be started, or this system has no pidfds.
    """
    if not hasattr(os, "pidfd_open"):
        raise OSError(
            errno.ENOSYS, "children are held by their pidfds, which this system has not (Linux has, from 5.4 on)"
        )
    variables = dict(os.environ if environment is None else environment)
    if fd <= _HIGHEST_STANDARD:  # this process has closed its own standard streams
        with OwnedFd(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGHEST_STANDARD + 1)) as higher:
            number = higher.fileno()
            streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            return start(argv, number, name=name, environment=variables, cwd=cwd, variable=variable, **streams)
    popen = subprocess.Popen(  # noqa: S603 - that is what this is for
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=(fd,),
        cwd=cwd,
        env={**variables, variable: str(fd)},
    )
    return Process(popen, name)
