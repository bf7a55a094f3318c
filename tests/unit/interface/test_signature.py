from __future__ import annotations

import contextlib
import dataclasses
import enum
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.properties import PROPERTY
from support.properties import values as wire_values

from seqrpc.errors import InvalidParams
from seqrpc.interface import policy
from seqrpc.interface.annotations import SENSITIVE
from seqrpc.interface.description import describe
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
from seqrpc.interface.signature import MethodSpec, params_of, spec_of
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Address:
    street: str
    numbers: list[int] = dataclasses.field(default_factory=list)


class Person(msgspec.Struct):
    name: str
    address: Address


@dataclasses.dataclass
class Picky:
    word: str

    def __post_init__(self) -> None:
        raise ValueError(self.word)


@dataclasses.dataclass
class Deep:
    inner: Deep | None


@dataclasses.dataclass
class Deeper:
    inner: Deeper | None
    source: OwnedFd | str = ""


class Nesting(Service):
    @method
    async def deep(self, a: Deep) -> None:
        pass

    @method
    async def deeper(self, a: Deeper) -> None:
        pass


class Everything(Service, name="org.example.Everything", allow=policy.anyone):
    @method
    async def nothing(self) -> None:
        pass

    @method
    async def add(self, a: int, b: int = 10) -> int:
        return a + b

    @method
    async def mixed(self, a: int, /, b: str, *, c: bool, d: float = 0.5) -> None:
        pass

    @method
    async def optional(self, a: int = 1, *, b: int = 2) -> None:
        pass

    @method
    async def invite(self, person: Person, color: Color = Color.RED, tags: list[str] = []) -> None:  # noqa: B006
        pass

    @method
    async def picky(self, what: Picky) -> None:
        pass

    @method
    async def bare(self, a, b=None):  # type: ignore[no-untyped-def]
        pass

    @method(oneway=True)
    def tell(self, text: str) -> None:
        pass

    @method(allow=policy.root)
    async def open(self, fd: OwnedFd) -> OwnedFd:
        return fd

    async def hidden(self) -> None:
        pass


def spec(name: str) -> MethodSpec:
    return spec_of(Everything).methods[name]


def test_a_class_is_made_ready_once_from_its_description() -> None:
    ready = spec_of(Everything)
    assert spec_of(Everything) is ready
    assert ready.description is describe(Everything)
    assert list(ready.methods) == list(describe(Everything).methods)
    assert spec("add").description is describe(Everything).methods["add"]
    assert spec("add").wire_name == "org.example.Everything.add"
    assert spec("add").function is Everything.add
    assert [spec(name).result.kind for name in ("add", "nothing", "bare")] == [int, type(None), Any]
    assert [spec(name).takes_descriptors for name in ("add", "open", "bare")] == [False, True, True]


class Streams(Service):
    @method
    async def gives(self) -> AsyncIterator[int]:
        yield 1

    @method
    async def takes(self, numbers: AsyncIterator[int], buffer: Buffer | None = None) -> Nesting: ...  # type: ignore[empty-body]


def test_what_takes_descriptors_is_known_and_what_only_gives_some_is_not_among_it() -> None:
    assert [spec_of(Streams).methods[name].takes_descriptors for name in ("gives", "takes")] == [False, True]


def test_an_overridden_method_is_bound_by_its_own_annotations() -> None:
    class Child(Everything):
        async def add(self, a: int, b: int = 11) -> int:
            return a

    methods = spec_of(Child).methods
    assert methods["add"].bind([1]) == ((1, 11), {})
    assert methods["open"].wire_name == "Child.open"


