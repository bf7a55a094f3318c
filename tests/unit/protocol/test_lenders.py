from __future__ import annotations

import os

import pytest
from support.departures import Told
from support.descriptors import Lender, owned

from seqrpc.kernel.buffers import Buffer
from seqrpc.protocol.lenders import give_up_lenders, tell_sent, tell_unsent
from seqrpc.protocol.values import EXT_STREAM, BareValue


def test_those_that_are_told_are_departures_alone() -> None:
    with owned(1) as fds, Buffer.allocate(1) as buffer:
        departures = [Told(), Told()]
        tell_sent([fds[0], departures[0], buffer, Lender()])
        tell_unsent([fds[0], departures[1], buffer, Lender()])
        assert [departure.told for departure in departures] == [["sent"], ["unsent"]]
        assert not fds[0].closed


def test_what_cannot_be_kept_alive_after_its_message_left_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    failing, after = Told(OSError("no room in the loop")), Told()
    tell_sent([failing, after])
    assert failing.told == ["given up"]
    assert after.told == ["sent"]
    assert "cannot be kept alive" in caplog.text


def test_lenders_of_what_was_given_away_are_let_go() -> None:
    with owned(2) as (first, second), open(os.devnull) as file:
        departure = Told()
        give_up_lenders([first, departure, BareValue(EXT_STREAM, second), file])
        assert [first.closed, second.closed, file.closed] == [True, False, False]
        assert departure.told == ["given up"]
