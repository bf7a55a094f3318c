"""Stubs as a whole: they say what the document says, do nothing else, and are as ruff leaves them."""

from __future__ import annotations

import itertools
import time
import tokenize
from pathlib import Path
from typing import Any

import pytest
from support.discovered import OURS, document, method, ours, param, ref
from support.hostile_documents import a_hostile_document
from support.stubs import actions_in, difference_from_ruff, document_with, module_of, stub_of

from seqrpc.documents.changes import compare
from seqrpc.documents.model import DocumentError, read
from seqrpc.documents.stubs import is_current, write_stub
from seqrpc.interface.openrpc import document_of


def test_a_stub_says_the_same_of_a_whole_document() -> None:
    first = document()
    text = stub_of(first)
    with module_of(text) as module:
        again = document_of(module.Logs)
    changes = compare(read(first), read(again))
    assert {change.breaks for change in changes} == {"nobody"}  # of defaults that are known to the other side only
    assert again["info"] == {"title": "org.example.Logs", "version": "2", "description": "The logs."}
    texts = [(one.get("summary"), one.get("description"), one.get("errors")) for one in again["methods"]]
    assert texts[0][:2] == ("Stream the lines of a log.", "It goes on until somebody ends it.")
    assert texts[0][2][0]["message"] == "logs.NoSuchLog"
    assert [one[OURS].get("sensitive") for one in again["methods"]] == [None, True, None, None]


def test_who_may_call_is_not_in_a_stub() -> None:
    first = document()
    other = document()
    for one in other["methods"]:
        one[OURS] = {**one[OURS], "allowed": True, "rule": "anyone"}
    assert stub_of(first) == stub_of(other)


def test_the_first_line_says_where_it_is_from() -> None:
    whole = read(document())
    text = write_stub(whole, "@logs\nimport os")
    assert text.startswith('# Made by "seqrpc stub" from @logs\\nimport os; what is changed here')
    assert text.splitlines()[1] == '"""org.example.Logs, version 2, for those who call."""'


def test_a_stub_is_current_until_the_document_says_otherwise() -> None:
    whole = read(document())
    text = write_stub(whole, "here")
    assert is_current(text, whole)
    assert is_current(write_stub(whole, "elsewhere"), whole)
    assert not is_current(f"{text}\n", whole)
    assert not is_current("", whole)
    assert not is_current(text.partition("\n")[2], whole)
    assert not is_current(text, read(document(methods=[])))


def test_what_is_imported_is_what_is_used() -> None:
    assert "import" not in stub_of(document_with()).partition("annotations")[2]
    text = stub_of(document_with(method("S.f", param("a", {"type": "integer"}), **ours(oneway=True))))
    assert text.count("\nimport ") == 2  # seqrpc, and its part for those who block


HOSTILE = range(60)


@pytest.mark.parametrize("seed", HOSTILE)
def test_hostile_documents_make_code_that_defines_and_does_nothing_else(seed: int) -> None:
    """Names that are keywords, docstrings with quotes, and all the rest: what is written runs, and defines."""
    try:
        whole = read(a_hostile_document(seed))
    except DocumentError:
        return
    text = write_stub(whole, 'a test"""\n')
    assert actions_in(text) == []
    with module_of(text):
        pass
    assert is_current(text, whole)
    assert compare(whole, whole) == []


def test_ruff_changes_nothing_in_stubs(tmp_path: Path) -> None:
    for seed in HOSTILE:
        try:
            (tmp_path / f"stub_{seed}.py").write_text(stub_of(a_hostile_document(seed)))
        except DocumentError:
            continue
    (tmp_path / "stub.py").write_text(stub_of(document()))
    assert difference_from_ruff(tmp_path) == ""


def test_hostile_documents_are_mostly_documents() -> None:
    read_well = 0
    for seed in HOSTILE:
        try:
            read(a_hostile_document(seed))
        except DocumentError:
            continue
        read_well += 1
    assert read_well > 30


def test_the_actions_of_a_module_are_seen() -> None:
    assert set(actions_in("import os\nos.system('x')")) == {"os.system('x')"}
    assert set(actions_in("import socket, yaml\ndel x")) == {"del x", "yaml"}


