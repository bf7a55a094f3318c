"""What services are, as a document: what stands where, for whom, and that it is valid OpenRPC."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pytest
from support.documents import check_document
from support.matrix import CONTAINERS, INNERS, LEAVES, Json, Tree

from seqrpc.errors import RpcError
from seqrpc.interface import policy
from seqrpc.interface.description import describe
from seqrpc.interface.methods import method
from seqrpc.interface.openrpc import document_of
from seqrpc.interface.service import Service
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd

T = TypeVar("T")

NAMES = (Json, Tree)  # where the functions are that have them in their annotations, as text

VISITOR = Credentials(pid=1, uid=1000, gid=1000)
ROOT = Credentials(pid=1, uid=0, gid=0)


class Token(Service):
    """May be looked at."""

    @method
    async def look(self) -> str:
        raise NotImplementedError

    @method(allow=policy.hidden(policy.root))
    async def open(self) -> Token:
        raise NotImplementedError


class Logs(Service, name="org.example.Logs", allow=policy.anyone):
    """Keeps logs.

    All of them.
    """

    version = "1.2"

    @method(idempotent=True)
    async def read(self, name: str, /, limit: int = 10) -> OwnedFd:
        """Open a log,
        and give it away.

        Its position is shared.
        """
        raise NotImplementedError

    @method(allow=policy.root)
    async def follow(self, *, names: list[str] = []) -> AsyncIterator[str]:  # noqa: B006
        yield ""

    @method(oneway=True)
    def note(self, text): ...  # type: ignore[no-untyped-def]

    @method
    async def token(self) -> Token:
        raise NotImplementedError


class Secret(Service, allow=policy.hidden(policy.uid(0))):
    """Is nobody's business."""

    @method
    async def tell(self) -> Secrets:
        raise NotImplementedError


class Secrets(Service):
    @method
    async def more(self) -> None: ...


class Store(Service, Generic[T]):
    @method
    async def get(self) -> T:
        raise NotImplementedError


class Broken(Service):
    @method
    async def work(self, number: complex) -> None: ...


def methods_of(document: dict[str, Any]) -> dict[str, Any]:
    return {method["name"]: method for method in document["methods"]}


def test_a_document_says_what_it_is_and_of_what() -> None:
    document = document_of([Logs])
    check_document(document)
    assert list(document) == ["openrpc", "info", "methods", "components", "x-seqrpc"]
    assert document["openrpc"] == "1.3.2"
    assert document["info"] == {
        "title": "org.example.Logs",
        "version": "1.2",
        "description": "Keeps logs.\n\nAll of them.",
    }
    assert document["x-seqrpc"]["services"] == [
        {"name": "org.example.Logs", "description": "Keeps logs.\n\nAll of them.", "bases": []}
    ]


def test_methods_are_there_in_alphabetical_order_with_what_is_known_of_them() -> None:
    document = document_of(Logs)
    assert [one["name"].rpartition(".")[2] for one in document["methods"]] == ["follow", "note", "read", "token"]
    methods = methods_of(document)
    assert methods["org.example.Logs.read"] == {
        "name": "org.example.Logs.read",
        "summary": "Open a log, and give it away.",
        "description": "Its position is shared.",
        "paramStructure": "by-position",
        "params": [
            {
                "name": "name",
                "required": True,
                "schema": {"type": "string"},
                "x-seqrpc": {"positional_only": True},
            },
            {"name": "limit", "schema": {"type": "integer", "default": 10}},
        ],
        "result": {"name": "result", "schema": {"x-seqrpc": {"type": "descriptor"}}},
        "x-seqrpc": {"idempotent": True, "rule": "anyone"},
    }
    assert methods["org.example.Logs.follow"] == {
        "name": "org.example.Logs.follow",
        "paramStructure": "by-name",
        "params": [
            {
                "name": "names",
                "schema": {"type": "array", "items": {"type": "string"}, "default": []},
                "x-seqrpc": {"keyword_only": True},
            }
        ],
        "result": {"name": "result", "schema": {"x-seqrpc": {"type": "stream", "items": {"type": "string"}}}},
        "x-seqrpc": {"streams": True, "rule": "uid(0)"},
    }
    assert methods["org.example.Logs.note"] == {
        "name": "org.example.Logs.note",
        "params": [{"name": "text", "required": True, "schema": {}}],
        "x-seqrpc": {"oneway": True, "rule": "anyone", "unannotated": ["text", "return"]},
    }


