"""Serve a directory of log files: callers who may read logs can list, open and follow them.

    python examples/logdaemon.py --demo
    python examples/logdaemon.py --address /run/logs.sock --mode 660 --group adm
    python examples/logtail.py --address /run/logs.sock dpkg.log --follow

Units for systemd are in examples/systemd.

The daemon admits its own user, root, and members of the group adm, who may read logs on Debian. The socket file's
mode and group decide who can connect at all; by default only the daemon's own user.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import grp
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from logs import DEFAULT_ADDRESS, LogFile, Logs, NoSuchLog, NotReadable, every_log
from logtail import last_lines

import seqrpc
from seqrpc import policy

MAX_DEPTH = 8  # directories inside one another that the list goes into
PAGE_BYTES = 32_768  # of names and numbers in one answer; a packet holds 65,536
POLL_SECONDS = 0.25  # between two looks at a log that has nothing new: soon enough for somebody who reads along
MAX_LINE_BYTES = 65_536  # of one line; a stream has a longer one in pieces
STOP_SECONDS = 1.0  # that a stopping daemon gives those who follow, who would go on for ever
LAST_SECOND = 253_402_300_799  # of the year 9999, the last that datetime knows; a file's time may be any number

IN_DIRECTORY = os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | IN_DIRECTORY
OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | IN_DIRECTORY  # a FIFO would make us wait for its writer

# A symbolic link; one in place of a directory, or a file there; a socket; a name that no file can have.
NOT_LOGS = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EINVAL}

T = TypeVar("T")


class Tail:
    """What is appended to a log, and to the file that takes its place. Its methods may wait for the file system.

    It polls, which works on every file system. If a file was cut short and has grown beyond its old length since the
    last look, what it held before that length is missed.

    Args:
        open_log: opens the log by its name.
        start: the byte to begin with; None is the end at the time of the first look.
    """

    def __init__(self, open_log: Callable[[], seqrpc.OwnedFd], start: int | None) -> None:
        """Prepare; the first look opens the log."""
        self._open_log = open_log
        self._start = start
        self._file: seqrpc.OwnedFd | None = None
        self._next: seqrpc.OwnedFd | None = None  # what took its place
        self._position = 0
        self._unended = b""  # the beginning of a line whose end is not there yet

    def read(self) -> list[str]:
        """Return the lines that are new, if any.

        Raises:
            NoSuchLog, NotReadable: the log could not be opened at first.
        """
        if self._file is None:
            self._file = self._open_log()
            size = os.fstat(self._file.fileno()).st_size
            self._position = size if self._start is None else self._start if 0 <= self._start <= size else 0
        data = os.pread(self._file.fileno(), MAX_LINE_BYTES, self._position)
        self._position += len(data)
        data = self._unended + data if data else self._at_the_end(self._file)
        *lines, self._unended = data.split(b"\n")
        if len(self._unended) > MAX_LINE_BYTES:
            lines.append(self._unended)
            self._unended = b""
        return [line.decode(errors="backslashreplace") for line in lines]

    def _at_the_end(self, file: seqrpc.OwnedFd) -> bytes:
        """See whether the log was cut short or replaced; return what is left of its last line."""
        if self._next is not None:  # and nobody has written to the old one since we found the new one
            file.close()
            self._file, self._next, self._position = self._next, None, 0
            return self._unended and self._unended + b"\n"
        status = os.fstat(file.fileno())
        if status.st_size < self._position:
            self._position = 0
            return b""
        with contextlib.suppress(NoSuchLog, NotReadable):  # it is being rotated
            found = self._open_log()
            if os.path.samestat(os.fstat(found.fileno()), status):
                found.close()
            else:
                self._next = found
        return self._unended

    def close(self) -> None:
        """Close what is open."""
        for file in (self._file, self._next):
            if file is not None:
                file.close()


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread. If cancelled, wait for its end, so that the caller can then close what it uses."""
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.wait([running])