@pytest.mark.parametrize(
    "name, params, args, kwargs",
    [
        ("nothing", [], (), {}),
        ("nothing", {}, (), {}),
        ("add", [1, 2], (1, 2), {}),
        ("add", [1], (1, 10), {}),
        ("add", {"b": 2, "a": 1}, (1, 2), {}),
        ("add", {"a": 1}, (1, 10), {}),
        ("mixed", {"a": 1, "b": "x", "c": True}, (1, "x"), {"c": True, "d": 0.5}),
        ("mixed", {"a": 1, "b": "x", "c": True, "d": 2}, (1, "x"), {"c": True, "d": 2.0}),
        ("optional", [], (1,), {}),
        ("optional", [5], (5,), {}),
        ("optional", {"b": 5}, (1,), {"b": 5}),
        ("bare", [{"x": 1}], ({"x": 1}, None), {}),
        (
            "invite",
            [{"name": "n", "address": {"street": "s"}}, "red", ["t"]],
            (Person("n", Address("s")), Color.RED, ["t"]),
            {},
        ),
    ],
)
def test_arguments_are_bound_by_position_and_by_name(
    name: str, params: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert spec(name).bind(params) == (args, kwargs)


class Loose(Service):
    @method
    async def any(self, value: Any, other) -> None: ...  # type: ignore[no-untyped-def]

    @method
    async def some(self, value: Any, number: int) -> None: ...

    @method
    async def named(self, value: Any, *, number: int) -> None: ...


@pytest.mark.parametrize("name, params", [("any", [["x"], {}]), ("some", [["x"], 1]), ("some", [None, 2])])
def test_what_needs_no_conversion_is_bound_as_it_came(name: str, params: list[Any]) -> None:
    args, kwargs = spec_of(Loose).methods[name].bind(params)
    assert kwargs == {}
    assert all(bound is param for bound, param in zip(args, params, strict=True))


@pytest.mark.parametrize(
    "name, params, message",
    [
        ("any", [1], "is missing 1 required argument: 'other'"),
        ("any", [1, 2, 3], "takes 2 arguments by position, and got 3"),
        ("any", {"value": 1}, "is missing 1 required argument: 'other'"),
        ("some", [1], "is missing 1 required argument: 'number'"),
        ("some", [1, 2, 3], "takes 2 arguments by position, and got 3"),
        ("some", [1, True], "Expected `int`, got `bool` - at `number`"),
        ("some", [1, "x"], "Expected `int`, got `str` - at `number`"),
        ("named", [1], "is missing 1 required argument: 'number'"),
        ("named", [1, 2], "takes 1 argument by position, and got 2"),
    ],
)
def test_where_anything_goes_the_others_are_looked_at_all_the_same(name: str, params: Any, message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        spec_of(Loose).methods[name].bind(params)


@pytest.mark.parametrize(
    "name, params, message",
    [
        ("nothing", [1], "takes no arguments by position, and got 1"),
        ("nothing", {"a": 1}, "got an unexpected argument 'a'$"),
        ("add", [], r"a, b=\.\.\.\) is missing 1 required argument: 'a'"),
        ("add", {}, "is missing 1 required argument: 'a'"),
        ("add", {"b": 1}, "is missing 1 required argument: 'a'"),
        ("add", [1, 2, 3], "takes 2 arguments by position, and got 3"),
        ("add", {"a": 1, "c": 2}, r"a, b=\.\.\.\) got an unexpected argument 'c'"),
        ("add", ["x"], "Expected `int`, got `str` - at `a`"),
        ("add", [1, "x"], "Expected `int`, got `str` - at `b`"),
        ("add", {"a": 1, "b": "x"}, "Expected `int`, got `str` - at `b`"),
        ("add", [True], "Expected `int`, got `bool` - at `a`"),
        ("mixed", [1, "x"], r"a, b, \*, c, d=\.\.\.\) is missing 1 required argument: 'c'"),
        ("mixed", [1], "is missing 2 required arguments: 'b', 'c'"),
        ("mixed", [1, "x", True], "takes 2 arguments by position, and got 3"),
        ("optional", [1, 2], "takes 1 argument by position, and got 2"),
        ("invite", [{"name": "n"}], "missing required field `address` - at `person`"),
        ("invite", [{"name": "n", "address": {"street": "s", "numbers": ["x"]}}], r"at `person.address.numbers\[0\]`"),
        ("invite", {"person": {"name": 5, "address": {}}}, "Expected `str`, got `int` - at `person.name`"),
        ("invite", [{"name": "n", "address": {"street": "s"}}, "blue"], "Invalid enum value 'blue' - at `color`"),
        ("open", [3], "Expected a descriptor, got `int` - at `fd`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_method_and_the_path_to_the_field(name: str, params: Any, message: str) -> None:
    with pytest.raises(
        InvalidParams, match=rf"^rpc\.InvalidParams: org\.example\.Everything\.{name}(: |\().*{message}"
    ):
        spec(name).bind(params)


@pytest.mark.parametrize("word", ["`$[99]", "`$[0]", "`$[" + "9" * 5_000, "at `$[7].x`", "`$.", "\0"])
def test_text_of_the_caller_s_that_looks_like_a_path_does_no_harm(word: str) -> None:
    for name, params in (
        ("picky", [{"word": word}]),
        ("picky", {"what": {"word": word}}),
        ("add", {word: 1}),
        ("invite", [{"name": "n", "address": {"street": "s"}}, word]),
    ):
        with pytest.raises(InvalidParams):
            spec(name).bind(params)


@pytest.mark.parametrize("name", ["deep", "deeper"])
def test_arguments_that_are_nested_too_deeply_are_invalid(name: str) -> None:
    nested: dict[str, Any] = {"inner": None}
    for _ in range(50_000):
        nested = {"inner": nested}
    with pytest.raises(InvalidParams, match="nested too deeply"):
        spec_of(Nesting).methods[name].bind([nested])


@given(params=st.lists(wire_values(), max_size=4) | st.dictionaries(st.text(max_size=6), wire_values(), max_size=4))
@PROPERTY
def test_whatever_comes_is_bound_or_invalid(params: list[Any] | dict[str, Any]) -> None:
    for method_spec in spec_of(Everything).methods.values():
        with contextlib.suppress(InvalidParams):
            args, kwargs = method_spec.bind(params)
            assert len(args) + len(kwargs) >= len(params)


def test_calls_in_python_s_own_way_go_by_position_where_that_is_enough() -> None:
    assert spec("add").params((1, 2), {}) == (1, 2)
    assert spec("add").params((1,), {"b": 2}) == {"a": 1, "b": 2}
    assert spec("mixed").params((1, "x"), {"c": True}) == {"a": 1, "b": "x", "c": True}


def test_calls_that_python_would_refuse_are_refused_before_they_are_sent() -> None:
    with pytest.raises(TypeError, match=r"Everything\.add\(.*\) got the argument 'a' twice: by position and by name"):
        spec("add").params((1,), {"a": 2})
    with pytest.raises(TypeError, match=r"Everything\.mixed\(.*\) takes 2 arguments by position, and got 3"):
        spec("mixed").params((1, "x", True), {"d": 2.0})
    with pytest.raises(TypeError, match=r"Everything\.mixed\(.*\) is missing 1 required argument: 'c'"):
        spec("mixed").params((1, "x"), {})
    with pytest.raises(TypeError, match=r"Everything\.add\(.*\) got an unexpected argument 'aa'; did you mean 'a'\?"):
        spec("add").params((), {"a": 1, "aa": 2})


def test_the_thousandth_parameter_is_named_as_the_first_is() -> None:
    names = [f"p{number}" for number in range(1_100)]
    namespace: dict[str, Any] = {}
    exec(f"async def many(self, {': int, '.join(names)}: int) -> None: ...", namespace)
    many = spec_of(type("Many", (Service,), {"many": method(namespace["many"])})).methods["many"]
    numbers: list[Any] = [*range(1_100)]
    assert many.bind(numbers)[0] == tuple(numbers)
    for place in (0, 999, 1_000, 1_099):
        with pytest.raises(InvalidParams, match=f"Expected `int`, got `str` - at `p{place}`"):
            many.bind([*numbers[:place], "x", *numbers[place + 1 :]])
    with pytest.raises(
        InvalidParams, match=r"is missing 100 required arguments: 'p1000', 'p1001', .*, \.\.\.$"
    ) as caught:
        many.bind(numbers[:1_000])
    assert len(caught.value.message) < 400


def test_arguments_of_a_call_by_name_go_by_position_or_by_name() -> None:
    assert params_of("S.m", (), {}) in ((), {})
    assert params_of("S.m", (1, "x"), {}) == (1, "x")
    assert params_of("S.m", (), {"a": 1}) == {"a": 1}
    with pytest.raises(TypeError, match=r"S\.m: arguments go by position or by name, not both"):
        params_of("S.m", (1,), {"a": 1})


class Broken:
    """Functions that cannot be called from elsewhere."""

    async def stars(self, a: int, *rest: int) -> None: ...

    async def names(self, **named: int) -> None: ...

    async def alien(self, a: int, where: socket.socket) -> None: ...

    async def gives_alien(self) -> socket.socket: ...  # type: ignore[empty-body]

    async def unresolved(self, a: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    async def no_attribute(self, a: socket.no_such_thing) -> None: ...  # type: ignore[name-defined]

    async def inner(self, a: Inside) -> None: ...

    async def shadowed(self, a: Shadowing) -> None: ...

    def iterate(self) -> Iterator[int]:
        yield 1

    async def no_self() -> None: ...  # type: ignore[misc]

    async def only_names(*, a: int) -> None: ...  # type: ignore[misc]

    async def only_stars(*args: int) -> None: ...

    async def two(self, a: Address | Person) -> None: ...

    async def either(self, a: Nesting | Everything) -> None: ...

    async def alien_items(self, a: AsyncIterator[socket.socket]) -> None: ...

    async def no_stream(self) -> int:  # type: ignore[misc]
        yield 1

    async def gives_alien_items(self) -> AsyncIterator[socket.socket]:
        yield socket.socket()


@dataclasses.dataclass
class Shadowing:
    """Calls a field as a type is called, with a default: msgspec takes that for the type."""

    items: list[int]
    int: int = 5


@dataclasses.dataclass
class Inside:
    what: NoSuchName  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    "name, message",
    [
        ("stars", r"parameters have names on the wire; '\*rest' has none: take a list, or a dict"),
        ("names", r"parameters have names on the wire; '\*\*named' has none: take a list, or a dict"),
        ("alien", "where: values of type socket cannot be sent"),
        ("gives_alien", "the result: values of type socket cannot be sent"),
        ("unresolved", "an annotation cannot be resolved: name 'NoSuchName' is not defined"),
        ("no_attribute", "an annotation cannot be resolved: .*no_such_thing"),
        ("inner", "a: an annotation of Inside cannot be resolved: name 'NoSuchName' is not defined"),
        ("shadowed", "a: Type '5' is not supported"),
        ("iterate", "a generator that streams is written 'async def'"),
        ("no_self", "the first parameter of a method is its object"),
        ("only_names", "the first parameter of a method is its object"),
        ("only_stars", "the first parameter of a method is its object"),
        ("two", "a: Address and Person cannot be told apart, for both may be a map on the wire: make them msgspec"),
        ("either", "a: a service does not say which of Nesting and Everything it is"),
        ("alien_items", r"a\[\]: values of type socket cannot be sent"),
        ("gives_alien_items", r"the result\[\]: values of type socket cannot be sent"),
        ("no_stream", r"the result of a generator is AsyncIterator\[...\], not <class 'int'>"),
    ],
)
def test_what_cannot_be_served_is_a_type_error_that_names_method_and_parameter(name: str, message: str) -> None:
    service = type("Wrong", (Service,), {name: method(vars(Broken)[name])})
    with pytest.raises(TypeError, match=rf"^Broken\.{name}: {message}"):
        spec_of(service)


class Vault(Service):
    @method
    async def login(
        self,
        user: str,
        password: Annotated[str, SENSITIVE],
        color: Literal["red"] = "red",
        stream: AsyncIterator[Literal["red"]] | None = None,
    ) -> None: ...


@pytest.mark.parametrize(
    "params, told",
    [
        (["me", 7], "Expected `str`, got `int` - at `password`"),
        ({"user": "me", "password": [1]}, "Expected `str`, got `array` - at `password`"),
        (["me", "x", "hunter2"], "`color` does not fit its annotation (more is not told, for it may be sensitive)"),
        ({"user": "me", "password": "x", "hunter2": 1}, None),
        (["me"], None),
    ],
)
def test_what_is_wrong_with_sensitive_arguments_is_told_without_them(params: Any, told: str | None) -> None:
    login = spec_of(Vault).methods["login"]
    assert login.is_sensitive
    assert not login.exact
    with pytest.raises(InvalidParams) as caught:
        login.bind(params)
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}"
    assert told is None or caught.value.message == f"Vault.login: {told}"
    assert login.bind(["me", "hunter2"])[0][:2] == ("me", "hunter2")


def test_a_path_that_leads_nowhere_is_not_told() -> None:
    login = spec_of(Vault).methods["login"]
    assert login._untold("hunter2").startswith("an argument does not fit")
    assert login._untold("x - at `$[hunter2]`").startswith("an argument does not fit")
    assert login._untold("x - at `$[99]`").startswith("an argument does not fit")
    assert login._untold("x - at `$.hunter2`").startswith("an argument does not fit")
    assert login._untold("Expected `int`, got `hunter2` - at `$[0]`").startswith("`user` does not fit")