def test_several_services_are_in_one_document() -> None:
    class Other(Service):
        version = "3"

        @method
        async def work(self) -> None: ...

    class Third(Logs):
        """Of the same version."""

    document = document_of([Third(), Other, Logs], allow=policy.same_user)
    check_document(document)
    assert document["info"]["title"] == "Other, Third, org.example.Logs"
    assert document["info"]["version"] == "3, 1.2"
    assert document["info"]["description"] == "Of the same version.\n\nKeeps logs.\n\nAll of them."
    assert [service["name"] for service in document["x-seqrpc"]["services"]] == ["Other", "Third", "org.example.Logs"]
    assert document["x-seqrpc"]["services"][1]["bases"] == ["org.example.Logs"]
    assert methods_of(document)["Other.work"]["x-seqrpc"]["rule"] == "same_user"
    assert document_of([Logs], title="Mine")["info"]["title"] == "Mine"


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two services are named 'Token'"):
        document_of([Token, Token])


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a service or a class was expected, got 5"):
        document_of([5])


def test_a_version_that_is_no_text_is_none() -> None:
    class Versioned(Service):
        @method
        async def version(self) -> str:
            raise NotImplementedError

    assert document_of(Versioned)["info"] == {"title": "Versioned", "version": "0"}


def test_objects_as_values_have_their_interface_once() -> None:
    class Desk(Service):
        @method
        async def one(self) -> Token:
            raise NotImplementedError

        @method
        async def many(self) -> list[Token]:
            raise NotImplementedError

    document = document_of(Desk)
    check_document(document)
    (interface,) = document["x-seqrpc"]["interfaces"].values()
    assert (interface["name"], interface["description"]) == ("Token", "May be looked at.")
    assert [one["name"] for one in interface["methods"]] == ["Token.look", "Token.open"]
    assert "rule" not in interface["methods"][0]["x-seqrpc"]
    assert interface["methods"][1]["x-seqrpc"]["rule"] == "hidden(uid(0))"
    reference = {"x-seqrpc": {"type": "object", "interface": "Token"}}
    assert methods_of(document)["Desk.one"]["result"]["schema"] == reference


def test_interfaces_of_one_name_are_told_apart() -> None:
    class Desk(Service):
        @method
        async def a(self) -> Store[int]:
            raise NotImplementedError

        @method
        async def b(self) -> Store[str]:
            raise NotImplementedError

    document = document_of(Desk)
    check_document(document)
    interfaces = document["x-seqrpc"]["interfaces"]
    assert list(interfaces) == ["Store", "Store_2"]
    assert {interface["name"] for interface in interfaces.values()} == {"Store"}
    results = [interface["methods"][0]["result"]["schema"]["type"] for interface in interfaces.values()]
    assert results == ["integer", "string"]


def test_an_object_that_cannot_be_called_has_no_methods(caplog: pytest.LogCaptureFixture) -> None:
    class Desk(Service):
        @method
        async def get(self) -> Broken:
            raise NotImplementedError

    document = document_of(Desk)
    check_document(document)
    assert document["x-seqrpc"]["interfaces"] == {"Broken": {"name": "Broken", "methods": []}}
    assert "objects of Broken cannot be called" in caplog.text


class Insufficient(RpcError, code="described.InsufficientFunds"):
    """There is too little."""


class Blocked(RpcError, code="described.Blocked"):
    pass


class Base(Service):
    @method(errors=[Insufficient])
    async def pay(self) -> None: ...


class Bank(Base):
    @method(errors=[Blocked, Insufficient])
    async def draw(self) -> None: ...

    async def pay(self) -> None: ...


def test_errors_have_numbers_in_the_order_of_their_codes() -> None:
    document = document_of(Bank)
    check_document(document)
    insufficient = {
        "code": -32001,
        "message": "described.InsufficientFunds",
        "data": {"description": "There is too little."},
    }
    assert methods_of(document)["Bank.draw"]["errors"] == [
        {"code": -32000, "message": "described.Blocked"},
        insufficient,
    ]
    assert methods_of(document)["Bank.pay"]["errors"] == [insufficient]


def test_whoever_asks_learns_what_they_may_call() -> None:
    mine, others = document_of(Logs, caller=ROOT), document_of(Logs, caller=VISITOR)
    check_document(mine)
    check_document(others)
    assert [one["x-seqrpc"]["allowed"] for one in mine["methods"]] == [True, True, True, True]
    assert [one["x-seqrpc"]["allowed"] for one in others["methods"]] == [False, True, True, True]
    assert {one["x-seqrpc"]["rule"] for one in others["methods"]} == {"anyone", "uid(0)"}


