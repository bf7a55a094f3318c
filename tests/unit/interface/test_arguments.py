"""What is said of arguments that a method cannot take."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.properties import PROPERTY

from seqrpc.interface.annotations import SENSITIVE
from seqrpc.interface.arguments import counts_of, misfit
from seqrpc.interface.description import MethodDescription, describe


class Methods:
    async def nothing(self) -> None: ...

    async def add(self, a: int, b: int = 1) -> None: ...

    async def named(self, a: int = 1, *, b: int, c: int = 2) -> None: ...

    async def all_named(self, *, b: int = 1) -> None: ...


METHODS = describe(Methods).methods


@pytest.mark.parametrize(
    "name, count, names, told",
    [
        ("nothing", 0, [], None),
        ("nothing", 1, [], "Methods.nothing() takes no arguments by position, and got 1"),
        ("nothing", 0, ["a"], "Methods.nothing() got an unexpected argument 'a'"),
        ("add", 1, ["b"], None),
        ("add", 0, ["b", "a"], None),
        ("add", 0, [], "Methods.add(a, b=...) is missing 1 required argument: 'a'"),
        ("add", 3, [], "Methods.add(a, b=...) takes 2 arguments by position, and got 3"),
        ("add", 1, ["a"], "Methods.add(a, b=...) got the argument 'a' twice: by position and by name"),
        ("add", 1, ["bb"], "Methods.add(a, b=...) got an unexpected argument 'bb'; did you mean 'b'?"),
        ("named", 1, [], "Methods.named(a=..., *, b, c=...) is missing 1 required argument: 'b'"),
        ("named", 0, ["b"], None),
        ("all_named", 1, [], "Methods.all_named(*, b=...) takes no arguments by position, and got 1"),
    ],
)
def test_one_line_names_the_method_its_parameters_and_what_is_wrong(
    name: str, count: int, names: list[str], told: str | None
) -> None:
    assert misfit(METHODS[name], count, names) == told


def test_names_that_somebody_made_up_are_shown_on_one_line_and_cut() -> None:
    told = misfit(METHODS["add"], 0, ["x\n" * 10_000])
    assert told is not None
    assert told.isprintable()
    assert len(told) < 200


@given(
    name=st.sampled_from(sorted(METHODS)), count=st.integers(0, 3), names=st.sets(st.sampled_from(["a", "b", "c", "d"]))
)
@PROPERTY
def test_arguments_fit_just_when_python_takes_them(name: str, count: int, names: set[str]) -> None:
    method: MethodDescription = METHODS[name]
    args: list[Any] = [None] * count
    try:
        inspect.signature(getattr(Methods, name)).bind(None, *args, **dict.fromkeys(names))
    except TypeError:
        assert misfit(method, count, names) is not None
        assert names or count not in counts_of(method)
    else:
        assert misfit(method, count, names) is None
        assert names or count in counts_of(method)


def test_a_name_that_somebody_made_up_is_not_told_where_arguments_are_sensitive() -> None:
    class Vault:
        async def login(self, user: str, password: Annotated[str | None, SENSITIVE] = None) -> None: ...

    login = describe(Vault).methods["login"]
    assert misfit(login, 0, ["user", "hunter2"]) == "Vault.login(user, password=...) got an unexpected argument"
    assert misfit(login, 0) == "Vault.login(user, password=...) is missing 1 required argument: 'user'"
