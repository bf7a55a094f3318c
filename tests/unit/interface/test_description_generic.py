"""Annotations of services that are generic, inherit or override."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any, Generic, Self, TypeVar

import pytest
from support.annotations import Point
from support.sources import module_of

from seqrpc.interface.contents import spelling
from seqrpc.interface.description import describe
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import ServiceObject
from seqrpc.interface.signature import spec_of

T = TypeVar("T")
K = TypeVar("K")


class Store(Service, Generic[T]):
    @method
    async def put(self, item: T, *, twice: bool = False) -> list[T]: ...  # type: ignore[empty-body]

    @method
    async def watch(self, items: AsyncIterator[T]) -> AsyncIterator[dict[str, T]]:
        yield {}

    @method
    async def same(self) -> Self: ...  # type: ignore[empty-body]

    @method
    async def other(self, store: Store[int]) -> Store[T]: ...  # type: ignore[empty-body]


class Points(Store[Point]):
    @method
    async def first(self) -> Self | None: ...


class Lists(Store[list[T]], Generic[T]):
    pass


class Numbers(Lists[int]):
    pass


class Keyed(Service, Generic[K]):
    @method
    async def key(self, key: K) -> None: ...


class Both(Numbers, Keyed[str]):
    async def put(self, item, *, twice=True):  # type: ignore[no-untyped-def]
        return [item, twice]


class Partly(Points):
    @method
    async def put(self, item, extra: int = 1, *, twice=False) -> Any:  # type: ignore[no-untyped-def]
        return [item, extra, twice]


def told(cls: Any, name: str) -> tuple[list[Any], Any]:
    description = describe(cls).methods[name]
    return [spelling(one.shape) for one in description.parameters], spelling(description.result.shape)


@pytest.mark.parametrize(
    "cls, item",
    [
        (Store, Any),
        (Store[Point], Point),
        (Points, Point),
        (Lists[str], list[str]),
        (Numbers, list[int]),
        (Both, list[int]),
    ],
)
def test_type_variables_mean_what_they_are_bound_to(cls: Any, item: Any) -> None:
    assert told(cls, "put")[0] == [item, bool]
    assert told(cls, "put")[1] == list[item]
    assert told(cls, "watch") == ([AsyncIterator[item]], AsyncIterator[dict[str, item]])
    assert told(cls, "other") == ([Store[int]], Store[item])
    assert describe(cls).methods["watch"].result.item_type == dict[str, item]


def test_self_is_the_class_that_is_described() -> None:
    for cls in (Store, Store[int], Points, Lists[str], Both):
        assert told(cls, "same")[1] == cls
        assert isinstance(describe(cls).methods["same"].result.shape, ServiceObject)
    assert told(Points, "first")[1] == Points | None
    assert told(Partly, "first")[1] == Partly | None


def test_what_an_override_does_not_say_its_base_says() -> None:
    assert told(Both, "key") == ([str], type(None))
    assert told(Partly, "put") == ([Point, int, bool], Any)
    defaults = [parameter.default for parameter in describe(Both).methods["put"].parameters]
    assert defaults[1] is True
    with pytest.raises(TypeError):
        spec_of(Both).methods["put"].function(None)


def test_each_binding_is_a_service_of_its_own() -> None:
    assert describe(Store[int]) is describe(Store[int])
    assert describe(Store[int]) is not describe(Store[str])
    assert describe(Store[int]).name == describe(Store).name == "Store"
    assert spec_of(Store[int]).methods["put"].function is Store.put


def test_arguments_are_made_of_the_bound_type() -> None:
    from seqrpc.errors import InvalidParams

    assert spec_of(Points).methods["put"].bind({"item": {"x": 1}})[0] == (Point(1),)
    assert spec_of(Partly).methods["put"].bind({"item": {"x": 1}})[0] == (Point(1), 1)
    with pytest.raises(InvalidParams, match=r"Store\.put: Expected `object`, got `int` - at `item`"):
        spec_of(Store[Point]).methods["put"].bind({"item": 5})
    with pytest.raises(InvalidParams, match=r"Both.put: Expected `int`, got `str` - at `item\[0\]`"):
        spec_of(Both).methods["put"].bind({"item": ["a"]})


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.skipif(sys.version_info < (3, 12), reason="it is syntax since 3.12")
def test_type_parameters_are_understood(future: str) -> None:
    module = module_of(f"""
        {future}
        import dataclasses
        from typing import Self
        from collections.abc import AsyncIterator
        from seqrpc.interface.methods import method
        from seqrpc.interface.service import Service
        type Rows[X] = list[X]
        @dataclasses.dataclass
        class Box[X]:
            item: X
        class Store[T](Service):
            @method
            async def put(self, item: T, boxes: Box[T] | None = None) -> Rows[T]: ...
            @method
            async def any[V: int](self, value: V) -> V: ...
            @method
            async def same(self) -> Self: ...
        class Texts(Store[str]): ...
        T = 5
    """)
    assert told(module.Texts, "put") == ([str, module.Box[str] | None], list[str])
    assert told(module.Store[int], "put") == ([int, module.Box[int] | None], list[int])
    assert told(module.Texts, "any") == ([int], int)
    assert told(module.Texts, "same") == ([], module.Texts)


def test_methods_may_be_called_as_types_are() -> None:
    module = module_of("""
        from __future__ import annotations
        from datetime import date
        from seqrpc.interface.methods import method
        from seqrpc.interface.service import Service
        class Calendar(Service):
            @method
            async def list(self, of: set[date]) -> list[date]: ...
            @method
            async def set(self, date: date | None = None) -> set[int]: ...
            @method
            async def date(self) -> date: ...
    """)
    assert told(module.Calendar, "list") == ([set[module.date]], list[module.date])  # type: ignore[name-defined]
    assert told(module.Calendar, "set") == ([module.date | None], set[int])
    assert told(module.Calendar, "date")[1] is module.date


def test_what_cannot_be_sent_is_named_with_its_method() -> None:
    class Wrong(Service):
        @method
        async def put(self, item: T) -> None: ...

        @method
        async def alien(self, items: dict[str, list[complex]]) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.alien: items\[\]\[\]: values of type complex cannot be sent: "):
        describe(Wrong)
    with pytest.raises(TypeError, match=r"Store\.other: the result: values of type complex|Store\.put: item: values"):
        describe(Store[complex])
