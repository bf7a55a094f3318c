"""One look at a server, drawn for people: lines that fit in a window of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from seqrpc.cli import figures
from seqrpc.cli.rates import MethodRates, Rates, in_order
from seqrpc.cli.screen import clean
from seqrpc.interface.stats import ConnectionStats, Stats

_GAP: Final = "  "
_HEAD_GAP: Final = "   "
_LEAST_NAME: Final = 16
"""Cells that the last column of a table has at least; others are left out for it."""

_MOST_CELL: Final = 200  # characters

_NOTHING: Final = ("0", "-", "0 B")

_STYLES: Final = {"": "", "name": "bold", "type": "cyan", "faint": "dim", "good": "green", "bad": "red"}
"""As ``screen`` has them."""


class View(NamedTuple):
    """What is drawn."""

    address: str
    services: tuple[str, ...]
    """Their names; none if the server does not tell."""

    stats: Stats
    rates: Rates
    sort: str
    trouble: str = ""
    """Why there is nothing newer."""

    hint: str = ""
    """What the keys do."""

    user: Callable[[int], str] = figures.user
    """Returns what a user is called."""


class Column(NamedTuple):
    """A column of a table."""

    head: str
    rank: int
    """Those with the highest are left out first, where there is no room."""

    style: str = ""
    is_text: bool = False
    """Whether it is aligned as words are."""


class Section(NamedTuple):
    """A table, of which as many rows are drawn as there is room for. Its last column gets what room is left."""

    columns: tuple[Column, ...]
    size: int
    row: Callable[[int], tuple[str, ...]]
    """Makes the cells of a row."""


def frame(view: View, width: int, height: int | None = None) -> list[Text]:
    """Return the lines of a view.

    Args:
        view: what is drawn.
        width: cells of each line at most.
        height: how many lines there are at most; None: all that there are.
    """
    room = height or 1_000_000
    lines = _head(view, width, max(1, room // 3))
    if view.trouble:
        lines.append(_line([(view.trouble, "bad")], width))
    tables = [table for table in (_connections(view), _methods(view), _accounts(view)) if table.size]
    room -= len(lines)
    has_gaps = room > 4 * len(tables)
    for table, rows in zip(tables, _shares(tables, room - (len(tables) if has_gaps else 0)), strict=True):
        if rows:
            lines += [Text(), *_drawn(table, width, rows)] if has_gaps else _drawn(table, width, rows)
    return lines[:height]


def _shares(tables: Sequence[Section], room: int) -> list[int]:
    """Return how many lines each table gets: what one does not need the others may have."""
    shares = [0] * len(tables)
    wanted = [table.size + 1 for table in tables]
    for number in range(len(tables)):  # nothing, or the heads and a row
        shares[number] = 2 if room >= 2 else 0
        room -= shares[number]
    while room > 0 and any(0 < share < want for share, want in zip(shares, wanted, strict=True)):
        open_ones = [number for number, share in enumerate(shares) if 0 < share < wanted[number]]
        each = max(1, room // len(open_ones))
        for number in open_ones:
            more = min(each, wanted[number] - shares[number], room)
            shares[number] += more
            room -= more
    return shares


# The head


def _head(view: View, width: int, most: int) -> list[Text]:
    stats, rates = view.stats, view.rates
    refused = sum(stats.connections_refused.values())
    connections = (("open", stats.connections_open), ("made", stats.connections_made), ("refused", refused))
    is_bad = "bad" if refused else ""
    since = "the start" if rates.is_first else f"the last {figures.duration(rates.seconds)}"
    who = [
        (view.address, "name"),
        (", ".join(view.services), "type"),
        (f"pid {stats.pid}", ""),
        (f"up {figures.duration(stats.uptime)}", ""),
        ("stopping" if stats.is_stopping else "", "bad"),
        (f"seqrpc {stats.version}", "faint"),
        (f"rates since {since}" if rates.is_first else f"rates of {since}", "faint"),
        (view.hint, "faint"),
    ]
    what = [
        (f"calls {figures.count(stats.calls_in_flight)} in flight, {figures.rate(rates.calls_per_second)}/s", ""),
        (f"errors {figures.rate(rates.errors_per_second)}/s", "bad" if rates.errors_per_second else ""),
        (f"connections {', '.join(f'{figures.count(number)} {how}' for how, number in connections)}", is_bad),
        (f"unsent {figures.size(stats.unsent_bytes)}", ""),
        (f"streams {figures.count(stats.streams)}", ""),
        (f"objects {figures.count(stats.objects)}", ""),
    ]
    ours = _flow(who, width)
    theirs = _flow(what, width)
    left = max(1, most - len(theirs))
    return [*ours[:left], *theirs][:most] if most > 1 else theirs[:1]


def _flow(parts: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Return parts one after the other, on as many lines as they need."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0
    for text, style in parts:
        if not text:
            continue
        needed = cell_len(clean(text, _MOST_CELL))
        if used and used + len(_HEAD_GAP) + needed > width:
            lines.append([])
            used = 0
        if used:
            lines[-1].append((_HEAD_GAP, ""))
            used += len(_HEAD_GAP)
        lines[-1].append((text, style))
        used += needed
    return [_line(line, width) for line in lines]


# The tables

_CONNECTIONS: Final = (
    Column("PID", 2),
    Column("USER", 1, is_text=True),
    Column("AGE", 5),
    Column("UNSENT", 4),
    Column("IN FLIGHT", 3),
    Column("FOR", 2),
    Column("OLDEST CALL", 0, "type"),
)

_METHODS: Final = (
    Column("CALLS/S", 1),
    Column("ERRORS/S", 3, "bad"),
    Column("P50", 4),
    Column("P99", 2),
    Column("CALLS", 5),
    Column("ERRORS", 6, "bad"),
    Column("REFUSED", 7, "bad"),
    Column("METHOD", 0, "name"),
)

_ACCOUNTS: Final = (Column("USER", 1, is_text=True), Column("HOLDS", 0))


def _connections(view: View) -> Section:
    listed = view.stats.connections
    return Section(_CONNECTIONS, len(listed), lambda number: _connection(listed[number], view.user))


def _connection(one: ConnectionStats, user: Callable[[int], str]) -> tuple[str, ...]:
    oldest = max(one.calls, key=lambda call: call.age, default=None)
    return (
        "-" if one.pid is None else str(one.pid),
        "-" if one.uid is None else user(one.uid),
        figures.duration(one.age),
        figures.size(one.unsent_bytes),
        figures.count(one.calls_in_flight),
        "" if oldest is None else figures.duration(oldest.age),
        "" if oldest is None else oldest.method,
    )


def _methods(view: View) -> Section:
    rows, bounds = in_order(view.rates.methods, view.sort), view.stats.latency_bounds
    return Section(_METHODS, len(rows), lambda number: _method(rows[number], bounds[-1] if bounds else 0.0))


def _method(row: MethodRates, last_bound: float) -> tuple[str, ...]:
    def told(seconds: float | None) -> str:
        if seconds is None:
            return "-"
        return figures.duration(seconds) if seconds <= last_bound else f">{figures.duration(last_bound)}"

    return (
        figures.rate(row.calls_per_second),
        figures.rate(row.errors_per_second),
        told(row.p50),
        told(row.p99),
        figures.count(row.calls),
        figures.count(row.errors),
        figures.count(row.refused),
        "(no such method)" if row.method is None else row.method,
    )


def _accounts(view: View) -> Section:
    users = sorted(view.stats.accounts.items(), key=lambda entry: -entry[1].get("connections", 0))

    def row(number: int) -> tuple[str, ...]:
        uid, held = users[number]
        is_number = uid.isascii() and uid.isdigit() and len(uid) < 11
        return view.user(int(uid)) if is_number else uid, ", ".join(
            _told(what, much) for what, much in held.items() if much
        )

    return Section(_ACCOUNTS, len(users), row)


def _told(what: str, much: int) -> str:
    words = what.replace("_", " ")
    return f"{words.removesuffix(' bytes')} {figures.size(much)}" if what.endswith("bytes") else f"{words} {much}"


def _drawn(table: Section, width: int, height: int) -> list[Text]:
    """Return the lines of a table: its heads, and rows."""
    rows = [tuple(clean(cell, _MOST_CELL) for cell in table.row(number)) for number in range(height - 1)]
    told = f" ({len(rows)} of {table.size})" if len(rows) < table.size else ""
    heads = tuple(column.head for column in table.columns)
    cells = [(*heads[:-1], heads[-1] + told), *rows]
    widths = [max(cell_len(row[number]) for row in cells) for number in range(len(heads))]
    kept = _kept(table.columns, widths, width)
    lines = []
    for number, row in enumerate(cells):
        parts: list[tuple[str, str]] = []
        for at in kept[:-1]:
            column, cell = table.columns[at], row[at]
            space = " " * (widths[at] - cell_len(cell))
            style = "faint" if not number or cell in _NOTHING else column.style
            parts += [(cell + space if column.is_text else space + cell, style), (_GAP, "")]
        parts.append((row[-1], table.columns[-1].style if number else "faint"))
        lines.append(_line(parts, width))
    return lines


def _kept(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Return the columns that there is room for."""
    kept = [*range(len(columns))]
    least = min(widths[-1], _LEAST_NAME)
    while len(kept) > 1 and sum(widths[at] + len(_GAP) for at in kept[:-1]) + least > width:
        kept.remove(max(kept[:-1], key=lambda at: columns[at].rank))
    return kept


def _line(parts: Sequence[tuple[str, str]], width: int) -> Text:
    """Return one line, cut where the window ends."""
    line = Text(no_wrap=True, overflow="ellipsis", end="")
    for text, style in parts:
        line.append(clean(text, _MOST_CELL), _STYLES[style])
    line.truncate(max(1, width), overflow="ellipsis")
    return line
