from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import pytest
from support.coding import Life
from support.departures import Told

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
