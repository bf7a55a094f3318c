"""Documents as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.discovered import FAILURE, OURS, document, method, ours, param, ref

from seqrpc import documents
from seqrpc.documents.model import Document, DocumentError, read
from seqrpc.documents.trees import (
    Anything,
    Default,
    Descriptor,
    Failure,
    ObjectOf,
    Param,
    Ref,
    Scalar,
    Service,
    StreamOf,
    UnionOf,
)


def test_everything_in_a_document_is_read() -> None:
    whole = read(document())
    assert (whole.title, whole.version, whole.description) == ("org.example.Logs", "2", "The logs.")
    assert whole.of_seqrpc
    assert whole.services == (Service(name="org.example.Logs", description="The logs.", bases=("Base",)),)
    assert whole.methods == whole.methods_of("org.example.Logs")
    assert whole.methods_of("Logs") == ()
    assert sorted(whole.schemas) == ["Access", "Circle", "Colour", "Entry", "Json", "Pair"]
    follow, opened, rotate, vault = whole.methods
    assert (follow.name, follow.service, follow.short_name) == ("org.example.Logs.follow", "org.example.Logs", "follow")
    assert (follow.summary, follow.description) == ("Stream the lines of a log.", "It goes on until somebody ends it.")
    assert follow.result == StreamOf(Ref("Entry"))
    assert (follow.streams, follow.idempotent, follow.oneway, follow.sensitive) == (True, True, False, False)
    assert (follow.allowed, follow.rule) == (False, "same_user | root")
    assert follow.errors == (
        Failure(code="logs.NoSuchLog", number=-32000, description="There is no log of that name."),
    )
    name, since = follow.params
    assert (name.name, name.required, name.positional_only, name.keyword_only) == ("name", True, True, False)
    assert (since.required, since.keyword_only, since.has_default, since.default) == (False, True, True, Default())
    assert (opened.sensitive, opened.allowed, opened.rule) == (True, None, "")
    assert opened.result == UnionOf((Descriptor(), Scalar("None")))
    assert opened.params[1].default == Default(value="red")
    assert opened.params[1].schema["default"] == "red"
    assert (rotate.oneway, rotate.result) == (True, None)
    assert vault.result == ObjectOf("Vault")
    assert vault.params[1] == Param(name="whatever", type=Anything(), required=False, annotated=False)
    interface = whole.interfaces["Vault"]
    assert (interface.name, interface.description) == ("Vault", "What was unlocked.")
    assert [one.name for one in interface.methods] == ["Vault.get"]


def test_a_document_comes_through_json() -> None:
    assert read(json.loads(json.dumps(document()))) == read(document())


def test_methods_are_in_alphabetical_order() -> None:
    whole = read(document(methods=list(reversed(document()["methods"]))))
    assert whole.methods == read(document()).methods


def test_a_service_without_methods_is_there_as_well() -> None:
    whole = read(document(methods=[]))
    assert [service.name for service in whole.services] == ["org.example.Logs"]


def bare(schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a document that has nothing but schemas."""
    return document(methods=[], components={"schemas": schemas}, **{OURS: {}})


OTHER: dict[str, Any] = {
    "openrpc": "1.2.6",
    "info": {"title": "Petstore", "version": "1.0.0"},
    "servers": [{"url": "http://localhost:8080"}],
    "methods": [
        {
            "name": "list_pets",
            "summary": "List all pets",
            "tags": [{"name": "pets"}],
            "paramStructure": "by-position",
            "params": [{"$ref": "#/components/contentDescriptors/Limit"}],
            "result": {"name": "pets", "schema": {"$ref": "#/components/schemas/Pets"}},
            "errors": [{"code": 100, "message": "pets busy"}, {"$ref": "#/components/errors/Other"}],
        },
        {"name": "pets.feed", "params": []},
    ],
    "components": {
        "contentDescriptors": {"Limit": {"name": "limit", "schema": {"type": "integer", "minimum": 1}}},
        "schemas": {"Pets": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}},
    },
}


