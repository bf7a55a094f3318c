"""Calls as they pass: read without trust, chosen, and written."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pwd
import time
from typing import Any

import pytest

from seqrpc.cli.events import Choice, Log, event_in
from seqrpc.cli.screen import Screen
from seqrpc.interface.monitor import CallEvent

EVIL = "\x1b[2J\x9b\u202e\n\r\x00"

EVENT = CallEvent(
    method="Desk.add",
    uid=os.getuid(),
    gid=0,
    pid=1234,
    began=time.mktime((2024, 5, 6, 7, 8, 9, 0, 0, -1)) + 0.25,
    duration=0.0015,
    code=None,
    refused=False,
    oneway=False,
    arguments="a=1, b=2",
    missed=0,
)

ME = pwd.getpwuid(os.getuid()).pw_name


class People(io.StringIO):
    def isatty(self) -> bool:
        return True


def log(choice: Choice | None = None, *, for_people: bool = True, **more: Any) -> tuple[Log, io.StringIO, io.StringIO]:
    out, err = People() if for_people else io.StringIO(), io.StringIO()
    return Log(Screen(out, err), Choice() if choice is None else choice, **more), out, err


def changed(**more: Any) -> CallEvent:
    return dataclasses.replace(EVENT, **more)


@pytest.fixture(autouse=True)
def _without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def test_an_item_is_read_as_it_is() -> None:
    failed = changed(method=None, uid=None, gid=None, pid=None, code="a.B", refused=True, oneway=True, missed=7)
    for event in (EVENT, failed):
        found = event_in(dataclasses.asdict(dataclasses.replace(event, began=time.monotonic() - 7)))
        assert found == dataclasses.replace(event, began=found.began)
        assert found.began == pytest.approx(time.time() - 7, abs=5)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(CallEvent)])
@pytest.mark.parametrize("value", [7, -1, 2**200, 1e300, math.nan, math.inf, EVIL, EVIL * 10_000, b"x", [], {}, True])
def test_whatever_stands_in_a_place_is_made_to_fit(name: str, value: Any) -> None:
    event = event_in({name: value})
    text = json.dumps(dataclasses.asdict(event), allow_nan=False)
    assert len(text) < 3_000
    made, out, err = log()
    made.write(event, 80)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().strip("\n").isprintable()
    assert err.getvalue().count("\n") <= 1


@pytest.mark.parametrize("item", [None, 7, "x", [], [EVENT]])
def test_an_item_that_is_none_tells_nothing(item: Any) -> None:
    assert dataclasses.replace(event_in(item), began=0.0) == dataclasses.replace(event_in({}), began=0.0)


def test_people_get_aligned_lines() -> None:
    made, out, _err = log()
    made.write(EVENT, 200)
    made.write(changed(method="Desk.a", code="rpc.PermissionDenied", refused=True, arguments=None, pid=None), 200)
    made.write(changed(method=None, uid=None, pid=None, code="x", refused=True, arguments=None), 200)
    made.write(changed(oneway=True, began=1e15), 200)
    me = max(10, len(ME) + 5)
    assert out.getvalue().splitlines() == [
        f"07:08:09.250  {f'{ME}/1234'.ljust(me)}  {'Desk.add'.ljust(20)}  1.50 ms  ok  a=1, b=2",
        f"07:08:09.250  {ME.ljust(me)}  {'Desk.a'.ljust(20)}  -        rpc.PermissionDenied",
        f"07:08:09.250  {'-'.ljust(me)}  {'(lost unread)'.ljust(20)}  -        x",
        f"{'-'.ljust(12)}  {f'{ME}/1234'.ljust(me)}  {'Desk.add'.ljust(20)}  1.50 ms  ok, one-way  a=1, b=2",
    ]
    assert made.written == 4


def test_arguments_are_cut_where_the_window_ends() -> None:
    made, out, _err = log(user=str)
    made.write(changed(arguments="x" * 500), 100)
    made.write(changed(arguments="x" * 500), 10)
    first, second = out.getvalue().splitlines()
    assert len(first) == 100
    assert first.endswith("x…")
    assert second.endswith("  xxxxxxxxxxx…")
    assert f"  {os.getuid()}/1234  " in first


def test_names_do_not_widen_lines_for_ever() -> None:
    made, out, _err = log()
    made.write(changed(method="x" * 200), 100)
    made.write(EVENT, 200)
    assert len(out.getvalue().splitlines()[1]) < 120


def test_programs_get_json() -> None:
    made, out, _err = log(for_people=False)
    made.write(EVENT, 0)
    assert json.loads(out.getvalue()) == dataclasses.asdict(EVENT)


def test_some_are_chosen() -> None:
    failed, slow, refused = changed(code="x"), changed(duration=2.0), changed(code="x", refused=True, duration=0.0)
    every = [EVENT, failed, slow, refused]

    def wanted(choice: Choice) -> list[CallEvent]:
        return [event for event in every if choice.wants(event)]

    assert wanted(Choice()) == every
    assert wanted(Choice(is_failed=True)) == [failed, refused]
    assert wanted(Choice(slow=1.0)) == [slow]
    assert wanted(Choice(is_failed=True, slow=0.001)) == [failed]


def test_what_was_left_out_is_told_with_the_next_that_is_written() -> None:
    choice = Choice(is_failed=True)
    made, out, err = log(choice, for_people=False)
    made.write(changed(missed=3), 0)
    made.write(changed(missed=4, code="x"), 0)
    made.write(changed(code="x"), 0)
    assert [json.loads(line)["missed"] for line in out.getvalue().splitlines()] == [7, 0]
    assert err.getvalue() == ""
    made, out, err = log()
    made.write(changed(missed=3), 80)
    assert err.getvalue() == "3 calls were left out: they pass faster than they are written\n"
    assert out.getvalue().count("\n") == 1
