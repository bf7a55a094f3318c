"""What a service is, as data."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Annotated, Any, Literal, Protocol

import msgspec
import pytest

from seqrpc.interface import policy
from seqrpc.interface.annotations import shape_of
from seqrpc.interface.description import MethodDescription, Parameter, ServiceDescription, Value, describe
from seqrpc.interface.functions import Runs
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import Constrained, Stream
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

Short = Annotated[str, msgspec.Meta(max_length=3)]


def value(annotation: Any) -> Value:
    return Value(annotation=annotation, shape=shape_of(annotation))


class Archive(Service, name="org.example.Archive", allow=policy.anyone):
    """Keeps things.

    And gives them back.
    """

    @method
    async def fetch(self, name: Short, /, limit: int = 10, *, parts: list[str] = []) -> OwnedFd | None:  # noqa: B006
        """Return a thing.

        Or nothing.
        """

    @method(oneway=True)
    def tell(self, text: str) -> None:
        pass

    @method(allow=policy.root)
    async def bare(self, a, b=None):  # type: ignore[no-untyped-def]
        return a

    async def hidden(self) -> None:
        pass


def test_a_service_is_described_by_what_is_written_in_its_class() -> None:
    description = describe(Archive)
    assert description == ServiceDescription(
        name="org.example.Archive",
        doc="Keeps things.\n\nAnd gives them back.",
        methods=description.methods,
        policy=policy.anyone,
        bases=(),
    )
    assert list(description.methods) == ["bare", "fetch", "tell"]
    assert description.methods["fetch"] == MethodDescription(
        name="fetch",
        wire_name="org.example.Archive.fetch",
        doc="Return a thing.\n\nOr nothing.",
        parameters=(
            Parameter(
                name="name",
                annotation=Short,
                shape=shape_of(Short),
                default=msgspec.NODEFAULT,
                by_position=True,
                by_name=False,
            ),
            Parameter(name="limit", annotation=int, shape=shape_of(int), default=10, by_position=True, by_name=True),
            Parameter(
                name="parts",
                annotation=list[str],
                shape=shape_of(list[str]),
                default=[],
                by_position=False,
                by_name=True,
            ),
        ),
        result=value(OwnedFd | None),
        runs=Runs.COROUTINE,
        oneway=False,
        idempotent=False,
        allow=None,
    )
    tell, bare = description.methods["tell"], description.methods["bare"]
    assert (tell.oneway, tell.runs, tell.doc, tell.result) == (True, Runs.THREAD, "", value(type(None)))
    assert (bare.allow, bare.result) == (policy.root, Value(annotation=Any, shape=shape_of(Any), is_annotated=False))
    assert [parameter.annotation for parameter in bare.parameters] == [Any, Any]
    assert [parameter.is_required for parameter in bare.parameters] == [True, False]


def test_a_class_is_described_once_and_nobody_changes_that() -> None:
    description = describe(Archive)
    assert describe(Archive) is description
    with pytest.raises(AttributeError):
        description.name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        description.methods["fetch"].parameters[0].default = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        description.methods["more"] = description.methods["fetch"]  # type: ignore[index]


def test_descriptions_are_compared_and_printed() -> None:
    class Twin(Archive, name="org.example.Archive"):
        __doc__ = Archive.__doc__

    assert describe(Twin) is not describe(Archive)
    assert describe(Twin).methods == describe(Archive).methods
    assert describe(Twin) != describe(Archive), "it has a base"
    text = repr(describe(Archive))
    assert "name='org.example.Archive'" in text
    parameter = (
        "Parameter(annotation=<class 'int'>, shape=<Scalar int>, is_annotated=True, name='limit', default=10, by"
    )
    assert parameter in text


def test_the_services_that_one_is_made_of_are_named() -> None:
    class Plain:
        pass

    class Other(Service):
        @method
        async def look(self) -> int:
            return 1

    class Both(Archive, Plain, Other, name="org.example.Both"):
        pass

    description = describe(Both)
    assert description.bases == ("org.example.Archive", "Other")
    assert description.doc == ""
    assert list(description.methods) == ["bare", "fetch", "look", "tell"]
    assert description.methods["look"].wire_name == "org.example.Both.look"
    assert description.policy is policy.anyone


def test_any_class_will_do_and_its_public_functions_are_its_methods() -> None:
    class Interface:
        constant = 5

        async def add(self, a: int) -> int: ...  # type: ignore[empty-body]

        def _private(self) -> None: ...

        @property
        def size(self) -> int:
            return 1

        @staticmethod
        def helper() -> None: ...

    description = describe(Interface)
    assert description.name == "Interface"
    assert description.policy is None
    assert description.bases == ()
    assert list(description.methods) == ["add"]


def test_inherited_methods_are_described_and_none_takes_one_away() -> None:
    class Child(Archive):
        tell = None  # type: ignore[assignment]

        async def bare(self, a: int, b: int = 11) -> int:
            return a

    methods = describe(Child).methods
    assert list(methods) == ["bare", "fetch"]
    assert [parameter.annotation for parameter in methods["bare"].parameters] == [int, int]
    assert methods["bare"].allow is policy.root
    assert methods["fetch"].wire_name == "Child.fetch"


def test_marked_functions_that_are_no_plain_methods_are_a_type_error() -> None:
    class Static(Service):
        pass

    Static.helper = staticmethod(method(_nothing))  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Static\.helper: only plain methods can be called"):
        describe(Static)


async def _nothing() -> None: ...


class Broken:
    """Functions of which there is no description."""

    async def stars(self, a: int, *rest: int) -> None: ...

    async def names(self, **named: int) -> None: ...

    async def unresolved(self, a: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def iterate(self) -> Iterator[int]:
        yield 1

    async def no_self() -> None: ...  # type: ignore[misc]

    async def only_names(*, a: int) -> None: ...  # type: ignore[misc]

    async def only_stars(*args: int) -> None: ...

    async def no_stream(self) -> int:  # type: ignore[misc]
        yield 1


@pytest.mark.parametrize(
    "name, message",
    [
        ("stars", r"parameters have names on the wire; '\*rest' has none: take a list, or a dict"),
        ("names", r"parameters have names on the wire; '\*\*named' has none: take a list, or a dict"),
        ("unresolved", "an annotation cannot be resolved: name 'NoSuchName' is not defined"),
        ("iterate", "a generator that streams is written 'async def'"),
        ("no_self", "the first parameter of a method is its object"),
        ("only_names", "the first parameter of a method is its object"),
        ("only_stars", "the first parameter of a method is its object"),
        ("no_stream", r"the result of a generator is AsyncIterator\[...\], not <class 'int'>"),
    ],
)
def test_what_cannot_be_described_is_a_type_error_that_names_the_method(name: str, message: str) -> None:
    service = type("Wrong", (Service,), {name: method(vars(Broken)[name])})
    with pytest.raises(TypeError, match=rf"^Broken\.{name}: {message}"):
        describe(service)


# Streams, and what values hold


class Streams(Service):
    @method
    async def generator(self) -> AsyncIterator[int]:
        yield 1

    @method
    async def bare_generator(self):  # type: ignore[no-untyped-def]
        yield 1

    @method
    async def full_generator(self) -> AsyncGenerator[Short, None]:
        yield ""

    @method
    def plain(self) -> AsyncIterable[int]: ...  # type: ignore[empty-body]

    @method
    async def awaited(self) -> AsyncIterator[int]: ...  # type: ignore[empty-body]

    @method
    async def takes(self, numbers: AsyncIterator[bytes], buffer: Buffer | None = None) -> Archive: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    "name, runs, streams, item_type",
    [
        ("generator", Runs.GENERATOR, True, int),
        ("bare_generator", Runs.GENERATOR, True, Any),
        ("full_generator", Runs.GENERATOR, True, Short),
        ("plain", Runs.THREAD, True, int),
        ("awaited", Runs.COROUTINE, False, int),
    ],
)
def test_what_gives_a_stream_without_await_is_known(name: str, runs: Runs, streams: bool, item_type: Any) -> None:
    description = describe(Streams).methods[name]
    assert (description.runs, description.streams) == (runs, streams)
    assert description.result.is_stream
    assert description.result.item_type == item_type


def test_what_values_hold_is_known() -> None:
    description = describe(Streams).methods["takes"]
    numbers, buffer = description.parameters
    assert not description.streams
    assert numbers.item_type is bytes
    assert (numbers.is_stream, buffer.is_stream, description.result.is_stream) == (True, False, False)
    assert [one.holds_descriptors for one in (numbers, buffer, description.result)] == [True, True, True]
    assert [one.may_be_large for one in (numbers, buffer, description.result)] == [False, False, False]
    name, limit, parts = describe(Archive).methods["fetch"].parameters
    assert [one.holds_descriptors for one in (name, limit, parts)] == [False, False, False]
    assert [one.may_be_large for one in (name, limit, parts)] == [True, False, True]
    assert parts.shape == shape_of(list[str])
    assert isinstance(name.shape, Constrained)
    assert [meta.max_length for meta in name.shape.metas] == [3]
    assert isinstance(numbers.shape, Stream)
    assert numbers.shape.item == shape_of(bytes)
    with pytest.raises(TypeError, match=r"<class 'int'> is no stream, and has no items"):
        limit.item_type  # noqa: B018


def test_a_stream_that_is_no_stream_on_the_object_itself_is_a_type_error() -> None:
    class Later(Service):
        @method
        def find(self) -> Any: ...

    inspect.unwrap(Later.find).__annotations__["return"] = AsyncIterator[int]  # as if it had only now been resolved
    with pytest.raises(
        TypeError, match=r"Later\.find: it streams, which does not show where it is defined: annotate its result"
    ):
        describe(Later)


@pytest.mark.parametrize("annotated", [True, False])
def test_a_stream_cannot_be_oneway(annotated: bool) -> None:
    class Tells(Service):
        if annotated:

            @method(oneway=True)
            def tell(self) -> AsyncIterator[int]: ...  # type: ignore[empty-body]

        else:

            @method(oneway=True)
            async def tell(self):  # type: ignore[no-untyped-def]
                yield 1

    with pytest.raises(TypeError, match=r"Tells\.tell: a stream is an answer, and oneway methods have none"):
        describe(Tells)


class Oddly(Service):
    """Its methods call their objects as they like."""

    @method
    async def unsaid(this) -> None:  # noqa: N805
        pass

    @method
    async def anything(this: Any) -> None:  # noqa: N805
        pass

    @method
    async def own(this: Oddly) -> None:  # noqa: N805
        pass

    @method
    async def bound(this: HasNoShape) -> None:  # type: ignore[misc]  # noqa: N805
        pass


class HasNoShape:
    def __init__(self, number: int) -> None:
        self.number = number


def test_the_object_of_a_method_may_have_another_name_and_an_annotation() -> None:
    assert [len(one.parameters) for one in describe(Oddly).methods.values()] == [0, 0, 0, 0]


@pytest.mark.parametrize("annotation", [int, "int", "list[str]", "bytes | None"])
def test_a_forgotten_self_is_told(annotation: Any) -> None:
    async def double(number: int, times: int = 1) -> None:
        pass

    double.__annotations__["number"] = annotation
    text = "and this is `number`: write double\\(self, number, times\\)$"
    with pytest.raises(TypeError, match=text):
        describe(type("Selfless", (Service,), {"double": method(double)}))


class Marked(Protocol):
    """An interface whose methods say more of themselves than what they take and give."""

    @method(idempotent=True)
    def look(self) -> int: ...

    @method(idempotent=True)
    def watch(self) -> AsyncIterator[int]: ...

    @method(oneway=True)
    async def tell(self) -> None: ...

    async def change(self) -> None: ...


class Unsaid(Marked):
    """Says nothing more."""

    async def look(self) -> int:
        return 1


class Looks(Service):
    @method(idempotent=True)
    async def coroutine(self) -> int:
        return 1

    @method(idempotent=True)
    def thread(self) -> int:
        return 1

    @method(idempotent=True)
    async def stream(self) -> AsyncIterator[int]:
        yield 1

    @method
    async def change(self) -> None: ...


class Looked(Looks):
    async def coroutine(self) -> int:
        return 2

    @method
    async def thread(self) -> int:
        return 2


def idempotent(cls: type) -> set[str]:
    return {name for name, found in describe(cls).methods.items() if found.idempotent}


def test_what_may_be_called_again_is_marked_in_services_and_in_interfaces() -> None:
    assert idempotent(Looks) == {"coroutine", "thread", "stream"}
    assert idempotent(Looked) == {"coroutine", "stream"}, "the nearest mark holds"
    assert idempotent(Marked) == idempotent(Unsaid) == {"look", "watch"}
    assert [name for name, found in describe(Marked).methods.items() if found.oneway] == ["tell"]


class PlainInterface:
    def count(self, to: int) -> Iterator[int]: ...  # type: ignore[empty-body]
    def total(self, items: Iterator[int]) -> int: ...  # type: ignore[empty-body]
    def words(self) -> Generator[str, None, None]:
        yield ""

    def listed(self, items: Iterable[int]) -> list[int]: ...  # type: ignore[empty-body]


def test_an_interface_of_plain_functions_says_iterator_for_a_stream() -> None:
    methods = describe(PlainInterface).methods
    assert {name for name, method in methods.items() if method.streams} == {"count", "words"}
    assert methods["count"].result.shape == describe(Streams).methods["generator"].result.shape
    assert methods["total"].parameters[0].is_stream
    assert not methods["listed"].parameters[0].is_stream


def test_an_interface_of_plain_functions_says_iterator_within_values_as_well() -> None:
    class Nested:
        @method
        def some(  # type: ignore[empty-body]
            self, few: list[Iterator[int]], noted: Annotated[Iterator[int] | None, "note"], other: Literal["x"]
        ) -> dict[str, Iterator[int] | None]: ...

    class AsServed(Service, name="Nested"):
        @method
        async def some(  # type: ignore[empty-body]
            self, few: list[AsyncIterator[int]], noted: AsyncIterator[int] | None, other: Literal["x"]
        ) -> dict[str, AsyncIterator[int] | None]: ...

    ours, theirs = (describe(cls).methods["some"] for cls in (Nested, AsServed))
    assert [each.shape for each in ours.parameters] == [each.shape for each in theirs.parameters]
    assert ours.result.shape == theirs.result.shape


def test_a_service_does_not() -> None:
    class Iterates(Service):
        @method
        async def total(self, items: Iterator[int]) -> int:
            return sum(items)

    with pytest.raises(TypeError, match="write AsyncIterator"):
        describe(Iterates)
