"""Description, document, stub, description: the last says what the first says, but for what docs/stubs.md lists."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from support.matrix import CONTAINERS, LEAVES
from support.roundtrips import Told, again, can_be_sent, groups, service_of

import seqrpc
from seqrpc.documents.changes import compare
from seqrpc.documents.model import read
from seqrpc.interface.openrpc import document_of
from seqrpc.protocol import codings

PAGE = (Path(__file__).parents[3] / "docs" / "annotations.md").read_text(encoding="utf-8")

GROUPS = dict(groups())


@functools.cache
def sent(name: str) -> list[Any]:
    """Return those types of a group that can be sent."""
    return [annotation for annotation in GROUPS[name] if can_be_sent(annotation)]


def says_the_same(first: dict[str, Any]) -> None:
    told = Told(first, is_stub=False).whole
    own, blocking = again(first)
    assert Told(own, is_stub=True).whole == told
    assert Told(blocking, is_stub=True).whole == told
    # What reads documents finds no change that matters, in either direction.
    for other in (own, blocking):
        changes = [*compare(read(first), read(other)), *compare(read(other), read(first))]
        changes = [one for one in changes if one.path != "Strange.own"]  # its default is made by a function
        changes = [one for one in changes if "Money" not in one.text]  # which not every number may be
        assert {change.breaks for change in changes} <= {"nobody"}


@pytest.mark.parametrize("name", GROUPS)
def test_every_type_of_the_tests_of_conversion_is_described_by_its_stub_as_before(name: str) -> None:
    if sent(name):
        says_the_same(document_of(service_of(sent(name))))


def test_what_is_left_out_is_what_cannot_be_sent() -> None:
    rows = [name for name, _annotation, _value in LEAVES] + [container.name for container in CONTAINERS]
    assert sum(len(sent(name)) for name in rows) == len(re.findall(r"\| yes(?= \|)", PAGE)) > 500
    others = [name for name in GROUPS if name not in rows]
    assert sum(len(sent(name)) for name in others) > 150
    refused = [str(one) for name in others for one in GROUPS[name] if one not in sent(name)]
    assert refused == ["<class 'support.annotations.Unresolved'>"]


class Spent(seqrpc.RpcError, code="test_roundtrips.Spent"):
    """All of it is gone.

    Nothing is left.
    """


class Money:
    """Of an application, which says what it travels as."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


class Grade(enum.IntEnum):
    """How good it is."""

    GOOD = 1
    BAD = 2


class Word(enum.StrEnum):
    TITLES = "titles"


class Settings(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What can be set."""

    grade: Grade = Grade.BAD
    word: Word | None = None
    mask: bytes = b"\xff"
    names: dict[str, list[str]] = {}
    limit: Annotated[float, msgspec.Meta(gt=0, le=1e300)] = 0.5


Key = Annotated[str, seqrpc.SENSITIVE]
Deep = Annotated[list[int], msgspec.Meta(max_length=3, description="so many")]
Deepest = list[list[list[list[list[list[list[list[list[Deep]]]]]]]]]


class Bank(seqrpc.Service, name="org.example.Bank"):
    """Keeps money.

    And gives it back.
    """

    version = "2.1"

    @seqrpc.method(errors=[Spent, seqrpc.PermissionDenied], idempotent=True)
    async def look(self, at: Grade, /, word: Word = Word.TITLES, *, key: Key = "x") -> Word:
        """Look at it.

        Nothing changes.
        """
        raise NotImplementedError

    @seqrpc.method
    async def set(self, settings: Settings = Settings(word=Word.TITLES), deep: Deepest | None = None) -> Deepest:  # noqa: B008
        raise NotImplementedError

    @seqrpc.method(oneway=True)
    async def tell(self, note: Annotated[str, msgspec.Meta(pattern="^a", min_length=1, examples=["ab"])]) -> None:
        """Tell something."""

    @seqrpc.method
    async def follow(self, since: int | None = None) -> AsyncIterator[Settings]:
        """Follow it."""
        yield Settings()

    @seqrpc.method
    async def spend(self, money: Money, several: list[Money | None] = [], /) -> dict[str, Money]:  # noqa: B006
        raise NotImplementedError


@pytest.fixture
def money() -> Iterator[None]:
    seqrpc.register_type(Money, wire_type=int, encode=lambda money: money.cents, decode=Money)
    yield
    del codings._registered[Money]


@pytest.mark.usefixtures("money")
def test_all_that_is_said_beside_types_is_said_again() -> None:
    first = document_of(Bank)
    assert "coded" in str(first)
    says_the_same(first)