def test_documents_of_other_servers_are_read() -> None:
    whole = read(OTHER)
    assert not whole.of_seqrpc
    assert [service.name for service in whole.services] == ["", "pets"]
    listed, feed = whole.methods
    assert (listed.service, listed.short_name) == ("", "list_pets")
    assert (listed.params[0].name, listed.params[0].required) == ("limit", False)
    assert listed.params[0].positional_only
    assert listed.errors == (Failure(code="pets busy", number=100),)
    assert feed.oneway


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"openrpc": "2.0"}, "openrpc: expected version 1, got '2.0'"),
        ({"openrpc": None}, "openrpc: expected a text, got null"),
        ({"info": []}, "info: expected a map, got a list"),
        ({"methods": None}, "methods: expected a list, got null"),
        ({"methods": [5]}, r"methods\[0\]: expected a map, got a number"),
        ({"methods": [{"params": []}]}, r"methods\[0\]\.name: expected a text, got null"),
        ({"methods": [method("a.b"), method("a.b")]}, r"methods\[1\]: a second method 'a\.b'"),
        ({"methods": [{"name": "a.b"}]}, r"\('a\.b'\)\.params: expected a list, got null"),
        ({"methods": [method("a.b", param("x", {}), param("x", {}))]}, "a second parameter 'x'"),
        ({"methods": [method("a.b", param("x", ref("Nobody")))]}, r"\.x: the document has no schema"),
        ({"methods": [method("a.b", {"$ref": "#/x"})]}, "no content descriptor '#/x'"),
        ({"methods": [method("a.b", paramStructure="any")]}, "expected one of either, by-name, by-position"),
        ({"methods": [method("a.b", paramStructure=[])]}, "expected one of either, by-name, by-position"),
        ({"methods": [method("a.b", **ours(idempotent=1))]}, "idempotent: expected true or false, got a number"),
        ({"methods": [method("a.b", errors={})]}, "errors: expected a list, got a map"),
        ({"methods": [method("a.b", errors=[{**FAILURE, "code": "x"}])]}, "code: expected a number, got a text"),
        ({"methods": [method("x" * 1001)]}, "a text of 1001 characters, where 1000 is the most"),
        ({"components": {"schemas": {"a b": {}}}}, "'a b' is no name of a schema"),
        ({OURS: {"services": [{}]}}, r"services\[0\]\.name: expected a text"),
        ({OURS: {"interfaces": {"A": {"methods": []}}}}, r"interfaces\.A\.name: expected a text"),
        ({OURS: {"interfaces": []}}, "interfaces: expected a map, got a list"),
    ],
)
def test_what_is_no_document_is_told_with_its_path(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DocumentError, match=why) as caught:
        read({**document(methods=[], components={}), OURS: {}, **changes})
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {1: 2}])
def test_what_is_no_map_of_a_document_is_refused(value: Any) -> None:
    with pytest.raises(DocumentError):
        read(value)


@pytest.mark.parametrize(
    "schemas",
    [
        {"A": ref("A")},
        {"A": ref("B"), "B": {"anyOf": [{"type": "null"}, {"allOf": [ref("C")]}]}, "C": ref("A")},
        {"A": {"allOf": [ref("A")], "title": "x"}},
    ],
)
def test_a_name_that_stands_for_itself_is_refused(schemas: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="it stands for itself"):
        read(bare(schemas))


def test_names_may_stand_for_others_and_hold_themselves() -> None:
    schemas = {
        "A": {"anyOf": [ref("B"), ref("C")]},
        "B": ref("C"),
        "C": {"type": "array", "items": ref("A")},
        "D": {"anyOf": [ref("B"), ref("C"), ref("A")]},
    }
    assert set(read(bare(schemas)).schemas) == set(schemas)


def test_a_long_chain_of_names_is_followed_to_its_end() -> None:
    schemas = {f"N{number}": ref(f"N{number + 1}") for number in range(5_000)} | {"N5000": {}}
    assert len(read(bare(schemas)).schemas) == 5_001
    schemas["N5000"] = ref("N0")
    with pytest.raises(DocumentError, match="it stands for itself"):
        read(bare(schemas))


def test_documents_that_say_the_same_are_equal() -> None:
    whole: Document = read(document())
    assert whole == read(document())
    assert whole != read(document(methods=[]))


def test_what_is_read_is_not_read_again() -> None:
    whole = document()
    found = read(whole)
    assert read(found) is found
    assert documents.write_stub(found, "x") == documents.write_stub(whole, "x")
    assert documents.is_current(documents.write_stub(found, "x"), whole)
    assert documents.render(found) == documents.render(whole)
    assert documents.compare(whole, found) == []
    with pytest.raises(AttributeError, match="no attribute 'wirte_stub'"):
        _ = documents.wirte_stub  # type: ignore[attr-defined]
    assert set(documents.__all__) <= set(dir(documents))