class LogDaemon(seqrpc.Service, Logs, name="Logs", allow=policy.default | policy.group("adm")):
    """The log files of a directory. See :class:`logs.Logs` for what the methods do.

    The methods touch the file system, which may be slow, so they are plain functions, which seqrpc runs in threads.
    ``follow`` streams, so it is an async generator: it runs on the event loop, and uses threads itself.

    Args:
        directory: the directory, borrowed.
    """

    def __init__(self, directory: seqrpc.OwnedFd) -> None:
        """Serve what is in ``directory``."""
        self._directory = directory

    @seqrpc.method
    def list_logs(self, after: str = "") -> list[LogFile]:
        """Return a page of the list, without names that cannot be printed, such as those that are not UTF-8."""
        page: list[LogFile] = []
        room = PAGE_BYTES
        for log in sorted(self._files(), key=lambda log: log.name):
            if log.name > after:
                room -= len(log.name.encode()) + 64
                if room < 0:
                    break
                page.append(log)
        return page

    def _files(self) -> Iterator[LogFile]:
        # fwalk goes from descriptor to descriptor and follows no symbolic links.
        for path, directories, names, fd in os.fwalk(".", dir_fd=self._directory.fileno()):
            if path.count("/") >= MAX_DEPTH:
                directories.clear()
            for name in names:
                with contextlib.suppress(OSError):  # it went while we looked, or we may not look
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    relative = f"{path}/{name}".removeprefix("./")
                    if stat.S_ISREG(status.st_mode) and relative.isprintable():
                        modified = datetime.fromtimestamp(min(max(status.st_mtime, 0), LAST_SECOND), UTC)
                        yield LogFile(relative, status.st_size, modified)

    @seqrpc.method
    def open_log(self, name: str) -> seqrpc.OwnedFd:
        """Return a log file, open for reading."""
        return self._open_log(name)  # given away: seqrpc closes our copy once it is sent

    @seqrpc.method
    async def follow(self, name: str, start: int | None = None) -> AsyncIterator[str]:
        """Stream what is appended. Reads nothing while the reader has no room; closes all when the reader goes."""
        with contextlib.closing(Tail(functools.partial(self._open_log, name), start)) as tail:
            while True:
                lines = await in_thread(tail.read)
                for line in lines:
                    yield line
                if not lines:
                    await asyncio.sleep(POLL_SECONDS)

    def _open_log(self, name: str) -> seqrpc.OwnedFd:
        """Open a log file; for other files that is refused."""
        fd = self._open(name)
        if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
            fd.close()
            raise NoSuchLog(f"not a log file: {name!r}")
        return fd

    def _open(self, name: str) -> seqrpc.OwnedFd:
        """Open ``name`` one component at a time, so that nobody can slip in a link between a check and its use."""
        *directories, file = name.split("/")
        if not {"", ".", ".."}.isdisjoint([*directories, file]):
            raise NoSuchLog(f"not the name of a log: {name!r}")
        try:
            with contextlib.ExitStack() as opened:
                at = self._directory
                for directory in directories:
                    at = seqrpc.OwnedFd(os.open(directory, OPEN_DIRECTORY, dir_fd=at.fileno()))
                    opened.enter_context(at)
                return seqrpc.OwnedFd(os.open(file, OPEN_FILE, dir_fd=at.fileno()))
        except PermissionError as exc:
            raise NotReadable(f"the daemon may not read {name!r}") from exc
        except (FileNotFoundError, ValueError) as exc:  # ValueError: no file can have this name, as with a NUL in it
            raise NoSuchLog(f"there is no log {name!r}") from exc
        except OSError as exc:
            if exc.errno not in NOT_LOGS:
                raise  # out of descriptors, a failing disk: no fault of the name
            raise NoSuchLog(f"not a log file: {name!r}: {exc.strerror}") from exc


def serve(address: str, directory: str, mode: int | None, group: str | None, idle_timeout: float | None = None) -> None:
    """Be the daemon, until SIGTERM or SIGINT, or until nobody needs it for so many seconds."""
    with seqrpc.OwnedFd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        service = LogDaemon(root)
        seqrpc.run(service, address, drain_timeout=STOP_SECONDS, mode=mode, group=group, idle_timeout=idle_timeout)


# The demonstration: daemon and client as two processes, and two more users if we are root.

SOMEBODY = 54_321  # a user id without rights on this machine; the user need not exist


