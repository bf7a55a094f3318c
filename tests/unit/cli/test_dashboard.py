"""One look at a server, drawn in windows of any size."""

from __future__ import annotations

import dataclasses
import math
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from seqrpc import blocking
from seqrpc.cli.dashboard import View, frame
from seqrpc.cli.rates import rates_of
from seqrpc.cli.readings import stats_in
from seqrpc.interface.stats import Stats

EVIL = "\x1b[2J\x9b\u202e\n\r\x00"


def view(stats: Stats, **more: Any) -> View:
    return View(
        **{
            "address": "/run/x.sock",
            "services": ("Desk", "Other"),
            "stats": stats,
            "rates": rates_of(None, stats),
            "sort": "calls",
            **more,
        }
    )


def lines(drawn: list[Text]) -> list[str]:
    return [line.plain for line in drawn]


def called(stats: Stats) -> list[str]:
    return [name for name, method in stats.methods.items() if method.calls]


@pytest.fixture
def looked(desk: Path) -> Stats:
    """Return how a desk is, with calls and refusals."""
    with blocking.connect(desk) as connection:
        for number in range(3):
            connection.call("Desk.add", number)
        for wrong in ("Desk.fail", "Desk.zzz", "Desk.secret"):
            with pytest.raises(Exception, match=r"Desk|there"):
                connection.call(wrong)
        return stats_in(connection.call("rpc.stats"))


def test_all_of_it_is_drawn(looked: Stats) -> None:
    text = "\n".join(lines(frame(view(looked, hint="q ends it"), 200)))
    assert f"/run/x.sock   Desk, Other   pid {os.getpid()}   up " in text
    assert "rates since the start   q ends it\n" in text
    assert "calls 1 in flight, " in text
    assert "connections 1 open, 1 made, 0 refused   unsent 0 B   streams 0   objects 0" in text
    me = pwd.getpwuid(os.getuid()).pw_name
    row = next(line for line in text.splitlines() if line.split()[:2] == [str(os.getpid()), me])
    assert row.endswith(" rpc.stats")
    methods = {line.split()[-1]: line.split() for line in text.partition("CALLS/S")[2].splitlines() if line}
    assert methods["Desk.add"][-4:] == ["3", "0", "0", "Desk.add"]
    assert methods["Desk.fail"][-4:] == ["1", "1", "0", "Desk.fail"]
    assert methods["Desk.secret"][-4:] == ["1", "1", "1", "Desk.secret"]
    assert "     1       1        1  (no such method)" in text
    assert f"\n{me}  connections 1, calls 1" in text


def big(looked: Stats) -> Stats:
    one, call = looked.connections[0], looked.connections[0].calls[0]
    evil = dataclasses.replace(one, calls=[dataclasses.replace(call, method=EVIL * 30)], uid=2**40, unsent_bytes=2**62)
    bare = dataclasses.replace(one, pid=None, uid=None, calls=[], age=1e15)
    return dataclasses.replace(
        looked,
        version=EVIL,
        connections=[evil, bare, one] * 300,
        is_stopping=True,
        connections_refused={"full": 3},
        methods={**{f"Big{number}.{EVIL}": looked.methods["Desk.add"] for number in range(3_000)}, **looked.methods},
        accounts={
            **{str(number): {"connections": 1, f"request_{EVIL}bytes": 2**60} for number in range(1_000)},
            EVIL: {EVIL: 1},
        },
    )


@pytest.mark.parametrize("is_big", [False, True])
def test_it_fits_in_windows_of_every_size(looked: Stats, is_big: bool) -> None:
    shown = view(big(looked) if is_big else looked, trouble=f"gone {EVIL}", services=(EVIL, "\u4e00" * 300), hint=EVIL)
    for width in (1, 2, 5, 20, 33, 80, 132, 500):
        for height in (1, 2, 3, 4, 5, 6, 9, 10, 24, 60):
            drawn = lines(frame(shown, width, height))
            assert 1 <= len(drawn) <= height
            assert all(cell_len(line) <= width for line in drawn)
            assert all(line.isprintable() for line in drawn)


def test_a_tiny_window_has_the_most_important(looked: Stats) -> None:
    drawn = lines(frame(view(looked), 20, 5))
    assert drawn[0].startswith("calls 1 in flight")
    heads = [line for line in drawn if "CALL" in line or "METHOD" in line]
    assert heads
    assert len(drawn) == 5


def test_what_there_is_no_room_for_is_counted(looked: Stats) -> None:
    drawn = lines(frame(view(big(looked)), 100, 30))
    assert len(drawn) == 30
    assert sum("METHOD (" in line and f" of {len(called(looked)) + 3_001})" in line for line in drawn) == 1
    assert sum("OLDEST CALL (" in line and " of 900)" in line for line in drawn) == 1
    assert sum("HOLDS (" in line for line in drawn) == 1


def test_room_that_one_table_does_not_need_the_others_get(looked: Stats) -> None:
    many = dataclasses.replace(looked, connections=looked.connections * 100)
    drawn = lines(frame(view(many), 200, 60))
    assert len(drawn) == 60
    for name in called(looked):
        assert any(line.endswith(f" {name}") for line in drawn)


def test_columns_are_left_out_from_the_least_important(looked: Stats) -> None:
    def heads(width: int) -> list[str]:
        drawn = lines(frame(view(looked), width))
        return next(line.split() for line in drawn if line.endswith("METHOD"))

    assert heads(100) == ["CALLS/S", "ERRORS/S", "P50", "P99", "CALLS", "ERRORS", "REFUSED", "METHOD"]
    assert heads(60) == ["CALLS/S", "ERRORS/S", "P50", "P99", "CALLS", "METHOD"]
    assert heads(36) == ["CALLS/S", "P99", "METHOD"]
    assert heads(20) == ["METHOD"]


def test_users_of_another_machine_have_no_names_here(looked: Stats) -> None:
    uid = os.getuid()
    text = lines(frame(view(looked, user=str), 100))
    assert any(line.split()[:2] == [str(os.getpid()), str(uid)] for line in text)
    assert any(line.startswith(f"{uid} ") and "connections 1" in line for line in text)


def test_a_latency_behind_the_last_bound_is_told_so(looked: Stats) -> None:
    rates = rates_of(None, looked)
    slow = [row._replace(p50=None, p99=math.inf) for row in rates.methods]
    drawn = lines(frame(view(looked, rates=rates._replace(methods=slow, is_first=False, seconds=2.0)), 100))
    assert sum(">1.15 min" in line for line in drawn) == len(slow)
    assert any("rates of the last 2.00 s" in line for line in drawn)


def test_a_trouble_is_told_at_once(looked: Stats) -> None:
    drawn = lines(frame(view(looked, trouble="ConnectionLost: it went"), 80, 20))
    assert "ConnectionLost: it went" in drawn
    assert "ConnectionLost: it w…" in lines(frame(view(looked, trouble="ConnectionLost: it went"), 21, 5))


def test_a_server_that_tells_nothing_is_a_head() -> None:
    drawn = lines(frame(view(stats_in({"methods": {}}), services=()), 80, 24))
    assert drawn[0].startswith("/run/x.sock   pid 0   up 0 s")
    assert len(drawn) < 5
