"""The classes of which proxies are made, as code."""

from __future__ import annotations

from typing import Any

import pytest
from support.discovered import OURS, document, method, ours, param, ref
from support.stubs import document_with, module_of, stub_of

from seqrpc.documents.clients import clients_of, is_service_name
from seqrpc.documents.model import read
from seqrpc.interface.description import describe

INT, TEXT, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}


def client_in(text: str, name: str) -> str:
    """Return the class of one name."""
    (found,) = [part for part in text.split("\n\n\n") if part.startswith(f"class {name}(")]
    return found.strip()


def one(*params: dict[str, Any], result: Any = NULL, **keys: Any) -> str:
    """Return the class of a service with one method, for callers with a loop."""
    text = stub_of(document_with(method("S.f", *params, result=result, **keys)))
    with module_of(text) as module:
        assert list(describe(module.S).methods) == list(describe(module.BlockingS).methods) == ["f"]
    return client_in(text, "S").partition("\n    ")[2]


@pytest.mark.parametrize(
    "params, written",
    [
        ([], "self"),
        ([param("a", INT)], "self, a: int"),
        ([param("a", INT, positional_only=True)], "self, a: int, /"),
        ([param("a", INT, positional_only=True), param("b", INT)], "self, a: int, /, b: int"),
        ([param("a", INT, positional_only=True), param("b", INT, keyword_only=True)], "self, a: int, /, *, b: int"),
        ([param("a", INT, keyword_only=True), param("b", INT)], "self, *, a: int, b: int"),
        ([param("a", INT), param("b", INT, positional_only=True)], "self, a: int, b: int"),
        ([param("a", {**INT, "default": 1}, required=False)], "self, a: int = 1"),
        ([param("a", {**INT, "default": 1}, required=False), param("b", INT)], "self, a: int = 1, *, b: int"),
        ([param("a", INT, required=False)], "self, a: int = typing.cast(typing.Any, ...)"),
        ([param("self", INT)], "_self, self: int"),
    ],
)
def test_parameters_are_what_they_are_at_the_other_side(params: Any, written: str) -> None:
    assert one(*params) == f"@seqrpc.method\n    async def f({written}) -> None:\n        raise NotImplementedError"


@pytest.mark.parametrize(
    "keys, head",
    [
        ({"result": INT}, "@seqrpc.method\n    async def f(self) -> int:"),
        (ours(idempotent=True), "@seqrpc.method(idempotent=True)\n    async def f(self) -> None:"),
        (ours(oneway=True, idempotent=True), "@seqrpc.method(oneway=True)\n    async def f(self) -> None:"),
        (
            {"result": ours(type="stream", items=INT), **ours(streams=True)},
            "@seqrpc.method\n    def f(self) -> collections.abc.AsyncIterator[int]:",
        ),
        (
            {"result": ours(type="stream", items=INT)},
            "@seqrpc.method\n    async def f(self) -> collections.abc.AsyncIterator[int]:",
        ),
        ({"result": INT, **ours(streams=True)}, "@seqrpc.method\n    async def f(self) -> int:"),
    ],
)
def test_methods_are_called_as_they_are_at_the_other_side(keys: Any, head: str) -> None:
    assert one(**keys).startswith(head)


def test_docstrings_are_those_of_the_document() -> None:
    written = one(summary='Say "it".', description="More.\n    Inside.")
    assert '        """Say "it".\n\n        More.\n            Inside.\n        """\n        raise' in written


def test_classes_are_called_by_their_names_on_the_wire() -> None:
    with module_of(stub_of(document())) as module:
        assert describe(module.Logs).name == describe(module.BlockingLogs).name == "org.example.Logs"
        assert module.Logs.version == "2"
        assert describe(module.Vault).name == "Vault"


def test_those_who_block_have_plain_functions_and_streams_of_theirs() -> None:
    stream = ours(type="stream", items=ref("A"))
    text = stub_of(
        document_with(
            method("S.f", param("a", stream), result=stream, **ours(streams=True, idempotent=True)),
            A={"properties": {}, **ours(type="struct")},
        )
    )
    assert client_in(text, "BlockingS") == (
        'class BlockingS(seqrpc.blocking.Interface, name="S"):\n'
        "    @seqrpc.blocking.method(idempotent=True)\n"
        "    def f(self, a: collections.abc.Iterator[A]) -> seqrpc.blocking.Stream[A]:\n"
        "        raise NotImplementedError"
    )
    with module_of(text) as module:
        described = describe(module.BlockingS).methods["f"]
        assert (described.streams, described.idempotent, described.parameters[0].is_stream) == (True, True, True)


