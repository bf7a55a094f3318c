"""What is shown of a text that somebody else made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.properties import PROPERTY

from seqrpc.text import MOST_SHOWN, nearest, offered, sendable, shown


@pytest.mark.parametrize("text", ["", "plain", "Grüße, 世界", r"C:\new", "x" * MOST_SHOWN], ids=repr)
def test_what_prints_and_is_short_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("one\ntwo\r\n", r"one\ntwo\r\n"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\x00b\x7fc\x9bd", r"a\x00b\x7fc\x9bd"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udc80\ud800", r"\udc80\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("no-break\xa0space", r"no-break\xa0space"),
    ],
)
def test_what_does_not_print_is_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(shown(text)) == expected, "a text may come through here twice"


def test_a_long_text_is_cut_and_its_length_told() -> None:
    assert shown("x" * 1000, 20) == f"{'x' * 20}… (1000 characters)"
    assert shown("\n" * 1000, 20) == 10 * r"\n" + "… (1000 characters)"
    assert len(shown("x" * 10_000_000)) < MOST_SHOWN + 30


def test_a_short_text_of_long_escapes_is_cut_too() -> None:
    assert shown("\U000e0041" * 10, 20) == r"\U000e0041\U000e0041… (10 characters)"


def test_what_is_no_text_is_made_one() -> None:
    assert shown(7) == "7"
    assert shown(ValueError("a\nb")) == r"a\nb"


@given(text=st.text(st.characters()), most=st.integers(1, 50))
@PROPERTY
def test_whatever_it_is_it_becomes_one_line_that_can_be_written(text: str, most: int) -> None:
    line = shown(text, most)
    assert line.isprintable()
    assert len(line) <= most + len(f"… ({len(text)} characters)")
    line.encode()


def test_a_text_that_cannot_be_sent_as_it_is_is_cut_and_escaped() -> None:
    assert [sendable(""), sendable("é"), sendable("a\udcff")] == ["", "é", "a\\udcff"]
    assert sendable("x" * 1_001) == "x" * 1_000


def test_what_may_have_been_meant_is_offered_the_likeliest_first() -> None:
    names = ["release", "add", "added", "count"]
    assert nearest("adde", names) == ["added", "add"]
    assert nearest("relase", names) == ["release"]
    assert nearest("something else", names) == []
    assert offered("relase", names) == "; did you mean 'release'?"
    assert offered("xyz", names) == ""


def test_neither_long_names_nor_many_are_compared() -> None:
    assert nearest("x" * 1_000_000, ["x" * 1_000_000]) == []
    assert nearest("x" * 40, ["x" * 1_000_000]) == []
    assert nearest("add", [*(["other"] * 1_000), "add"]) == []
