"""Whom to talk to: the addresses of the command line, and connections to them.

==============================  ========================================================================
``/run/x.sock``, ``@name``, ..  what ``seqrpc.connect`` takes
``exec:PROGRAM ARGS``           a program that is started, with a socket at descriptor 3
``ssh://[user@]host/run/x``     what listens at that path of another machine, which has seqrpc, too
==============================  ========================================================================
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from seqrpc.blocking.client import connect, connect_to_process
from seqrpc.blocking.connection import Connection
from seqrpc.blocking.timeouts import timeout
from seqrpc.calls.workers import crashed, python_argv
from seqrpc.cli.alarms import Late, alarm, silence
from seqrpc.cli.endings import ABSENT, FAILED, LATE, REFUSED, Ending, misused
from seqrpc.cli.identity import environment, is_another
from seqrpc.errors import ConnectionLost, DeadlineExceeded, RpcError
from seqrpc.kernel.addresses import Address, PathAddress, parse_address
from seqrpc.kernel.privileges import Restraints
from seqrpc.kernel.processes import Process, start
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import DEFAULT_LIMITS, Limits

_STDERR: Final = 2

GRACE: Final = 2.0
"""Seconds in which a program that was started for us is to end when its connection does."""

_SSH: Final = re.compile(
    r"ssh://(?P<host>(?:[^/@:\s]+@)?(?:\[[0-9A-Fa-f:.%]+\]|[^/@:\s]+))(?::(?P<port>\d{1,5}))?(?P<path>/.*)", re.DOTALL
)

_SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*://|(?:ssh|tcp|udp|unix|vsock|abstract|https?):")
"""How addresses begin elsewhere, and paths hardly ever."""


class Program(NamedTuple):
    """A program that serves at descriptor 3."""

    argv: tuple[str, ...]


class Elsewhere(NamedTuple):
    """A socket of another machine."""

    host: str
    """With the user, if one is named; as ``ssh`` takes it."""

    port: int | None
    path: str
    """A path, or the name of an abstract socket."""

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{self.host}{port}{'/' if self.path.startswith('@') else ''}{self.path}"


Place = Address | Program | Elsewhere


def place_of(text: str) -> Place:
    """Return where an address leads.

    Raises:
        Ending: it cannot be read.
        AddressError: likewise.
    """
    if text.startswith("exec:"):
        return _program(text)
    if text.startswith("ssh://"):
        return _elsewhere(text)
    if _SCHEME.match(text) and not os.path.lexists(text):
        known = "a path, @NAME, fd:N, systemd:NAME, 'exec:PROGRAM ARGS', ssh://[USER@]HOST/PATH"
        raise misused(f"{text} is no address: {known} is one (a path that begins so is written ./{text})")
    return parse_address(text)


def _program(text: str) -> Program:
    try:
        argv = shlex.split(text.removeprefix("exec:"))
    except ValueError as exc:
        raise misused(f"{text}: {exc}") from None
    if not argv:
        raise misused("exec: is followed by a program and its arguments, as in 'exec:/usr/bin/thing -v'")
    return Program(tuple(argv))


def _elsewhere(text: str) -> Elsewhere:
    found = _SSH.fullmatch(text)
    if found is None or text.startswith("ssh://-") or "\0" in text:
        raise misused(f"{text}: another machine's socket is written as ssh://[user@]host[:port]/path")
    host, port, path = found["host"], found["port"], found["path"]
    path = path[1:] if path.startswith("/@") else path
    return Elsewhere(host, None if port is None else int(port), path)


@contextlib.contextmanager
def connected(place: Place, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Connection]:
    """Connect to a place; at the end of the block the connection is closed, and what was started for it has ended.

    Raises:
        ConnectError, AddressError, ConnectionLost, DeadlineExceeded: there is nobody.
        OSError: the program cannot be started.
    """
    if isinstance(place, Program):
        with _started(place, limits) as connection:
            yield connection
    elif isinstance(place, Elsewhere):
        from seqrpc.cli.ssh import through_ssh  # noqa: PLC0415 - seldom needed

        with through_ssh(place.host, place.port, place.path) as sock, connect(sock=sock, limits=limits) as connection:
            yield connection
    else:
        refuse_directory(place)
        with connect(place, limits=limits) as connection:
            yield connection


def refuse_directory(place: Place) -> None:
    """Check that an address is no directory.

    Raises:
        Ending: it is one.
    """
    if isinstance(place, PathAddress) and os.path.isdir(place.path):
        raise misused(f"{place} is a directory: 'seqrpc list {place}' tells which sockets are in it")


@contextlib.contextmanager
def begun(program: Program) -> Iterator[tuple[socket.socket, Process]]:
    """Start a program; yield our end of its socket, which is the caller's, and it. After the block it has ended.

    Raises:
        Ending: there is no such program.
        OSError: it cannot be started.
    """
    check_program(program.argv[0], "exec:")
    ours, theirs = socket_pair()
    try:
        with theirs:
            argv, given = _launching(program.argv), environment()
            process = start(argv, theirs.fileno(), name=program.argv[0], stdout=_STDERR, environment=given)
    except BaseException:
        ours.close()
        raise
    try:
        yield ours, process
    finally:
        silence()  # this has its own bound, and must not be left before
        end(process)


@contextlib.contextmanager
def _started(program: Program, limits: Limits) -> Iterator[Connection]:
    with begun(program) as (sock, process), connect_to_process(sock, process.pid, limits=limits) as connection:
        _begin(connection, process)
        yield connection


def check_program(name: str, what: str) -> None:
    """Look for a program, for what cannot start tells so less plainly.

    Args:
        name: a path, or what is looked for in ``PATH``.
        what: by what it is to be started, for the error.

    Raises:
        Ending: there is none.
    """
    if shutil.which(name) is not None:
        return
    if os.sep not in name:
        raise Ending(ABSENT, f"{what} there is no program {name!r} in PATH")
    if os.path.exists(name):
        raise Ending(REFUSED, f"{what} {name!r} is no program that this user may run")
    raise Ending(ABSENT, f"{what} there is no program {name!r}")


def _launching(argv: tuple[str, ...]) -> list[str]:
    import msgspec  # noqa: PLC0415 - seldom needed here

    *python, path = python_argv("launcher")
    # Somebody else's program could read from this terminal, and type into it: it gets a session of its own.
    restraints = Restraints(uid=os.getuid()) if is_another() else Restraints()
    return [*python, msgspec.json.encode(restraints).decode(), *argv, path]


def _begin(connection: Connection, process: Process) -> None:
    """Wait until it answers.

    Raises:
        Ending: it has ended.
    """
    try:
        connection.call("rpc.ping")
    except ConnectionLost:
        raise ending_of(process) from None
    except DeadlineExceeded:
        raise
    except RpcError:
        return  # it answers


def ending_of(process: Process) -> Ending:
    """Return what is told of a program that hung up: wait until it has ended."""
    end(process)
    error = crashed(process.name, process.pid, process.returncode)
    wanted = "what exec: starts serves at descriptor 3, as 'seqrpc serve MODULE:CLASS fd:3' does"
    return Ending(FAILED, f"{type(error).__name__}: {error}: {wanted}")


def end(process: Process) -> None:
    """Wait until a process has ended whose connection was closed; kill it if it lives on."""
    until = time.monotonic() + GRACE
    while not process.poll():
        left = until - time.monotonic()
        if left <= 0:
            process.kill()
        poller = select.poll()
        poller.register(process.fileno(), select.POLLIN)
        poller.poll(1_000 * max(left, 0) if left > 0 else None)


@contextlib.contextmanager
def bounded(seconds: float | None) -> Iterator[None]:
    """Bound all that a command does in time: its calls, and what waits elsewhere, as for a pipe that came.

    Raises:
        Ending: the time is up.
    """
    began = time.monotonic()
    try:
        with timeout(seconds), alarm(seconds):
            yield
    except (DeadlineExceeded, Late) as exc:
        if seconds is None or time.monotonic() - began < seconds:
            raise  # it is the other side's
        code = DeadlineExceeded.code
        raise Ending(LATE, f"{code}: not done within {seconds:g} s, which is what --timeout allows") from exc
