"""Stubs as a whole: they say what the document says, do nothing else, and are as ruff leaves them."""

from __future__ import annotations

import time
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
