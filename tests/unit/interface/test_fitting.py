"""A service and what it is made of."""

from __future__ import annotations

import abc
import types
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any, Protocol, TypeVar, overload

import pytest

from seqrpc.interface.fitting import check_bases, misfits
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
from seqrpc.interface.signature import spec_of


async def base(self: Any, a: int, b: int = 1, *, c: int = 2) -> int:
    return a


async def base_stream(self: Any, a: int) -> AsyncIterator[int]:
    yield a


def declared_stream(self: Any, a: int) -> AsyncIterator[int]: ...  # type: ignore[empty-body]


def plain(self: Any, a: int, b: int = 1, *, c: int = 2) -> int:
    return a


async def more(self: Any, a: int, b: int = 1, more: int = 3, *, c: int = 2, yet: int = 4) -> int:
    return a


async def both_ways(self: Any, a: int, b: int = 1, c: int = 2) -> int:
    return a


async def renamed(self: Any, x: int, b: int = 1, *, c: int = 2) -> int:
    return x


async def swapped(self: Any, b: int, a: int = 1, *, c: int = 2) -> int:
    return a


async def lacks_a_name(self: Any, a: int, b: int = 1) -> int:
    return a


async def required(self: Any, a: int, b: int, *, c: int = 2) -> int:
    return a


async def required_name(self: Any, a: int, b: int = 1, *, c: int = 2, more: int) -> int:
    return a


async def only_by_position(self: Any, a: int, /, b: int = 1, *, c: int = 2) -> int:
    return a


async def only_by_name(self: Any, a: int, *, b: int = 1, c: int = 2) -> int:
    return a