INTERFACE = {"V": {"name": "org.V", "methods": [method("org.V.look", result=TEXT)]}}


def test_objects_are_typed_both_ways() -> None:
    thing = ours(type="object", interface="V")
    text = stub_of(document_with(method("S.f", param("a", thing), result=thing), interfaces=INTERFACE))
    assert "    async def f(self, a: V) -> V:" in client_in(text, "S")
    assert "    def f(self, a: AnyV) -> BlockingV:" in client_in(text, "BlockingS")
    assert text.endswith(
        "if typing.TYPE_CHECKING:\n    AnyV: typing.TypeAlias = typing.Union[V, BlockingV]\nelse:\n    AnyV = V\n"
    )
    with module_of(text) as module:
        assert describe(module.BlockingS).methods["f"].parameters[0].annotation is module.V
        assert describe(module.BlockingS).methods["f"].result.annotation is module.BlockingV


def test_a_service_that_is_given_away_as_well_is_one_class() -> None:
    methods = [method("S.f", result=ours(type="object", interface="S"))]
    whole = document_with(*methods, interfaces={"S": {"name": "S", "methods": methods}})
    assert [client.keys for client in clients_of(read(whole))] == [["S"]]
    other = {"S": {"name": "S", "methods": [*methods, method("S.g")]}}
    text = stub_of(document_with(*methods, interfaces=other))
    assert 'class S(seqrpc.Service, name="S"):' in text
    assert 'class S_2(seqrpc.Service, name="S"):' in text
    assert "    async def f(self) -> S_2:" in client_in(text, "S")


@pytest.mark.parametrize(
    "name", ["class", "a-b", "__x", "close", "lifespan", "service_name", "x" * 80, "", '"', "a\nb"]
)
def test_methods_that_python_cannot_have_are_called_by_name(name: str) -> None:
    text = stub_of(document_with(method(f"S.{name}", result=NULL), method("S.f", result=NULL)))
    assert "    # Python has no way to write this as a method, so call it by its name: 'S." in client_in(text, "S")
    with module_of(text) as module:
        assert list(describe(module.S).methods) == list(describe(module.BlockingS).methods) == ["f"]


@pytest.mark.parametrize("name", ["class", "__x", "a b", "_self"])
def test_nor_can_it_have_parameters_of_any_name(name: str) -> None:
    text = stub_of(document_with(method("S.f", param(name, INT), result=NULL)))
    with module_of(text) as module:
        assert not describe(module.S).methods


def test_a_service_without_a_method_that_can_be_written_is_a_class() -> None:
    text = stub_of(document_with(method("S.class")))
    assert client_in(text, "S").endswith("\n    pass")
    described = {OURS: {"services": [{"name": "S", "description": "All."}]}}
    text = stub_of({**document_with(), **described})
    assert client_in(text, "S") == 'class S(seqrpc.Service, name="S"):\n    """All."""'


@pytest.mark.parametrize("name", ["", ".a", "a.", "rpc", "rpc.a"])
def test_what_cannot_be_the_name_of_a_service_has_no_class(name: str) -> None:
    assert not is_service_name(name)
    text = stub_of(document_with(method(f"{name}.f" if name else "f", result=NULL)))
    assert "class" not in text
    assert text.count("so call it by its name") == 1
    with module_of(text):
        pass


def test_a_method_that_is_called_like_a_type_hides_nothing() -> None:
    many = {"type": "array", "items": ref("Entry")}
    whole = document_with(
        *(method(f"S.{name}", result=many) for name in ("list", "Entry", "seqrpc", "f")),
        Entry={"properties": {}, **ours(type="struct")},
    )
    text = stub_of(whole)
    assert "    @_seqrpc.method\n    async def f(self) -> builtins.list[_Entry]:" in text
    with module_of(text) as module:
        assert set(describe(module.S).methods) == {"list", "Entry", "seqrpc", "f"}
