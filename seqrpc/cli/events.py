"""Calls as they pass, as ``rpc.monitor`` tells of them: read without trust, chosen, and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from seqrpc.cli import figures
from seqrpc.cli.clock import time_of
from seqrpc.cli.readings import count_in, id_in, name_in, seconds_in
from seqrpc.cli.screen import Part, Screen, Styled, clean
from seqrpc.interface.monitor import CallEvent
from seqrpc.text import shown

_LONGEST_CODE: Final = 100  # characters
_LONGEST_ARGUMENTS: Final = 1_000

_GAP: Final = "  "

_NARROWEST: Final = (12, 10, 20, 7)
_WIDEST: Final = (12, 24, 48, 8)
"""Characters that columns have, and grow to: time, who, method, duration. What is longer moves the rest of its line."""

_LEAST_ARGUMENTS: Final = 12


def event_in(item: Any) -> CallEvent:
    """Return what an item of the stream says, nothing where it says nothing that can be; ``began`` is in Unix time."""
    known: Mapping[Any, Any] = item if isinstance(item, dict) else {}
    method, code, arguments = known.get("method"), known.get("code"), known.get("arguments")
    duration = seconds_in(known.get("duration"))
    return CallEvent(
        method=None if method is None else name_in(method),
        uid=id_in(known.get("uid")),
        gid=id_in(known.get("gid")),
        pid=id_in(known.get("pid")),
        began=time_of(seconds_in(known.get("began")), duration),
        duration=duration,
        code=None if code is None else shown(code, _LONGEST_CODE) if isinstance(code, str) else "?",
        refused=known.get("refused") is True,
        oneway=known.get("oneway") is True,
        arguments=shown(arguments, _LONGEST_ARGUMENTS) if isinstance(arguments, str) else None,
        missed=count_in(known.get("missed")),
    )


class Choice(NamedTuple):
    """Which calls are wanted."""

    is_failed: bool = False
    """Only those that failed."""

    slow: float = 0.0
    """Only those that took at least so many seconds."""

    def wants(self, event: CallEvent) -> bool:
        """Return whether a call is one of them."""
        if self.is_failed and event.code is None:
            return False
        return not self.slow or (not event.refused and event.duration >= self.slow)


class Log:
    """Writes calls: a line each, aligned at a terminal, else JSON.

    Args:
        screen: where they go.
        choice: which of them.
        user: returns what a user is called.
    """

    def __init__(self, screen: Screen, choice: Choice, user: Callable[[int], str] = figures.user) -> None:
        """Write nothing yet."""
        self._screen = screen
        self._choice = choice
        self._user = user
        self._widths = [*_NARROWEST]
        self._missed = 0
        self.written = 0
        """How many were."""

    def write(self, event: CallEvent, width: int) -> None:
        """Write a call if it is wanted, at a terminal in so many columns."""
        self._missed += event.missed
        if not self._choice.wants(event):
            return
        self.written += 1
        missed, self._missed = self._missed, 0
        if not self._screen.is_for_people:
            self._screen.value(dataclasses.asdict(event) | {"missed": missed})
            return
        if missed:
            self._screen.remark(f"{figures.count(missed)} calls were left out: they pass faster than they are written")
        self._screen.line(*self._line(event, width))

    def _line(self, event: CallEvent, width: int) -> list[Part]:
        cells = [
            _time(event.began),
            self._who(event),
            "(lost unread)" if event.method is None else event.method,
            "-" if event.refused else figures.duration(event.duration),
        ]
        for number, cell in enumerate(cells):
            self._widths[number] = min(max(self._widths[number], len(clean(cell))), _WIDEST[number])
        time, who, method, duration = (clean(cell).ljust(most) for cell, most in zip(cells, self._widths, strict=True))
        outcome = Styled(_outcome(event), "good" if event.code is None else "bad")
        parts: list[Part] = [time, _GAP, who, _GAP, Styled(method, "name"), _GAP, duration, _GAP, outcome]
        if event.arguments:
            room = width - sum(len(part if isinstance(part, str) else part.text) for part in parts) - len(_GAP)
            parts += [_GAP, _cut(event.arguments, max(room, _LEAST_ARGUMENTS))]
        return parts

    def _who(self, event: CallEvent) -> str:
        named = "-" if event.uid is None else self._user(event.uid)
        return named if event.pid is None else f"{named}/{event.pid}"


def _outcome(event: CallEvent) -> str:
    told = "ok" if event.code is None else event.code
    return f"{told}, one-way" if event.oneway else told


def _time(began: float) -> str:
    try:
        return datetime.fromtimestamp(began).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - as the clock on the wall
    except (OverflowError, ValueError, OSError):
        return "-"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
