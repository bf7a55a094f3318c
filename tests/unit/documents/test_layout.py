"""Code as ruff leaves it."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest
from support.stubs import difference_from_ruff

from seqrpc.documents.layout import (
    WIDTH,
    Brackets,
    Node,
    assigned,
    bytes_literal,
    defined,
    docstring,
    flat,
    lines,
    text_literal,
)

LONG = "x" * 70


def call(*items: Node) -> Brackets:
    return Brackets("f(", items, ")")


def some(*items: Node) -> Brackets:
    return Brackets("[", items, "]", is_literal=True)


def test_what_fits_is_on_one_line() -> None:
    assert list(lines("a = ", call("1", some("2", "3")), ";", indent=4)) == ["    a = f(1, [2, 3]);"]


def test_a_call_has_its_arguments_on_a_line_of_their_own_if_they_fit_there() -> None:
    assert list(lines(LONG, call(LONG, "1"))) == [f"{LONG}f(", f"    {LONG}, 1", ")"]


def test_else_each_has_its_own() -> None:
    assert list(lines("", call(LONG, LONG))) == ["f(", f"    {LONG},", f"    {LONG},", ")"]


def test_a_list_has_a_line_for_each_item() -> None:
    assert list(lines(LONG, some("1", LONG))) == [f"{LONG}[", "    1,", f"    {LONG},", "]"]


def test_what_stands_alone_in_an_index_has_no_comma() -> None:
    index = Brackets("list[", (some(LONG, LONG),), "]")
    assert list(lines("", index)) == ["list[", "    [", f"        {LONG},", f"        {LONG},", "    ]", "]"]


def test_a_tuple_of_one_has_a_comma() -> None:
    one = Brackets("(", ("1",), ")", is_literal=True)
    assert flat(one) == "(1,)"
    assert flat(call("1")) == "f(1)"


def test_a_text_that_is_too_long_gets_parentheses_if_that_helps() -> None:
    assert list(assigned("a" * 60, LONG)) == [f"{'a' * 60} = (", f"    {LONG}", ")"]
    assert list(assigned("a", "x" * 130)) == [f"a = {'x' * 130}"]


@pytest.mark.parametrize(
    "params, expected",
    [
        ([("self", None), ("a: int", "1")], ["def f(self, a: int = 1) -> R:"]),
        (
            [("self", None), (f"a: {LONG}", None), (f"b: {'y' * 25}", "1")],
            ["def f(", f"    self, a: {LONG}, b: {'y' * 25} = 1", ") -> R:"],
        ),
        (
            [("self", None), (f"a: {LONG}", None), (f"b: {LONG}", some(LONG))],
            ["def f(", "    self,", f"    a: {LONG},", f"    b: {LONG} = [", f"        {LONG},", "    ],", ") -> R:"],
        ),
        ([("self", None)], ["def f(", "    self,", ") -> R:"]),
    ],
)
def test_parameters_are_broken_as_arguments_are(params: Any, expected: list[str]) -> None:
    result = "R" if len(params) > 1 else "R" * 110
    made = list(defined("def f", params, result, indent=0))
    assert [line.replace("R" * 110, "R") for line in made] == expected


@pytest.mark.parametrize(
    "text", ["", "a", '"', "'", "\"'", "\\", "\n\r\t\x00\x1b\u202e\xa0\U0001f600\U000e0001", "''\"", "é"]
)
def test_literals_are_what_they_stand_for(text: str) -> None:
    made = text_literal(text)
    assert ast.literal_eval(made) == text
    assert made.isprintable()
    data = text.encode()
    assert ast.literal_eval(bytes_literal(data)) == data
    assert bytes_literal(data).isascii()


def test_quotes_are_those_that_need_the_fewest_backslashes() -> None:
    assert [text_literal(text) for text in ("a", 'a"', "a'", "\"'")] == ['"a"', "'a\"'", '"a\'"', '"\\"\'"']


@pytest.mark.parametrize(
    "summary, rest, expected",
    [
        ("", "", []),
        (" ", "\n \n", []),
        ("Say.", "", ['    """Say."""']),
        ("Say.", "More.\n  Inside.", ['    """Say.', "", "    More.", "      Inside.", '    """']),
        ("", "All.\n\nMore.", ['    """All.', "", "    More.", '    """']),
        ('Say """.', "", ['    """Say \\"\\"\\"."""']),
        ('"Say"', "", ['    """\\"Say\\""""']),
        ('The end\\"', "", ['    """The end\\\\\\""""']),
        ("Back\\slash", "", ['    """Back\\\\slash"""']),
        ("Tab\tand \x1b", "", ['    """Tab and \\x1b"""']),
    ],
)
def test_docstrings_say_it_and_nothing_else(summary: str, rest: str, expected: list[str]) -> None:
    assert docstring(summary, rest, indent=4) == expected


def test_a_long_summary_is_broken_where_words_end() -> None:
    made = docstring("word " * 50, indent=8)
    assert len(made) == 4
    assert all(len(line) <= WIDTH for line in made)
    assert made[-1] == '        """'
    assert " ".join(" ".join(made).replace('"""', "").split()) == " ".join(["word"] * 50)


PIECES = [
    "a",
    "b ",
    "  ",
    '"',
    "'",
    "\\",
    "\n",
    "\n\n",
    '"""',
    "\x1b",
    "é",
    "\u3000",
    "\t",
    "word ",
    "{",
    "%",
    "# ",
    "\r",
]


def anything(choose: random.Random, most: int) -> str:
    return "".join(choose.choice(PIECES) for _ in range(choose.randint(0, most)))


def a_node(choose: random.Random, depth: int = 0) -> Node:
    if depth > 3 or choose.random() < 0.5:
        literals = [
            text_literal(anything(choose, 8)),
            text_literal("x" * choose.randint(1, 130)),
            bytes_literal(b"\xff'"),
        ]
        return choose.choice(["1", "None", "some_name", *literals])
    kind = choose.choice([("[", "]", True), ("(", ")", True), ("f(", ")", False), ("dict[", "]", False)])
    least = 0 if kind[0] in ("[", "f(") else 1
    items = tuple(a_node(choose, depth + 1) for _ in range(choose.randint(least, 6)))
    return Brackets(kind[0], items, kind[1], is_literal=kind[2])


def a_module(choose: random.Random) -> str:
    """Return code of every kind that stubs have."""
    code = ["# A comment.", *docstring("All.", indent=0)]
    for number in range(40):
        doc = docstring(anything(choose, 12), anything(choose, 30), indent=4)
        code += ["", "", f"class C{number}:", *doc, *([""] if doc else [])]
        code += assigned(f"field: T{'x' * choose.randint(0, 30)}", a_node(choose), indent=4)
        given = [
            (f"p{index}: {'T' * choose.randint(1, 40)}", a_node(choose) if choose.random() < 0.4 else None)
            for index in range(choose.randint(0, 6))
        ]
        params = [("self", None), *([("*", None)] if given else []), *given]
        code += ["", *defined(f"def f{'f' * choose.randint(0, 70)}", params, "R" * choose.randint(1, 60), indent=4)]
        code += docstring(anything(choose, 12), anything(choose, 30), indent=8)
        code += ["        raise NotImplementedError", "", "", *assigned(f"ALIAS{number}: TypeAlias", a_node(choose))]
    return "\n".join(code) + "\n"


def test_ruff_changes_nothing(tmp_path: Path) -> None:
    for seed in range(15):
        code = a_module(random.Random(seed))
        ast.parse(code)
        (tmp_path / f"module_{seed}.py").write_text(code)
    assert difference_from_ruff(tmp_path) == ""
