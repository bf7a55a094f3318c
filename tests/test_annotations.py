"""Annotations mean what they say: exact round trips, or a refusal before anything is served. There is no third outcome.

``docs/annotations.md`` has a table of it all. ``SEQRPC_WRITE_DOCS=1 pytest tests/test_annotations.py`` writes it anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.matrix import CONTAINERS, INNERS, LEAVES, LIVING, PLAIN, Container, Inner, Json, Tree

import seqrpc
from seqrpc.interface.signature import spec_of

PAGE = Path(__file__).parent.parent / "docs" / "annotations.md"

REFUSAL = re.compile(r"^(Taker|Giver)\.(take|give)(?P<rest>: [^\n]+)$")
WAY_OUT = re.compile(r"\b(write|send|make|pass|raise|tell|await|give)\b")

NAMES = (Json, Tree)  # where the functions are that have them in their annotations, as text

IsSame = Callable[[Any], Awaitable[bool]]


@dataclasses.dataclass
class Case:
    """An annotation with a value of it."""

    annotation: Any
    make: Callable[[], Any]
    is_same: IsSame
    dispose: Callable[[Any], None] = lambda value: None


def close(value: Any) -> None:
    """Let go of a value, where that is for whoever has it."""
    if isinstance(value, seqrpc.OwnedFd | seqrpc.Buffer):
        with contextlib.suppress(BufferError):  # a view of it is there still
            value.close()


# The places


def taker(annotation: Any, is_same: IsSame) -> type[seqrpc.Service]:
    async def take(self: Any, value: Any) -> bool:
        return await is_same(value)

    take.__annotations__ = {"value": annotation, "return": bool}
    take.__qualname__ = "Taker.take"
    return type("Taker", (seqrpc.Service,), {"take": seqrpc.method(take)})


def giver(annotation: Any, make: Callable[[], Any]) -> type[seqrpc.Service]:
    async def give(self: Any) -> Any:
        return make()

    give.__annotations__ = {"return": annotation}
    give.__qualname__ = "Giver.give"
    return type("Giver", (seqrpc.Service,), {"give": seqrpc.method(give)})


async def as_parameter(case: Case) -> None:
    service = taker(case.annotation, case.is_same)
    spec_of(service)
    value = case.make()
    async with on_a_pair(service()) as connection:
        assert await connection.call("Taker.take", value)
    case.dispose(value)


async def as_result(case: Case) -> None:
    service = giver(case.annotation, case.make)
    spec_of(service)
    async with on_a_pair(service()) as connection:
        value = await connection.proxy(service).give()  # type: ignore[attr-defined]
        assert await case.is_same(value)
        case.dispose(value)


async def as_field(case: Case) -> None:
    holder = dataclasses.make_dataclass("Holder", [("value", case.annotation)])
    holder.__module__ = __name__
    held = Case(
        holder,
        lambda: holder(case.make()),
        lambda got: case.is_same(got.value),
        lambda value: case.dispose(value.value),
    )
    await as_parameter(held)
    await as_result(held)


async def as_item(case: Case) -> None:
    made: list[Any] = []

    async def items() -> AsyncIterator[Any]:
        made.append(case.make())
        yield made[-1]

    async def is_same(got: Any) -> bool:
        [item] = [item async for item in got]
        same = await case.is_same(item)
        case.dispose(item)  # whoever reads an item owns what is in it
        return same

    await as_result(Case(AsyncIterator[case.annotation], items, is_same))  # type: ignore[name-defined]
    await as_parameter(Case(AsyncIterator[case.annotation], items, is_same))  # type: ignore[name-defined]
    for value in made:
        case.dispose(value)


PLACES = {"parameter": as_parameter, "result": as_result, "field": as_field, "item": as_item}


async def outcome(case: Case) -> str:
    """Return "yes", or why such values cannot be sent; it is the same in all places."""
    found: dict[str, str] = {}
    for name, place in PLACES.items():
        refused = ""
        try:
            await place(case)
        except TypeError as exc:
            refused = str(exc)
        if not refused:
            found[name] = "yes"
            continue
        refusal = REFUSAL.match(refused)
        assert refusal, refused
        assert WAY_OUT.search(refused), refused
        found[name] = refusal["rest"]
    assert len({text == "yes" for text in found.values()}) == 1, found
    return found["parameter"].removeprefix(": value").removeprefix(": ")


# What stands in a place


def leaf_case(annotation: Any, value: Any) -> Case:
    async def is_same(got: Any) -> bool:
        return got == value and type(got) is type(value)

    return Case(annotation, lambda: value, is_same)


def beside_case(annotation: Any, inner: Inner) -> Case:
    return Case(annotation | inner.annotation, inner.make, inner.is_same, close)


def within_case(container: Container, inner: Inner) -> Case:
    annotation = container.annotate(inner.annotation)

    async def is_same(got: Any) -> bool:
        kind = container.kind(annotation)
        assert isinstance(got, kind) if kind is object else type(got) is kind, (type(got), kind)
        return await inner.is_same(container.unwrap(got))

    return Case(
        annotation,
        lambda: container.wrap(annotation, inner.make()),
        is_same,
        lambda value: close(container.unwrap(value)),
    )


# The table


def cases() -> Iterator[tuple[str, str, Case]]:
    """Yield all cases, with the names of their rows and columns."""
    for name, annotation, value in LEAVES:
        yield name, PLAIN.name, leaf_case(annotation, value)
        for inner in LIVING:
            yield name, inner.name, beside_case(annotation, inner)
    for container in CONTAINERS:
        for inner in INNERS:
            yield container.name, inner.name, within_case(container, inner)


def written(page: str) -> dict[tuple[str, str], str]:
    """Return what the page says, by row and column."""
    reasons: dict[str, str] = dict(re.findall(r"^(\d+)\. (.*)$", page, re.MULTILINE))
    found: dict[tuple[str, str], str] = {}
    for row in re.findall(r"^\| (.*) \|$", page, re.MULTILINE):
        name, *cells = re.split(r"(?<!\\) \| ", row)
        for inner, cell in zip(INNERS, cells, strict=True):
            found[str(name).replace("\\|", "|"), inner.name] = str(reasons.get(cell.removeprefix("no: "), cell))
    return found


def table(rows: Sequence[str], title: str, found: dict[tuple[str, str], str], reasons: list[str]) -> str:
    """Return a table of some rows; why something is refused is told by a number in ``reasons``."""
    lines = [f"| {title} | {' | '.join(inner.name for inner in INNERS)} |", "| --- " * (len(INNERS) + 1) + "|"]
    for row in rows:
        cells = []
        for inner in INNERS:
            text = found[row, inner.name]
            if text != "yes" and text not in reasons:
                reasons.append(text)
            cells.append("yes" if text == "yes" else f"no: {reasons.index(text) + 1}")
        lines.append(f"| {row.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rendered(found: dict[tuple[str, str], str]) -> str:
    reasons: list[str] = []
    leaves = table(LEAF_NAMES, "by itself, or in a union with", found, reasons)
    containers = table([container.name for container in CONTAINERS], "with inside", found, reasons)
    why = "\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
    return f"{leaves}\n\n{containers}\n\nWhat is refused, and what to write in its place:\n\n{why}\n"


LEAF_NAMES = [name for name, _annotation, _value in LEAVES]
CASES = list(cases())
BEGIN, END = "<!-- begin of the tables -->\n\n", "\n<!-- end of the tables -->"


@functools.cache
def page() -> str:
    text = PAGE.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


@pytest.mark.skipif("SEQRPC_WRITE_DOCS" in os.environ, reason="the page is being written")
@pytest.mark.parametrize("row, column, case", CASES, ids=[f"{row}-{column}" for row, column, _case in CASES])
async def test_a_value_comes_as_it_is_or_is_refused(row: str, column: str, case: Case) -> None:
    assert await outcome(case) == written(page())[row, column]


async def test_the_page_has_all_of_them_and_no_others() -> None:
    if "SEQRPC_WRITE_DOCS" in os.environ:
        found = {(row, column): await outcome(case) for row, column, case in CASES}
        PAGE.write_text(PAGE.read_text().replace(f"{BEGIN}{page()}{END}", f"{BEGIN}{rendered(found)}{END}"))
        page.cache_clear()
    told = written(page())
    assert [key for key in told if key[0] not in ("by itself, or in a union with", "with inside", "---")] == [
        (row, column) for row, column, _case in CASES
    ]
    assert rendered(told) == page()
