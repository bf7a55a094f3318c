"""Hostile callers who are processes in odd states: stopped, forked with a connection, killed at any moment."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import socket
import time
from collections.abc import Callable

from benchmarks import raw
from benchmarks.callers import Attack, request
from benchmarks.raw import STREAM

_PR_SET_PDEATHSIG = 1


def in_process(work: Callable[[], None]) -> int:
    """Do ``work`` in a forked process that is killed when this one ends; return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                work()
        finally:
            os._exit(0)
    return pid


def _connected(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(5.0)
    sock.connect(address)
    return sock


class Stopped(Attack):
    """Processes that stop themselves (SIGSTOP): with a stream that they read, with one that they write, amid calls."""

    def __init__(self, address: str, most: int = 12) -> None:
        super().__init__(address)
        self._left = most

    def step(self) -> None:
        if self._left:
            self._left -= 1
            in_process(self._hold)
            self.answers["sent"] += 1

    def _hold(self) -> None:
        sock = _connected(self.address)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request(1, "Target.count", b"\x90").send(sock)
        _data, fds, _flags, _address = socket.recv_fds(sock, 65_536, 4)
        stream = socket.socket(fileno=fds[0])
        stream.recv(65_536)
        request(2, "Target.total", b"\x91" + raw.reference(STREAM, 0), [theirs.fileno()]).send(sock)
        theirs.close()
        ours.send(raw.pack([0, 1]))
        for call_id in range(3, 40):
            request(call_id, "Target.idle", b"\x90").send(sock)
        os.kill(os.getpid(), signal.SIGSTOP)


class Forks(Attack):
    """Forks with the connection open: three processes send the same ids over it, and take each other's answers."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._pids: list[int] = []

    def step(self) -> None:
        for pid in list(self._pids):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._pids.remove(pid)
        if self._pids:
            return
        sock = _connected(self.address)
        sock.setblocking(False)
        with sock:
            self._pids = [in_process(lambda: self._use(sock)) for _ in range(3)]
        self.answers["sent"] += 3

    @staticmethod
    def _use(sock: socket.socket) -> None:
        until = time.monotonic() + 0.05
        methods = itertools.cycle((("Target.idle", b"\x90"), ("Target.park", b"\x91\x00")))
        for call_id, (method, body) in zip(itertools.count(), methods, strict=False):
            if time.monotonic() > until:
                return
            try:
                request(call_id, method, body).send(sock)
                sock.recv(65_536)
            except BlockingIOError:
                pass
            except OSError:
                return


class Killed(Attack):
    """Processes that call, send and take streams and long messages, and are killed after any number of microseconds."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._chance = random.Random(9)

    def step(self) -> None:
        pid = in_process(self._live)
        time.sleep(self._chance.random() * 0.004)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.answers["sent"] += 1

    def _live(self) -> None:
        sock = _connected(self.address)
        sock.setblocking(False)
        data = request(1, "Target.park", b"\x91" + raw.padding(100_000)).data
        for call_id in itertools.count(10):
            file = raw.sealed(data)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                request(call_id, "Target.count", b"\x90").send(sock)
                raw.Packet(raw.pack([4, len(data), 1]), (file,)).send(sock)
                request(call_id, "Target.total", b"\x91" + raw.reference(STREAM, 0), [theirs.fileno()]).send(sock)
                ours.send(raw.pack([0, 1]))
                socket.recv_fds(sock, 65_536, 4)
            except BlockingIOError:
                pass
            finally:
                os.close(file)
                theirs.close()
