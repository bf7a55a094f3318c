"""What is looked at before services are served."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from seqrpc import Service, method
from seqrpc.interface.services import services_of


class Sums(Service):
    @method
    async def add(self, a: int, b: int) -> int:
        return a + b


class Plain:
    pass


class Unmarked(Service):
    async def add(self, a: int, b: int) -> int:
        return a + b


class Alive(Service):
    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield


class Child(Sums):
    pass


def test_one_service_may_be_given_by_itself_and_several_in_whatever_can_be_iterated() -> None:
    one, other = Sums(), Child()
    assert services_of(one) == (one,)
    assert services_of([one, other]) == (one, other)
    assert services_of(iter([one])) == (one,)
    assert services_of(()) == ()


@pytest.mark.parametrize(
    "given, told",
    [
        (Sums, r"an object of Sums was expected, got the class: write Sums\(\)"),
        ([Sums], r"an object of Sums was expected, got the class: write Sums\(\)"),
        (5, "an object of a seqrpc.Service was expected, got 5, and int is none"),
        ("Sums", "an object of a seqrpc.Service was expected, got 'Sums', and str is none"),
        (Plain, "an object of a seqrpc.Service was expected, got <class '.*Plain'>, and Plain is none"),
        ([Plain()], "an object of a seqrpc.Service was expected, got <.*Plain object at .*>, and Plain is none"),
        (None, "got None, and NoneType is none"),
    ],
    ids=str,
)
def test_what_is_no_service_is_a_type_error_that_says_what_to_do(given: Any, told: str) -> None:
    with pytest.raises(TypeError, match=f"^{told}$" if told.startswith("an") else told):
        services_of(given)


def test_a_class_that_nobody_could_call_is_refused_unless_it_has_a_life() -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^Unmarked has no method that others may call: mark .* @seqrpc\.method$"):
            services_of(Unmarked())
    services_of(Alive())


def test_parameters_without_annotations_are_warned_of_once() -> None:
    class Bare(Service):
        @method
        async def add(self, a, b: int, *, c=5) -> int:  # type: ignore[no-untyped-def]
            return 0

        @method
        async def anything(self, a: Any): ...  # type: ignore[no-untyped-def]

    with pytest.warns(UserWarning, match=r"^Bare\.add takes whatever is sent as 'a', 'c': write the type") as told:
        services_of([Bare(), Bare()])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        services_of(Bare())
