"""Signal handlers that raise at any moment of calls with descriptors, of calls without an answer, and of the end."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgpack
import pytest
from support.daemons import descriptor
from support.lines import CANCEL, NOTIFY, REQUEST, RESPONSE, End, Handler, Thread, at_call, interrupting, line_end

import seqrpc
from seqrpc.blocking.family import Family
from seqrpc.blocking.interceptors import NO_INTERCEPTION
from seqrpc.blocking.living import LivingValues
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS

PACKAGE = os.path.dirname(seqrpc.__file__)


def is_within(frame: FrameType | None, module: str) -> bool:
    """Return whether a frame was called by a module, at however many removes."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(f"/{module}.py"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def interrupted_at(count: int, *, outside: str = "") -> Iterator[list[str]]:
    """Let SIGINT come at the n-th moment in the block at which Python looks for signals, but not within a module."""
    counter = itertools.count(1)
    came: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if came or event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if outside and is_within(frame, outside):
            return
        if next(counter) == count:
            came.append(f"{event} {frame.f_code.co_name}:{frame.f_lineno} {argument!r:.60}")
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(watch)
    try:
        yield came
    finally:
        sys.setprofile(None)


def outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except seqrpc.ConnectionLost:
        return "lost"
    except KeyboardInterrupt:
        return "interrupted"


def lend_back(end: End, number: int) -> None:
    """Answer each request with that descriptor, and close what came with it."""
    while True:
        data, numbers, _flags, _address = socket.recv_fds(end.raw, 65_536, 10)
        for came in numbers:
            os.close(came)
        if not data:
            return
        message = msgpack.unpackb(data)
        if message[0] == REQUEST:
            try:
                end.send(RESPONSE, message[1], None, descriptor(0), fds=[number])
            except (BrokenPipeError, ConnectionResetError):
                return


def open_end(pipe: tuple[int, int]) -> bool:
    """Return whether anybody but us has the writing end of a pipe; ours is closed."""
    os.close(pipe[1])
    os.set_blocking(pipe[0], False)
    try:
        return os.read(pipe[0], 1) != b""
    except BlockingIOError:
        return True
    finally:
        os.close(pipe[0])


def test_no_descriptor_is_left_wherever_a_signal_comes() -> None:
    """Neither one that was sent, nor one that came: at their pipes nobody is left."""
    for count in itertools.count(1):
        sent, back = os.pipe(), os.pipe()
        with line_end() as end:
            peer = Thread(functools.partial(lend_back, end, back[1]))
            with OwnedFd.dup(sent[1]) as fd, interrupted_at(count) as came:
                first = outcome(functools.partial(end.caller.request, "A.b", [fd]))
            if isinstance(first, OwnedFd):
                first.close()
            del first
            again = outcome(functools.partial(end.caller.request, "A.b", []))
            if isinstance(again, OwnedFd):
                again.close()
            else:
                assert again == "lost", came
            end.line.close()
            peer.result()
        assert CLOSER.wait_idle(30)
        assert not open_end(sent), f"what was sent is open after a signal at {came}"
        assert not open_end(back), f"what came is open after a signal at {came}"
        if not came:
            return


def test_a_call_without_an_answer_may_be_interrupted_anywhere() -> None:
    for count in itertools.count(1):
        with line_end() as end:
            with interrupted_at(count) as came:
                outcome(functools.partial(end.caller.send_notify, "A.b", [1]))
            assert not end.line.entered, came
            assert outcome(functools.partial(end.caller.send_notify, "A.b", [2])) in (None, "lost"), came
            messages = end.drain() if not end.line.is_lost else []
            assert messages in ([], [[NOTIFY, "A.b", [2]]], [[NOTIFY, "A.b", [1]], [NOTIFY, "A.b", [2]]]), came
        if not came:
            return


@pytest.mark.parametrize("full", [False, True])
def test_a_close_may_be_interrupted_anywhere_and_the_connection_is_closed(full: bool) -> None:
    for count in itertools.count(1):
        with line_end(limits=seqrpc.Limits(close_timeout=0.001)) as end:
            if full:
                end.fill()
                with end.line.lock:
                    end.line.send(b"\x93\x02\xa3A.b\x90")
            with interrupted_at(count) as came:
                said = outcome(end.line.close)
            assert said in (None, "interrupted"), came
            if not end.line.is_lost:  # it had not begun
                assert not end.line.closing, came
                end.line.close()
            assert end.line.sock.fileno() == -1, came
            assert end.handler.lost == 1, came
        if not came:
            return


def test_a_stream_of_a_call_ends_with_it_wherever_a_signal_comes() -> None:
    for count in itertools.count(1):
        family = Family()
        living = LivingValues(DEFAULT_LIMITS, family, NO_INTERCEPTION)
        with line_end(family=family, living=living) as end:

            def far(end: End = end) -> int:
                """Read the stream to its end, and answer."""
                items = 0
                while True:
                    data, numbers, _flags, _address = socket.recv_fds(end.raw, 65_536, 10)
                    if not data:
                        return items
                    message = msgpack.unpackb(data)
                    for number in numbers:
                        with socket.socket(fileno=number) as reader:
                            reader.settimeout(5)
                            while reader.recv(65_536):
                                items += 1
                    if message[0] == REQUEST:
                        try:
                            end.send(RESPONSE, message[1], None, "read")
                        except (BrokenPipeError, ConnectionResetError):
                            return items

            peer = Thread(far)
            with interrupted_at(count, outside="producers") as came:
                first = outcome(functools.partial(end.caller.request, "A.b", [iter(range(3))]))
            assert first in ("read", "interrupted"), came
            assert outcome(functools.partial(end.caller.request, "A.b", [])) in ("read", "lost"), came
            end.line.close()
            peer.result()
            assert family.alive == 0, came
            assert family.pumps == {}, came
        if not came:
            return


def test_a_second_signal_before_a_call_is_given_up_does_not_leave_it() -> None:
    def act(_line: Any, _request: Any) -> None:
        raise KeyboardInterrupt("first")

    with line_end(Handler(act)) as end:
        end.send(REQUEST, 1, "A.b", [])
        with pytest.raises(KeyboardInterrupt) as caught, interrupting(at_call("_give_up")):
            end.caller.request("A.b", [])
        assert str(caught.value) != "first"
        kind, call_id, *_ = end.receive()
        assert kind == REQUEST
        assert end.receive()[:2] == [RESPONSE, 1]
        assert end.receive() == [CANCEL, call_id]
        assert end.line.session.calls == {}
        call = Thread(lambda: end.caller.request("A.b", []))
        end.answer(7)
        assert call.result() == 7