def demo(directory: str) -> None:
    """Start a daemon and call it, as ourselves and, if we are root, as others."""
    print(f"seqrpc {seqrpc.__version__}, its {seqrpc.__twin__} twin")
    with tempfile.TemporaryDirectory(prefix="logdaemon-") as sockets:
        as_root = os.geteuid() == 0
        os.chmod(sockets, 0o711 if as_root else 0o700)  # others may connect, too: the policy refuses them
        address = f"{sockets}/logs.sock"
        command = [sys.executable, __file__, "--address", address, "--directory", directory]
        with subprocess.Popen([*command, "--mode", "666" if as_root else "600"]) as daemon:  # noqa: S603 - this program
            try:
                asyncio.run(wait_for(address, daemon))
                asyncio.run(look_around(address))
                if as_root:
                    visit_as_others(address)
            finally:
                daemon.terminate()
    if daemon.returncode:
        sys.exit(f"the daemon ended with status {daemon.returncode}")


async def wait_for(address: str, daemon: subprocess.Popen[bytes]) -> None:
    """Wait until the daemon listens."""
    while True:
        try:
            async with seqrpc.connect(address):
                return
        except seqrpc.ConnectError:
            if daemon.poll() is not None:
                sys.exit("the daemon did not start")
        await asyncio.sleep(0.01)


async def look_around(address: str) -> None:
    """Print the list, and the end of the youngest log that is not empty."""
    async with seqrpc.connect(address, server=policy.same_user) as connection:
        logs = connection.proxy(Logs)
        found = await every_log(logs)
        print(f"process {os.getpid()}, user {os.geteuid()}, is served; {connection.peer!r} listens:")
        for log in found:
            print(f"  {log.modified:%Y-%m-%d %H:%M} {log.size:12,} {log.name}")
        for log in sorted(found, key=lambda log: log.modified, reverse=True):
            if log.size and log.name.endswith(".log"):
                with contextlib.suppress(NotReadable, NoSuchLog), await logs.open_log(log.name) as fd:
                    print(f"the end of {log.name}, read from the descriptor that the daemon opened:")
                    for line in last_lines(fd.fileno(), 3).decode(errors="backslashreplace").splitlines():
                        print(f"  {line}")
                    return
        print("none of them is a text that this user may read")


def visit_as_others(address: str) -> None:
    """Call as a member of adm and as a user without rights, each from a process of its own."""
    with contextlib.suppress(KeyError):  # not every system has the group
        visit_as(address, [grp.getgrnam("adm").gr_gid], "a member of the group adm", admitted=True)
    visit_as(address, [], "another user", admitted=False)


def visit_as(address: str, groups: list[int], who: str, *, admitted: bool) -> None:
    """Call from a child process that has become another user; exit if the daemon does not treat it as it should."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
            os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
            served = asyncio.run(visit(address, who))
            sys.stdout.flush()
        except PermissionError as exc:
            sys.stderr.write(f"this process may not become {who}: {exc}\n")
            os._exit(0)
        except BaseException as exc:
            sys.excepthook(type(exc), exc, exc.__traceback__)
            os._exit(1)
        os._exit(0 if served is admitted else 1)
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"{who} was not treated as the policy says")


async def visit(address: str, who: str) -> bool:
    """Ask for the list; return whether the daemon's policy admits us."""
    async with seqrpc.connect(address, server=policy.root) as connection:
        try:
            page = await connection.proxy(Logs).list_logs()
        except seqrpc.PermissionDenied as exc:
            print(f"{who}, uid {os.geteuid()}, is refused: {exc}")
            return False
        print(f"{who}, uid {os.geteuid()}, is served: {len(page)} logs")
        return True


def octal(text: str) -> int:
    """Return the number that ``text`` writes in octal."""
    return int(text, 8)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="show a daemon and its callers, and end")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where to listen (default: %(default)s)")
    parser.add_argument("--directory", default="/var/log", help="what to serve (default: %(default)s)")
    parser.add_argument("--mode", type=octal, help="permissions of the socket file (default: 600)")
    parser.add_argument("--group", help="group of the socket file")
    parser.add_argument("--idle-timeout", type=float, help="seconds without a caller after which to end (systemd:)")
    args = parser.parse_args()
    if args.demo:
        demo(args.directory)
        return
    try:
        serve(args.address, args.directory, args.mode, args.group, args.idle_timeout)
    except (seqrpc.SeqrpcError, OSError) as exc:
        sys.exit(f"logdaemon: {exc}")


if __name__ == "__main__":
    main()