def copy_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of its own, since a mark is on the function."""
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(function.__code__, globals(), None, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    return copy


def class_of(name: str, bases: tuple[type, ...], function: Callable[..., Any]) -> type:
    return types.new_class(name, bases, {}, lambda namespace: namespace.update(call=function))


def service(function: Callable[..., Any], *, oneway: bool = False) -> type:
    return class_of("Base", (Service,), method(oneway=oneway)(copy_of(function)))


def protocol(function: Callable[..., Any]) -> type:
    return class_of("Base", (Protocol,), function)


def interface(function: Callable[..., Any]) -> type:
    return class_of("Base", (), function)


KINDS = pytest.mark.parametrize("kind", [service, protocol, interface])


def made(base: type, function: Callable[..., Any], *, oneway: bool = False) -> type[Service]:
    bases = (base,) if issubclass(base, Service) else (Service, base)
    return class_of("Own", bases, method(oneway=oneway)(copy_of(function)))


@KINDS
@pytest.mark.parametrize("function", [base, plain, more, both_ways])
def test_what_takes_the_calls_of_its_base_fits(kind: Callable[..., type], function: Callable[..., Any]) -> None:
    check_bases(made(kind(base), function))


@KINDS
@pytest.mark.parametrize("declared", [base_stream, declared_stream])
def test_a_stream_fits_a_stream(kind: Callable[..., type], declared: Callable[..., Any]) -> None:
    check_bases(made(kind(declared), base_stream))
    check_bases(made(kind(declared), declared_stream))


@KINDS
@pytest.mark.parametrize(
    "function, why",
    [
        (renamed, "it has no parameter `a`"),
        (lacks_a_name, "it has no parameter `c`"),
        (swapped, "its parameter `a` is not the first by position"),
        (only_by_name, "its parameter `b` is not the second by position"),
        (only_by_position, "its parameter `a` is not taken by name"),
        (required, "its parameter `b` has to be given"),
        (required_name, "its parameter `more` has to be given, and that one has none of the name"),
        (base_stream, "it streams, and that one gives one answer"),
    ],
)
def test_what_does_not_take_them_is_a_type_error_that_names_both(
    kind: Callable[..., type], function: Callable[..., Any], why: str
) -> None:
    with pytest.raises(TypeError, match=rf"^Own\.call does not fit Base\.call: {why}$"):
        spec_of(made(kind(base), function))


@KINDS
def test_what_gives_one_answer_is_no_stream(kind: Callable[..., type]) -> None:
    with pytest.raises(TypeError, match=r"it gives one answer, and that one streams$"):
        check_bases(made(kind(base_stream), base))


async def awaited_stream(self: Any, a: int) -> AsyncIterator[int]: ...  # type: ignore[empty-body]


@KINDS
def test_a_stub_without_a_yield_is_told_how_a_stream_is_declared(kind: Callable[..., type]) -> None:
    check_bases(made(kind(awaited_stream), awaited_stream))
    with pytest.raises(TypeError, match=r"that one is awaited for its stream; without a yield 'def' declares one"):
        check_bases(made(kind(awaited_stream), base_stream))
    with pytest.raises(TypeError, match=r"it gives one answer, and that one streams$"):
        check_bases(made(kind(base_stream), awaited_stream))


async def nothing(self: Any) -> None: ...


def test_what_is_called_one_way_is_so_in_all_services_but_an_interface_cannot_say_it() -> None:
    check_bases(made(service(nothing, oneway=True), nothing, oneway=True))
    check_bases(made(protocol(nothing), nothing, oneway=True))
    with pytest.raises(TypeError, match=r"it gives one answer, and that one is one-way$"):
        check_bases(made(service(nothing, oneway=True), nothing))
    with pytest.raises(TypeError, match=r"it is one-way, and that one gives one answer$"):
        check_bases(made(service(nothing), nothing, oneway=True))


def test_what_may_be_called_again_may_be_so_in_what_is_made_of_it() -> None:
    again = method(idempotent=True)
    for bases in ((), (Service,), (Protocol,)):
        marked = class_of("Base", bases, again(copy_of(nothing)))
        own = (marked,) if Service in bases else (Service, marked)
        check_bases(class_of("Own", own, again(copy_of(nothing))))
        check_bases(class_of("Own", own, copy_of(nothing))) if Service in bases else None
        with pytest.raises(TypeError, match=r"that one is idempotent=True, and it is not$"):
            check_bases(class_of("Own", own, method(copy_of(nothing))))
    check_bases(class_of("Own", (service(nothing),), again(copy_of(nothing))))


def test_an_interface_that_says_that_a_method_is_one_way_is_believed() -> None:
    tells = interface(method(oneway=True)(copy_of(nothing)))
    check_bases(made(tells, nothing, oneway=True))
    with pytest.raises(TypeError, match=r"it gives one answer, and that one is one-way$"):
        check_bases(made(tells, nothing))


def test_of_many_parameters_each_has_its_place() -> None:
    with pytest.raises(TypeError, match=r"its parameter `d` is not the 4th by position$"):
        check_bases(made(interface(in_order), last_swapped))


async def in_order(self: Any, a: int, b: int, c: int, d: int) -> None: ...


async def last_swapped(self: Any, a: int, b: int, c: int, *, d: int) -> None: ...


def test_all_bases_count_and_the_nearest_first() -> None:
    class First(Service):
        @method
        async def call(self, a: int) -> int:
            return a

    class Second(First):
        @method
        async def call(self, a: int, b: int = 1) -> int:
            return a

    class Third(Second):
        pass

    check_bases(Third)
    with pytest.raises(TypeError, match=r"^Own\.call does not fit .*Second\.call: it has no parameter `b`$"):
        check_bases(made(Third, base_less))


async def base_less(self: Any, a: int) -> int:
    return a


class Declares(Protocol):
    constant: int

    async def call(self, a: int) -> int: ...

    async def other(self) -> int: ...

    async def _private(self) -> int: ...


class Abstract(abc.ABC):
    @abc.abstractmethod
    async def call(self, a: int) -> int: ...

    async def ready(self) -> int:
        return 1


def test_what_an_interface_declares_has_to_be_served() -> None:
    class Unmarked(Service, Declares):
        constant = 1

        async def call(self, a: int) -> int:
            return a

        async def other(self) -> int:
            return 1

    class Missing(Service, Declares):
        constant = 1

        @method
        async def call(self, a: int) -> int:
            return a

    class Half(abc.ABC):
        @abc.abstractmethod
        async def call(self, a: int) -> int: ...

        @abc.abstractmethod
        async def other(self) -> int: ...

    class OfAbstract(Service, Half):
        async def call(self, a: int) -> int:
            return a

        @method
        async def other(self) -> int:
            return 1

    with pytest.raises(
        TypeError, match=r"Unmarked\.call is not served, and Declares declares it: mark it with @seqrpc\.method$"
    ):
        spec_of(Unmarked)
    with pytest.raises(
        TypeError, match=r"Missing\.other is missing, and Declares declares it: write it, with @seqrpc\.method$"
    ):
        spec_of(Missing)
    with pytest.raises(TypeError, match=r"OfAbstract\.call is not served, and .*Half declares it"):
        spec_of(OfAbstract)


def test_what_others_have_besides_need_not_be_served() -> None:
    class Helper:
        def help(self, *how: int) -> None: ...

        def call(self, *how: int) -> None: ...

    class Base(Service, abc.ABC):
        @abc.abstractmethod
        def read(self) -> bytes: ...

    class Own(Base, Helper, Abstract):
        def read(self) -> bytes:
            return b""

        @method
        async def call(self, a: int) -> int:  # type: ignore[override]
            return a

    assert list(spec_of(Own).methods) == ["call"]


def test_an_interface_that_cannot_be_called_is_told() -> None:
    class Stars(Protocol):
        async def call(self, *stars: int) -> int: ...

    with pytest.raises(TypeError, match=r"Stars\.call: parameters have names on the wire"):
        check_bases(made(Stars, base))


def test_a_class_that_serves_a_method_no_longer_need_not_fit() -> None:
    nobody = type("Second", (service(renamed),), {"call": None})
    assert list(spec_of(nobody).methods) == []


class Wide(Service):
    @method
    async def put(self, value: int | str) -> int | None: ...

    @method
    async def any(self, value: Any) -> Any: ...


def test_a_parameter_takes_what_that_of_the_base_does_and_a_result_gives_nothing_else() -> None:
    class Fits(Wide):
        @method
        async def put(self, value: int | str | list[int]) -> int: ...  # type: ignore[empty-body]

        @method
        async def any(self, value: int) -> int: ...  # type: ignore[empty-body]

    class Narrow(Wide):
        @method
        async def put(self, value: int) -> int: ...  # type: ignore[empty-body, override]

    class Gives(Wide):
        @method
        async def put(self, value: int | str) -> str: ...  # type: ignore[empty-body, override]

    check_bases(Fits)
    with pytest.raises(
        TypeError, match=r"Narrow\.put does not fit Wide\.put: its parameter `value` does not take a string"
    ):
        check_bases(Narrow)
    with pytest.raises(
        TypeError, match=r"Gives\.put does not fit Wide\.put: its result may be a string, and that of that one"
    ):
        check_bases(Gives)


K = TypeVar("K", bound=int | str)
Odd_contra = TypeVar("Odd_contra", bound=Hashable, contravariant=True)


class Keyed(Protocol[K]):
    async def get(self, key: K) -> list[K]: ...


class Hashed(Protocol[Odd_contra]):
    async def get(self, key: Odd_contra) -> int: ...


class Positional(Protocol):
    async def get(self, key: int, /) -> int: ...


class Closing(Protocol):
    async def close(self) -> None: ...

    async def get(self, key: int) -> int: ...


class Helped(Protocol):
    async def get(self, key: int) -> int: ...

    def twice(self, key: int) -> int:
        return 2 * key


class Overloaded(Protocol):
    @overload
    async def get(self, key: int) -> int: ...
    @overload
    async def get(self, key: str) -> str: ...


class Ticking(abc.ABC):
    @abc.abstractmethod
    def tick(self) -> None: ...


def test_right_services_are_not_refused() -> None:
    class OfNumbers(Service, Keyed[int]):
        @method
        async def get(self, key: int) -> list[int]:
            return [key]

    class Named(Service, Hashed[int], Positional):
        @method
        async def get(self, other: int) -> int:
            return other

    class Closes(Service, Closing):
        @method
        async def get(self, key: int) -> int:
            return key

        async def close(self) -> None: ...

    class Helps(Service, Helped):
        @method
        async def get(self, key: int) -> int:
            return self.twice(key)

    class Overloads(Service, Overloaded):
        @method
        async def get(self, key: Any) -> Any:
            return key

    class Ticks(Service, Ticking):
        """Its ABC is for use in the program alone."""

        @method
        async def get(self) -> int:
            return 1

        def tick(self) -> None: ...

    for cls in (OfNumbers, Named, Closes, Helps, Overloads, Ticks):
        check_bases(cls)


class Unrelated:
    """An interface that nothing here derives from."""

    async def get(self, key: str) -> bytes: ...  # type: ignore[empty-body]

    async def put(self, key: str, value: bytes) -> None: ...


def test_a_class_is_compared_with_one_that_it_does_not_derive_from() -> None:
    class Fits(Service):
        @method
        async def get(self, key: str | int, times: int = 1) -> bytes:
            return b""

        @method
        def put(self, key: str, value: bytes) -> None: ...

        @method
        async def more(self) -> None: ...

    class Misfits(Service):
        @method
        async def get(self, name: str) -> bytes:
            return b""

        async def put(self, key: str, value: bytes) -> None: ...

    class Fake:
        async def get(self, key: str) -> str:
            return ""

    assert misfits(Fits, Unrelated) == []
    assert misfits(Misfits, Unrelated) == [
        "get: it has no parameter `key`",
        "put: it is not served: mark it with @seqrpc.method",
    ]
    assert misfits(Fake, Unrelated) == [
        "get: its result may be a string, and that of that one not",
        "put: it is missing",
    ]
    assert misfits(Unrelated, Fits) == [
        "get: its parameter `key` does not take an integer, and that of that one does",
        "more: it is missing",
    ]


def test_one_way_methods_are_compared_where_both_are_services() -> None:
    class OneWay(Service):
        @method(oneway=True)
        async def tell(self, text: str) -> None: ...

    class Answered(Service):
        @method
        async def tell(self, text: str) -> None: ...

    class Plain:
        async def tell(self, text: str) -> None: ...

    assert misfits(Answered, OneWay) == ["tell: it gives one answer, and that one is one-way"]
    assert misfits(OneWay, Plain) == misfits(Plain, OneWay) == []

    class Again(Service):
        @method(idempotent=True)
        async def tell(self, text: str) -> None: ...

    assert misfits(Answered, Again) == ["tell: that one is idempotent=True, and it is not"]
    assert misfits(Plain, Again) == []