def test_two_hundred_methods_are_written_in_no_time() -> None:
    schema = {"anyOf": [ref("Entry"), {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    methods = [
        method(
            f"S.method_{number}",
            *(param(f"parameter_{index}", schema) for index in range(5)),
            result=schema,
            summary="Do it. " * 20,
            description="Args:\n    more: it.\n" * 5,
        )
        for number in range(200)
    ]
    whole = document_with(*methods, Entry={"properties": {"a": schema}, **ours(type="dataclass")})
    began = time.process_time()
    text = stub_of(whole)
    assert time.process_time() - began < 2
    assert text.count("    async def method_") == 200


def test_thousands_of_classes_are_written() -> None:
    schemas: dict[str, Any] = {
        f"A{number}": {"properties": {"next": ref(f"A{(number + 1) % 4000}")}, **ours(type="struct")}
        for number in range(4000)
    }
    assert stub_of(document_with(**schemas)).count("\nclass A") == 4000


@pytest.mark.parametrize("source", ["/tmp/coding:utf-7", "x -*- coding=utf_7 -*-", "encoding:cp037"])
def test_where_it_is_from_is_no_encoding(source: str, tmp_path: Path) -> None:
    """In UTF-7 "+ACIAIgAi-" is three quotation marks, which would end the docstring."""
    path = tmp_path / "stub.py"
    path.write_text(write_stub(document(info={"title": "+ACIAIgAi-", "version": "0"}), source), encoding="utf-8")
    with path.open("rb") as file:
        assert tokenize.detect_encoding(file.readline)[0] == "utf-8"


def alike(number: int, chars: str) -> list[str]:
    """Return names for which the same name stands in code."""
    return ["a" + "".join(each) for each in itertools.islice(itertools.product(chars, repeat=16), number)]


def a_union_of_lists(depth: int) -> dict[str, Any]:
    schemas: dict[str, Any] = {"U0": {"type": "integer"}}
    for number in range(1, depth + 1):
        items = {"type": "array", "items": ref(f"U{number - 1}")}
        schemas[f"U{number}"] = {"anyOf": [items, {**items, **ours(type="tuple")}, {**items, **ours(type="set")}]}
    return schemas


def classes_with_classes(depth: int) -> dict[str, Any]:
    schemas: dict[str, Any] = {f"U{depth}": {"properties": {"a": {"type": "integer"}}, **ours(type="dataclass")}}
    for number in range(depth):
        inner = {"allOf": [ref(f"U{number + 1}")], "default": {}}
        schemas[f"U{number}"] = {"properties": {"a": inner, "b": inner}, **ours(type="dataclass")}
    return schemas


def in_lists(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


COSTLY: dict[str, Any] = {
    "names of classes that are alike": lambda: document_with(
        **{name: {"properties": {}, **ours(type="dataclass")} for name in alike(20_000, ".-")}
    ),
    "names of fields that are alike": lambda: document_with(
        S={"properties": {name: {"type": "string"} for name in alike(20_000, "!-")}, **ours(type="dataclass")}
    ),
    "codes of errors that are alike": lambda: document_with(
        method("S.f", errors=[{"code": 1, "message": f"z.{name}"} for name in alike(20_000, "!-")])
    ),
    "a default that fits none of a union": lambda: document_with(
        method("S.f", param("a", {"allOf": [ref("U40")], "default": in_lists("x", 40)}, required=False)),
        **a_union_of_lists(40),
    ),
    "defaults that have defaults": lambda: document_with(**classes_with_classes(40)),
    "defaults of a large enum": lambda: document_with(
        *(
            method(f"S.f{number}", param("a", {"allOf": [ref("E")], "default": 99_999 - number}, required=False))
            for number in range(5_000)
        ),
        E={"enum": [*range(100_000)], **ours(type="enum", names=[f"N{number}" for number in range(100_000)])},
    ),
}


@pytest.mark.parametrize("what", COSTLY)
def test_no_document_takes_long(what: str) -> None:
    whole = read(COSTLY[what]())
    began = time.process_time()
    write_stub(whole, "a test")
    assert time.process_time() - began < 20  # some seconds, where it would be many minutes
