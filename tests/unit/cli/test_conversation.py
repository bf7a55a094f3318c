"""Calls as they are typed, over one connection."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqrpc import PermissionDenied, RpcError, blocking
from seqrpc.blocking import Channel
from seqrpc.cli.conversation import Conversation
from seqrpc.cli.endings import Ending
from seqrpc.cli.learning import description_of


@pytest.fixture
def conversation(desk: Path) -> Iterator[Conversation]:
    with (
        blocking.connect(desk) as connection,
        contextlib.closing(Conversation(connection, description_of(connection))) as made,
    ):
        yield made


def test_a_call_leads_to_the_object_that_it_gives(conversation: Conversation) -> None:
    result, target = conversation.call(conversation.services, "box", ["a"])
    assert isinstance(result, Channel)
    assert conversation.call(target, "put", ["x"]) == (None, target)
    assert conversation.call(target, "look", []) == ("x", target)
    assert conversation.call(conversation.services, "add", ["1"])[0] == 2


def test_without_a_description_calls_are_made_by_looks(desk: Path) -> None:
    with blocking.connect(desk) as connection:
        conversation = Conversation(connection, None)
        assert conversation.call(conversation.services, "Desk.add", ["1", "2"])[0] == 3
        _box, target = conversation.call(conversation.services, "Desk.box", ["a"])
        assert target.methods is None
        conversation.call(target, "Box.put", ["x"])
        with pytest.raises(PermissionDenied) as raised:
            conversation.call(conversation.services, "Desk.secret", [])
        conversation.close()
        assert "who may call it" not in str(raised.value)


def test_what_is_one_way_is_not_waited_for(conversation: Conversation) -> None:
    assert conversation.call(conversation.services, "hint", ["1"]) == (None, conversation.services)


def test_a_refusal_says_by_what_rule(conversation: Conversation) -> None:
    with pytest.raises(PermissionDenied, match=r"\(who may call it: uid\(4000000000\)\)"):
        conversation.call(conversation.services, "secret", [])


def test_what_was_wrong_with_an_item_is_raised_in_place_of_what_came_of_it(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: Any = io.TextIOWrapper(io.BytesIO(b"1\nx\n"))
    monkeypatch.setattr(sys, "stdin", given)
    with pytest.raises(Ending, match="numbers, line 2=x: int is wanted"):
        conversation.call(conversation.services, "total", ["-"])
    with pytest.raises(RpcError, match=r"desk\.Empty"):
        conversation.call(conversation.services, "fail", [])


def test_there_may_be_no_standard_input(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Ending, match="there is no standard input"):
        conversation.call(conversation.services, "Desk.echo", ["-"])


@pytest.mark.parametrize("names", [[], ["add"], ["box", "put", "look"], ["box", "look", "look"], ["Desk.unknown", "x"]])
def test_a_chain_may_be_called_as_far_as_it_is_known(conversation: Conversation, names: list[str]) -> None:
    conversation.check(names)


@pytest.mark.parametrize(
    "names, text",
    [
        (["ad"], "there is no method 'ad'; did you mean 'add'"),
        (["add", "look"], "add gives no object to be called by what follows after --, and there is no method 'look'"),
        (["box", "add"], "there is no method 'add'"),
        (["box", "look", "add"], "look gives no object"),
    ],
)
def test_a_chain_that_leads_nowhere_is_told_before_its_first_call(
    conversation: Conversation, names: list[str], text: str
) -> None:
    with pytest.raises(Ending, match=text) as raised:
        conversation.check(names)
    assert raised.value.status == 3


def test_which_of_several_is_asked_before_the_first_call_and_nothing_where_nobody_tells(desk: Path) -> None:
    with blocking.connect(desk) as connection, contextlib.closing(Conversation(connection, None)) as conversation:
        conversation.check(["anything", "at all"])
