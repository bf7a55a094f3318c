from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import pytest
from support.coding import Life
from support.departures import Told
from support.descriptors import Lender

from seqrpc.errors import LocalProtocolError
from seqrpc.protocol.encoder import Encoder


class Living(Life):
    """Makes the departure that it is given."""

    def __init__(self, departure: Told) -> None:
        self.departure = departure

    def departure_of(self, value: Any) -> Any:
        return self.departure


def test_a_departure_is_told_once_that_it_is_not_sent_though_a_signal_came_when_it_was_noted() -> None:
    told = Told()

    def interrupt(frame: FrameType, event: str, what: Any) -> None:
        if event == "c_return" and frame.f_code.co_name == "_lend" and what.__name__ == "append":
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            Encoder(living=Living(told)).encode((object(),))
    finally:
        sys.setprofile(None)
    assert told.told == ["unsent"]


def test_a_second_signal_after_an_interrupted_message_leaves_nothing_to_the_next_one() -> None:
    moment = interrupted = 0

    class Interrupting:
        def __getattr__(self, name: str) -> Any:
            sys.setprofile(interrupt_again)
            raise KeyboardInterrupt

    def interrupt_again(frame: FrameType, event: str, what: Any) -> None:
        nonlocal moment
        if event in ("call", "c_return") and frame.f_globals["__name__"].startswith("seqrpc."):
            moment -= 1
            if moment == 0:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGINT)

    for number in range(1, 40):
        encoder, moment = Encoder(), number
        try:
            encoder.encode((1, Lender(), Interrupting()))
        except KeyboardInterrupt as exc:
            interrupted += isinstance(exc.__context__, KeyboardInterrupt)
        finally:
            sys.setprofile(None)
        assert encoder.encode((1, 2)) == (b"\x92\x01\x02", []), number
        assert encoder.array_header(2) == b"\x92"
    assert interrupted > 1


def test_after_a_message_that_failed_arrays_begin_as_ever() -> None:
    encoder = Encoder()
    with pytest.raises(LocalProtocolError):
        encoder.encode((0, 1, "A.b", [object()]))
    assert encoder.array_header(3) == b"\x93"
