"""Which document is told to whom, and how often it is made."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.documents import check_document

import seqrpc
from seqrpc.interface.discovery import Askers, Discovery, Documents, discovery_of
from seqrpc.interface.openrpc import document_of
from seqrpc.interface.signature import spec_of
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import MOST_DOCUMENTS
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoded import Encoded

policy = seqrpc.policy


def caller(uid: int | None) -> Credentials:
    return Credentials(pid=1, uid=uid, gid=1, groups=())


class Counting(policy.Policy):
    """Admits users of even numbers, and counts how often it is asked."""

    def __init__(self, divisor: int = 2) -> None:
        self.asked = 0
        self._divisor = divisor

    def verdict(self, caller: Credentials) -> bool | None:
        self.asked += 1
        return None if caller.uid is None else caller.uid % self._divisor == 0


RULE, OTHER = Counting(), Counting(3)


class Token(seqrpc.Service):
    @seqrpc.method(allow=OTHER)
    async def look(self) -> Token:
        raise NotImplementedError

    @seqrpc.method
    async def peer(self, other: Broken) -> None: ...


class Broken(seqrpc.Service):
    @seqrpc.method
    async def work(self, number: complex) -> None: ...


class Desk(seqrpc.Service, allow=RULE):
    @seqrpc.method
    async def a(self, tokens: list[Token]) -> None: ...

    @seqrpc.method
    async def b(self) -> AsyncIterator[Token]:
        raise NotImplementedError
        yield

    @seqrpc.method(allow=policy.hidden(policy.uid(8)))
    async def hidden(self) -> None: ...


def read(document: Encoded) -> Any:
    return Decoder().decode(document.data, [])[0]


def test_the_document_is_that_of_the_services_for_who_asks() -> None:
    documents = Documents([Desk], policy.default)
    for uid in (2, 3, 6, 7, 8):
        document = read(documents.of(caller(uid)))
        check_document(document)
        assert document == document_of(Desk, allow=policy.default, caller=caller(uid))
        assert ("hidden" in str(document)) == (uid == 8)


def test_it_is_made_once_for_all_who_are_alike() -> None:
    documents = Documents([Desk], policy.default)
    assert documents.of(caller(2)) is documents.of(caller(4))
    assert documents.of(caller(2)) is not documents.of(caller(6)), "who may look at tokens"
    assert documents.of(caller(2)) is documents.of(caller(10))


def test_each_rule_is_asked_once() -> None:
    documents = Documents([Desk], policy.default)
    documents.of(caller(2))
    RULE.asked = OTHER.asked = 0
    documents.of(caller(2))
    assert (RULE.asked, OTHER.asked) == (1, 1)
    RULE.asked = OTHER.asked = 0
    documents.of(caller(7))
    assert (RULE.asked, OTHER.asked) == (1, 1), "also while the document is made"


def test_no_more_than_some_are_kept_those_that_were_asked_for_last() -> None:
    class Many(seqrpc.Service):
        pass

    for number in range(6):

        async def method(self: Any) -> None: ...

        method.__name__ = f"m{number}"
        marked = seqrpc.method(allow=lambda caller, bit=1 << number: bool(caller.uid & bit))(method)
        setattr(Many, f"m{number}", marked)
    documents = Documents([Many], policy.default)
    first = documents.of(caller(1))
    for uid in range(2, 2 + 3 * MOST_DOCUMENTS):
        documents.of(caller(uid))
        assert documents.of(caller(1)) is first
    kept = documents.of(caller(5))
    assert read(kept)["methods"][0]["x-seqrpc"]["allowed"] is True
    assert documents.of(caller(1)) is first
    assert len(documents._made) == MOST_DOCUMENTS


def test_whoever_may_call_something_may_ask() -> None:
    documents = Documents([Desk], policy.uid(1))
    asked = Askers(documents)
    assert [asked.admits(caller(uid)) for uid in (1, 2, 3, 7)] == [True, True, False, False]
    assert asked.verdict(caller(8)) is True
    assert not asked.admits(None)
    assert not asked.admits(caller(None))
    assert not asked.keeps_secret


def test_a_refusal_makes_no_document() -> None:
    documents = Documents([Desk], policy.uid(1))
    RULE.asked = OTHER.asked = 0
    assert not documents.admits(caller(3))
    assert not documents.admits(caller(3))
    assert (RULE.asked, OTHER.asked) == (2, 0)
    assert documents._made == {}


def test_objects_of_a_class_share_their_documents() -> None:
    assert discovery_of((Token(),), policy.anyone) is discovery_of((Token(),), policy.anyone)
    assert discovery_of((Token(),), policy.uid(1)) is not discovery_of((Token(),), policy.uid(1))
    assert discovery_of((Token(), Desk()), policy.anyone) is not discovery_of((Token(), Desk()), policy.anyone)


def test_it_is_a_method_under_the_reserved_name() -> None:
    method = spec_of(Discovery).methods["discover"]
    assert method.wire_name == "rpc.discover"
    assert method.counts == range(1)
    assert method.description.idempotent


async def test_it_is_answered_to_who_asks() -> None:
    async with on_a_pair(Desk(), allow=policy.same_user) as connection:
        document = await connection.call("rpc.discover")
        me = Credentials(pid=1, uid=os.geteuid(), gid=os.getegid(), groups=())
        assert document == document_of(Desk, allow=policy.same_user, caller=me)
        assert await connection.proxy(Discovery).discover() == document
        with pytest.raises(seqrpc.InvalidParams):
            await connection.call("rpc.discover", 5)
