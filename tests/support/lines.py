"""Lines without an event loop whose other end is a raw socket, threads that wait on them, and signals at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgpack

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.family import Family
from seqrpc.blocking.line import Line
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.messages import Request
from seqrpc.protocol.values import Living
from support.admission import Admitting
from support.waiting import PATIENCE

REQUEST, RESPONSE, NOTIFY, CANCEL, CLOSING = 0, 1, 2, 3, 5


class Handler:
    """Notes what it is asked, and does with it what it is told to."""

    serves = False

    def __init__(self, act: Callable[[Line, Request], object] | None = None, **admission: Any) -> None:
        self.admission = Admitting(**admission)
        self.asked: list[tuple[int | None, str, list[Any]]] = []
        self.refused: list[str] = []
        self.lost = 0
        self._act = act
        self._line: Line

    def line_made(self, line: Line) -> None:
        self._line = line

    def serve(self, request: Request, caller: Credentials | None) -> None:
        answer = "with descriptors" if request.fds else request.params
        close_all(request.fds)
        assert isinstance(request.params, list)
        self.asked.append((request.call_id, request.method, request.params))
        if self._act is not None:
            self._act(self._line, request)
        elif request.call_id is not None:
            with self._line.lock, Uninterrupted():  # as Answers does
                self._line.answer(*self._line.session.send_result(request.call_id, answer))

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        self.refused.append(refused.code)

    def line_lost(self) -> None:
        self.lost += 1


class End:
    """A line, and the raw socket at its other end."""

    def __init__(
        self,
        handler: Handler | None = None,
        limits: Limits = DEFAULT_LIMITS,
        family: Family | None = None,
        living: Living | None = None,
        *,
        by_packet: bool | None = False,
    ) -> None:
        ours, self.raw = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.raw.settimeout(PATIENCE)
        self.handler = Handler() if handler is None else handler
        self.family = Family() if family is None else family
        self.line = Line(ours, self.handler, limits, self.family, living, by_packet=by_packet)
        self.caller = Caller(self.line)

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message from the other side."""
        socket.send_fds(self.raw, [msgpack.packb(message)], fds)

    def receive(self) -> Any:
        """Return the next message that this side has sent, its descriptors closed; None at the end."""
        data, numbers, _flags, _address = socket.recv_fds(self.raw, 65_536, 253)
        for number in numbers:
            os.close(number)
        return msgpack.unpackb(data, strict_map_key=False) if data else None

    def answer(self, result: Any = None) -> Any:
        """Answer the next request; return its method."""
        kind, call_id, method, *_ = self.receive()
        assert kind == REQUEST
        self.send(RESPONSE, call_id, None, result)
        return method

    def rest(self) -> list[Any]:
        """Return all that this side has sent, up to the end."""
        messages = []
        while (message := self.receive()) is not None:
            messages.append(message)
        return messages

    def fill(self) -> None:
        """Leave no room for what this side sends."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.line.sock.send(msgpack.packb([NOTIFY, "fill", []]), socket.MSG_DONTWAIT)

    def queue(self, number: int = 1, **options: Any) -> None:
        """Let so many packets of this side wait for room."""
        self.fill()
        with self.line.lock:
            for _ in range(number):
                self.line.send(msgpack.packb([NOTIFY, "A.b", []]), **options)
        assert self.line.unsent_packets == number

    def drain(self) -> list[Any]:
        """Return what is there, but for what filled the socket."""
        messages = []
        self.raw.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.receive())
        self.raw.settimeout(PATIENCE)
        return [message for message in messages if message != [NOTIFY, "fill", []]]


@contextmanager
def line_end(*args: Any, **options: Any) -> Iterator[End]:
    """Yield a line and what is at its other end; both are closed."""
    end = End(*args, **options)
    try:
        yield end
    finally:
        end.raw.close()
        end.line.close_family()


class Thread(threading.Thread):
    """Runs a function; what comes of it is had by :meth:`result`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as exc:
            self._error = exc

    def result(self) -> Any:
        """Return what the function returned, or raise what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result


def comes_true(condition: Callable[[], object]) -> None:
    """Wait until something that other threads do has happened."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        os.sched_yield()


def sleeps(thread: threading.Thread) -> bool:
    """Return whether a thread of Python's waits in the kernel."""
    with open(f"/proc/self/task/{thread.native_id}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@contextmanager
def interrupting(
    where: Callable[[FrameType, str, Any], object], act: Callable[[], object] | None = None
) -> Iterator[list[str]]:
    """Let a signal come, once, in this thread, when a function is called or has returned for which ``where`` says so.

    Args:
        where: is told what a profiler is told.
        act: what comes; by default SIGINT.

    Yields a list: where it came.
    """
    came: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if not came and where(frame, event, argument):
            came.append(f"{event} {frame.f_code.co_name}:{frame.f_lineno}")
            if act is None:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                act()

    sys.setprofile(watch)
    try:
        yield came
    finally:
        sys.setprofile(None)


def at_call(name: str, event: str = "call") -> Callable[[FrameType, str, Any], bool]:
    """Return what :func:`interrupting` asks, for the beginning (or the end) of a function of this package."""

    def where(frame: FrameType, what: str, _argument: Any) -> bool:
        return what == event and frame.f_code.co_name == name and "seqrpc" in frame.f_code.co_filename

    return where
