"""Sockets of other machines, by way of ``ssh`` and the program ``seqrpc`` there."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Final

from seqrpc.cli.alarms import silence
from seqrpc.cli.endings import FAILED, Ending
from seqrpc.cli.frames import BrokenTunnel
from seqrpc.cli.identity import environment, is_another
from seqrpc.cli.program import PROGRAM
from seqrpc.cli.tunnel import Tunnel
from seqrpc.errors import ConnectionLost, DeadlineExceeded, Unavailable
from seqrpc.interface.scope import scope
from seqrpc.kernel.sockets import socket_pair

REMOTE: Final = "SEQRPC_REMOTE"
"""The environment variable with the command that is ``seqrpc`` on the other machine, as its shell takes it."""

_NO_PROGRAM: Final = (126, 127)
"""How a shell ends that cannot run one."""

_PATIENCE: Final = 2.0
"""Seconds in which ``ssh`` is to end when it has nothing more to carry."""


@contextlib.contextmanager
def through_ssh(host: str, port: int | None, path: str) -> Iterator[socket.socket]:
    """Yield a socket that leads to a path of another machine; its user owns it.

    Raises:
        Ending: the other side tells why it cannot connect, or there is no such program.
        OSError: ``ssh`` cannot be started.
    """
    port_option = [] if port is None else ["-p", str(port)]
    program = os.environ.get(REMOTE) or PROGRAM
    argv = ["ssh", "-T", *port_option, "--", host, f"{program} relay {shlex.quote(path)}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # Of somebody else it does what that user's configuration says, which may start programs.
    apart = {"env": environment(), "start_new_session": is_another()}
    with subprocess.Popen(argv, **pipes, **apart) as ssh:  # type: ignore[call-overload] # noqa: S603 - of PATH
        assert ssh.stdin is not None
        assert ssh.stdout is not None
        tunnel = Tunnel(ssh.stdout.fileno(), ssh.stdin.fileno())
        carrying: threading.Thread | None = None
        try:
            _wait_for(ssh.stdout.fileno())
            try:
                tunnel.connect()
            except BrokenTunnel as exc:
                ssh.stdin.close()
                raise Ending(FAILED, f"ssh {host}: {exc}{_ending_of(ssh, program)}") from None
            except Ending as exc:
                raise Ending(exc.status, f"ssh {host}: {exc}") from None
            ours, theirs = socket_pair()
            carrying = threading.Thread(target=tunnel.carry, args=(theirs,), kwargs={"is_far": False}, daemon=True)
            carrying.start()
            try:
                yield ours
            except (ConnectionLost, Unavailable):
                if tunnel.broken is None:
                    raise
                raise Ending(FAILED, f"ssh {host}: {tunnel.broken}") from None
        finally:
            silence()  # this has its own bound, and must not be left before
            _hang_up(ssh, tunnel)
            if carrying is not None:
                carrying.join(_PATIENCE)


def _ending_of(ssh: subprocess.Popen[bytes], program: str) -> str:
    """Return how ``ssh`` ends, for the end of a sentence; nothing if it goes on."""
    try:
        status = ssh.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        return ""
    told = f"; its status is {status}"
    if status not in _NO_PROGRAM:
        return told
    return f"{told}: {program!r} is no program in the PATH that ssh has there; {REMOTE}=/path/to/seqrpc names it"


def _wait_for(fd: int) -> None:
    """Wait until the far side begins to answer.

    Raises:
        DeadlineExceeded: the time given by ``seqrpc.timeout`` is up.
    """
    deadline = scope.get().deadline_ns
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    left = None if deadline is None else max(0, deadline - time.monotonic_ns()) / 1e6
    if not poller.poll(left):
        raise DeadlineExceeded("the deadline passed before the connection was made")


def _hang_up(ssh: subprocess.Popen[bytes], tunnel: Tunnel) -> None:
    """End ``ssh``: the far side ends when its input does."""
    assert ssh.stdin is not None
    if not tunnel.hang_up(_PATIENCE):
        ssh.terminate()  # somebody waits for it to read
        tunnel.hang_up(_PATIENCE)
    with contextlib.suppress(OSError):
        ssh.stdin.close()
    try:
        ssh.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        ssh.terminate()