def test_what_is_hidden_is_told_to_those_who_may_call_it_only() -> None:
    mine, others = document_of([Logs, Secret], caller=ROOT), document_of([Logs, Secret], caller=VISITOR)
    check_document(mine)
    check_document(others)
    assert "Secret.tell" in methods_of(mine)
    assert set(mine["x-seqrpc"]["interfaces"]) == {"Secrets", "Token"}
    assert "Token.open" in json.dumps(mine)
    told = json.dumps(others)
    assert "ecret" not in told
    assert "hidden" not in told
    assert "Token.open" not in told
    assert "nobody's business" not in told


class Hermit(Service, allow=policy.hidden(policy.root)):
    """Lives alone."""

    @method
    async def speak(self) -> None: ...


class Open(Secret, allow=policy.anyone):
    @method
    async def meet(self) -> Hermit:
        raise NotImplementedError


def test_what_others_are_made_of_may_be_hidden_too() -> None:
    mine, others = document_of([Open, Secret], caller=ROOT), document_of([Open, Secret], caller=VISITOR)
    check_document(mine)
    check_document(others)
    assert mine["x-seqrpc"]["services"][0] == {"name": "Open", "bases": ["Secret"]}
    assert others["x-seqrpc"]["services"] == [{"name": "Open", "bases": []}]
    assert document_of([Open], caller=VISITOR)["x-seqrpc"]["services"] == [{"name": "Open", "bases": []}]
    assert mine["x-seqrpc"]["interfaces"]["Hermit"]["description"] == "Lives alone."
    assert others["x-seqrpc"]["interfaces"]["Hermit"] == {"name": "Hermit", "methods": []}


def test_everything_is_there_if_nobody_in_particular_asks() -> None:
    document = document_of([Logs, Secret])
    assert methods_of(document)["Secret.tell"]["x-seqrpc"] == {"rule": "hidden(uid(0))"}


def test_a_rule_with_an_address_in_it_is_told_without() -> None:
    class Odd:
        def __call__(self, caller: Credentials) -> bool:
            return True

    assert "0x" not in json.dumps(document_of(Token, allow=functools.partial(Odd())))


def test_interfaces_of_plain_functions_have_documents() -> None:
    class Face(Protocol):
        """What others see."""

        def count(self, to: int) -> Iterator[int]: ...

    document = document_of(Face)
    check_document(document)
    assert document["x-seqrpc"]["services"] == [{"name": "Face", "description": "What others see.", "bases": []}]
    assert methods_of(document)["Face.count"]["x-seqrpc"] == {"streams": True}


def accepted() -> Iterator[tuple[str, Any]]:
    for name, annotation, value in LEAVES:
        if value is not None or annotation is None:
            yield name, annotation
    for container in CONTAINERS:
        for inner in INNERS:
            yield f"{container.name} with {inner.name}", container.annotate(inner.annotation)


def taker(annotation: Any) -> type[Service]:
    async def take(self: Any, value: Any, other: Any = None) -> Any:
        raise NotImplementedError

    async def stream(self: Any) -> Any:
        yield

    take.__annotations__ = {"value": annotation, "other": annotation, "return": annotation}
    stream.__annotations__ = {"return": AsyncIterator[annotation]}
    return type("Taker", (Service,), {"take": method(take), "stream": method(stream)})


def test_every_annotation_that_is_taken_has_a_schema() -> None:
    documents, refused = 0, 0
    for name, annotation in accepted():
        service = taker(annotation)
        try:
            describe(service)
        except TypeError:
            refused += 1
            continue
        document = document_of(service)
        try:
            check_document(document)
        except AssertionError as exc:
            raise AssertionError(f"{name}: {exc}") from exc
        (stream, take) = document["methods"]
        assert take["params"][0]["schema"] == take["result"]["schema"]
        assert stream["result"]["schema"]["x-seqrpc"]["items"] == take["result"]["schema"]
        assert document_of(service) == document
        documents += 1
    assert documents > 150
    assert refused < 20


WRITE = """
import json, sys
sys.path.insert(0, "tests")
from seqrpc.interface.openrpc import document_of
from support.matrix import LEAVES, CONTAINERS, PLAIN
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
made = {}
for name, annotation, value in [*LEAVES, *((one.name, one.annotate(PLAIN.annotation), 1) for one in CONTAINERS)]:
    async def take(self, value=frozenset("abcdef")): ...
    take.__annotations__ = {"value": annotation}
    try:
        made[name] = document_of(type("Taker", (Service,), {"take": method(take)}))
    except TypeError:
        pass
print(json.dumps(made))
"""


def test_a_document_is_the_same_in_each_process() -> None:
    written = {
        subprocess.run(
            [sys.executable, "-c", WRITE],
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(written) == 1
    assert len(json.loads(written.pop())) > 60
