"""What is written, for people and for programs."""

from __future__ import annotations

import io
import json
import os

import pytest

from seqrpc.cli.screen import MOST_ON_SCREEN, Screen, Styled, as_json, clean, clean_lines, columns

EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m\u202edrow\r\n\x7f\udc80\U000e0001é"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Tty()


def test_nothing_that_moves_a_terminal_is_left_of_a_text() -> None:
    assert clean(EVIL).isprintable()
    assert clean("x" * 10_000) == "x" * MOST_ON_SCREEN + "… (10000 characters)"
    assert clean_lines("a\nb\x1b[1m\n\rc") == ["a", "b\\x1b[1m", "\\rc"]
    assert clean_lines("abcdef", 3) == ["abc", "… (6 characters)"]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_has_no_character_that_does_not_print_and_says_the_same(indent: int | None) -> None:
    value = {EVIL: [EVIL, 1, None, {"é": 1.5}]}
    text = as_json(value, indent=indent)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
    assert "é" in text


def test_a_long_text_is_escaped_in_all_its_pieces() -> None:
    text = ("a" * 65_530 + "\x1b") * 3
    assert json.loads(as_json(text)) == text
    assert "\x1b" not in as_json(text)


def test_a_terminal_gets_colours_and_a_pipe_none(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    Screen(tty, io.StringIO()).line("a ", Styled("b\x1b", "name"))
    assert tty.getvalue() == "a \x1b[1mb\\x1b\x1b[0m\n"
    pipe = io.StringIO()
    Screen(pipe, io.StringIO()).line("a ", Styled("b", "name"))
    assert pipe.getvalue() == "a b\n"
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Tty()
    Screen(plain, io.StringIO()).line(Styled("b", "name"))
    assert plain.getvalue() == "b\n"
    monkeypatch.delenv("NO_COLOR")
    for term in ("", "dumb", "unknown"):
        monkeypatch.setenv("TERM", term)
        plain = Tty()
        Screen(plain, io.StringIO()).line(Styled("b", "name"))
        assert plain.getvalue() == "b\n"


def test_a_value_is_laid_out_and_cut_at_a_terminal_and_whole_in_a_pipe(tty: Tty) -> None:
    Screen(tty, io.StringIO()).value({"a": [1]})
    assert tty.getvalue() == '{\n  "a": [\n    1\n  ]\n}\n'
    pipe = io.StringIO()
    Screen(pipe, io.StringIO()).value(["x" * 300_000])
    assert json.loads(pipe.getvalue()) == ["x" * 300_000]
    long = Tty()
    Screen(long, io.StringIO()).value(["x" * 300_000])
    assert long.getvalue().endswith("… (300008 characters; a pipe gets all of it)\n")
    compact = Tty()
    Screen(compact, io.StringIO(), json=True).value({"a": [1]})
    assert compact.getvalue() == '{"a":[1]}\n'


def test_bytes_go_to_a_pipe_as_they_are_and_to_a_terminal_as_text(tty: Tty) -> None:
    Screen(tty, io.StringIO()).raw(b"a\x1b\xff\nb")
    assert tty.getvalue() == "a\\x1b\\xff\nb"
    reader, writer = os.pipe()
    with open(reader, "rb") as got, open(writer, "w") as pipe:
        Screen(pipe, io.StringIO()).raw(memoryview(b"a\x1b\xff\nb"))
        pipe.close()
        assert got.read() == b"a\x1b\xff\nb"


def test_complaints_and_remarks_are_one_clean_line_each() -> None:
    err = io.StringIO()
    screen = Screen(io.StringIO(), err)
    screen.complain(EVIL)
    screen.remark(EVIL)
    first, second, rest = err.getvalue().split("\n")
    assert first.startswith("seqrpc: \\x1b[2J")
    assert second.isprintable()
    assert rest == ""


def test_texts_for_people_keep_their_lines() -> None:
    out = io.StringIO()
    Screen(out, io.StringIO()).text("a\n\x1bb")
    assert out.getvalue() == "a\n\\x1bb\n"


def test_columns_are_as_wide_as_their_widest() -> None:
    assert columns([("a", "b", "c"), ("long", "\x1b", "x")]) == [("a   ", "b   ", "c"), ("long", "\\x1b", "x")]


def test_code_keeps_its_lines_and_is_clean_at_a_terminal(tty: Tty) -> None:
    screen = Screen(tty, io.StringIO())
    screen.code("a\n\x1bb\n")
    screen.flush()
    assert tty.getvalue() == "a\n\\x1bb\n"
    pipe = io.StringIO()
    Screen(pipe, io.StringIO()).code("a\n\x1bb\n")
    assert pipe.getvalue() == "a\n\x1bb\n"
