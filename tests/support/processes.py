"""Real child processes for tests: forked, as another user where asked, their answers pickled back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pickle
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

OTHER_UID = 100_000 + os.getpid() % 100_000
"""Another for each run: the kernel counts what a user has on the way, and suites run at the same time."""

OTHER_GID = 23_456

AS_ROOT = os.geteuid() == 0


class ChildFailed(Exception):
    """The work of a child raised; the message is its traceback."""


def fork() -> int:
    """Fork, also where an earlier test left a thread of a library's own: no child here waits for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def fork_as_a_library_does() -> int:
    """Fork without a word to Python, once no other thread of ours asks for the interpreter.

    The child has the interpreter's lock and none of the threads: asked to hand the lock over by one that was there, it
    would wait for ever for that to take it. Threads that close descriptors end by themselves after two seconds.
    """
    until = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < until:
        time.sleep(0.005)
    return ctypes.PyDLL(None).fork()  # type: ignore[no-any-return]


def save_coverage() -> None:
    """Write down what ran in a forked child, which ends without coming home to the test runner."""
    if "coverage" in sys.modules:
        measured = sys.modules["coverage"].Coverage.current()
        if measured is not None:
            with contextlib.suppress(PermissionError):
                os.seteuid(0)  # its files are root's
            with contextlib.suppress(PermissionError):  # one that is another user's for good
                measured.save()


def become(
    uid: int | None, gid: int | None = None, groups: Sequence[int] = (), *, saved_uid: int | None = None
) -> None:
    """Make this process another user's, without a capability in effect; None changes nothing.

    ``saved_uid`` is what it may go back to (setresuid(2)); by default it may not.
    """
    if uid is None:
        return
    gid = uid if gid is None else gid
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid if saved_uid is None else saved_uid)


def in_child(work: Callable[[], T], *, uid: int | None = None, gid: int | None = None, groups: Sequence[int] = ()) -> T:
    """Run ``work`` in a forked child, as another user where asked, and return what it returned."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        _run_and_exit(work, writer, uid, gid, groups)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise ChildFailed(f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
    worked, result = pickle.loads(answer)
    if not worked:
        raise ChildFailed(result)
    returned: T = result
    return returned


def _run_and_exit(
    work: Callable[[], Any], writer: int, uid: int | None, gid: int | None, groups: Sequence[int]
) -> None:
    try:
        try:
            become(uid, gid, groups, saved_uid=0)
            answer = pickle.dumps((True, work()))
            save_coverage()
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        while answer:
            answer = answer[os.write(writer, answer) :]
    finally:
        os._exit(0)


def _report_and_wait(writer: int, _kept_open: object) -> NoReturn:
    os.write(writer, b"+")
    while True:
        signal.pause()


@contextlib.contextmanager
def running_child(work: Callable[[], object], *, uid: int | None = None) -> Iterator[int]:
    """Fork a child that does ``work`` and then waits; yield its pid once the work is done. It ends by SIGKILL."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            become(uid)
            _report_and_wait(writer, work())
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb", buffering=0) as pipe:
            answer = pipe.read(10_000)
        if answer != b"+":
            raise ChildFailed(answer.decode())
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


class Line:
    """One end of a line between a test and its child: values go to and fro."""

    def __init__(self, sock: socket.socket, pid: int = 0) -> None:
        self.sock = sock
        self.pid = pid
        """Of the child, at the test's end."""

    def tell(self, value: Any) -> None:
        self.sock.send(pickle.dumps(value))

    def hear(self) -> Any:
        """Return what the other side tells next; for the test, with a bound that only a hang reaches."""
        return self._heard(self.sock.recv(65_536))

    async def listen(self) -> Any:
        """As :meth:`hear`, on an event loop."""
        self.sock.setblocking(False)
        return self._heard(await asyncio.get_running_loop().sock_recv(self.sock, 65_536))

    def ask(self, value: Any) -> Any:
        """Tell, and return the answer."""
        self.tell(value)
        return self.hear()

    @staticmethod
    def _heard(data: bytes) -> Any:
        value = pickle.loads(data) if data else ChildFailed("the other end is gone")
        if isinstance(value, ChildFailed):
            raise value
        return value

    def kill(self) -> None:
        """End the child by SIGKILL, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def child_on_a_loop(
    act: Callable[[Line], Coroutine[Any, Any, None]],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    *,
    uid: int | None = None,
) -> Iterator[Line]:
    """Fork a child that runs ``act`` on a loop of its own; yield the line to it. At the end it is killed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = fork()
    if pid == 0:
        line = Line(theirs)
        try:
            ours.close()
            become(uid)
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(act(line))
        except BaseException:
            line.sock.setblocking(True)
            line.tell(ChildFailed(traceback.format_exc()))
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        ours.settimeout(30)
        line = Line(ours, pid)
        try:
            yield line
        finally:
            line.kill()


@contextlib.contextmanager
def chroot(directory: str) -> Iterator[None]:
    """Have no /proc."""
    before = os.open("/", os.O_PATH)
    os.chroot(directory)
    try:
        yield
    finally:
        os.fchdir(before)
        os.chroot(".")
        os.close(before)
