"""What public classes show is what docs/reference.md lists, and nothing besides."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import enum
import mmap
import re
from pathlib import Path

import pytest

import seqrpc
import seqrpc.blocking
import seqrpc.documents
import seqrpc.testing

PAGE = (Path(__file__).parent.parent / "docs" / "reference.md").read_text(encoding="utf-8")
STANDARD = {"asyncio": asyncio, "concurrent.futures": concurrent.futures, "enum": enum, "mmap": mmap}

CLASSES = {name: getattr(seqrpc, name) for name in seqrpc.__all__ if isinstance(getattr(seqrpc, name), type)}
ERRORS = {name: cls for name, cls in CLASSES.items() if issubclass(cls, BaseException)}
OTHERS = {name: cls for name, cls in CLASSES.items() if name not in ERRORS}


def shown(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def standard_class(name: str | None) -> type:
    if name is None:
        return object
    module, _dot, attribute = name.rpartition(".")
    found: type = getattr(STANDARD[module] if module else builtins, attribute)
    return found


def sections() -> dict[str, tuple[type, set[str]]]:
    """Return, for each class of the page that is no error, the standard class beside it and the names listed."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        heading = re.match(r"`(\w+)`(?: \(`([\w.]+)`\))?\n", section)
        if heading is not None:
            found[heading[1]] = standard_class(heading[2]), set(re.findall(r"^\* `(\w+)`:", section, re.MULTILINE))
    return found


def errors() -> dict[str, tuple[type, set[str]]]:
    """Return the same for each error."""
    lines = PAGE.partition("\n## Errors\n")[2].replace("\n  ", " ")
    rows = re.findall(r"^\* `(\w+)` \(`(\w+)`\): (.*)$", lines, re.MULTILINE)
    return {name: (standard_class(base), set(re.findall(r"`(\w+)`", names))) for name, base, names in rows}


def test_the_page_has_each_public_name_once() -> None:
    others = PAGE.partition("\n## Functions and values\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\* `(\w+)`:", others, re.MULTILINE)) == sorted({*seqrpc.__all__} - CLASSES.keys())
    assert sorted(sections()) == sorted(OTHERS)
    assert sorted(errors()) == sorted(ERRORS)


def test_the_page_has_each_name_of_the_blocking_client_and_what_it_shows() -> None:
    lines = PAGE.partition("\n## Without an event loop")[2].partition("\n## ")[0].replace("\n  ", " ")
    rows = re.findall(r"^\* `(\w+)`: (.*)$", lines, re.MULTILINE)
    assert sorted(name for name, _rest in rows) == sorted(seqrpc.blocking.__all__)
    for name, rest in rows:
        public = getattr(seqrpc.blocking, name)
        assert public.__doc__
        if isinstance(public, type):
            assert set(re.findall(r"`(\w+)`", rest)) == shown(public)
            own = shown(public) - shown(seqrpc.Service) if issubclass(public, seqrpc.Service) else shown(public)
            assert all(getattr(public, member).__doc__ for member in own), name


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_class_shows_what_the_page_lists(name: str) -> None:
    base, listed = (sections() | errors())[name]
    cls = CLASSES[name]
    assert issubclass(cls, base)
    assert shown(cls) == listed | shown(base)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_a_class_shows_has_a_docstring_of_its_own(name: str) -> None:
    cls = OTHERS[name]
    fields = getattr(cls, "__annotations__", {})
    assert cls.__doc__
    for member in shown(cls) - shown(sections()[name][0]) - set(fields):
        assert getattr(cls, member).__doc__, f"{name}.{member}"


def test_the_page_has_what_reads_documents() -> None:
    section = PAGE.partition("\n## For those who read what there is: ")[2].partition("\n## ")[0].replace("\n  ", " ")
    rows = dict(re.findall(r"^\* `(\w+)`: (.*)$", section, re.MULTILINE))
    assert sorted(rows) == sorted(seqrpc.documents.__all__)
    for name, text in rows.items():
        public = getattr(seqrpc.documents, name)
        assert public.__doc__
        if isinstance(public, type) and not issubclass(public, Exception):
            assert shown(public) == set(re.findall(r"`(\w+)`", text)), name


def test_the_page_has_what_is_for_tests() -> None:
    section = PAGE.partition("\n## For tests: ")[2].partition("\n## ")[0]
    rows = re.findall(r"^\* `(\w+)`: (.*)$", section, re.MULTILINE)
    assert sorted(name for name, _text in rows) == sorted(seqrpc.testing.__all__)
    for name, text in rows:
        cls = getattr(seqrpc.testing, name)
        if isinstance(cls, type):
            base = seqrpc.Server if issubclass(cls, seqrpc.Server) else object
            assert shown(cls) - shown(base) == set(re.findall(r"`(\w+)`", text)), name
