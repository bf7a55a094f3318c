"""What is known of a function before it is asked who may call."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, NoReturn, Optional, Union

import pytest

import seqrpc
from seqrpc.interface import policy
from seqrpc.interface.policy import Policy, as_policy
from seqrpc.interface.predicates import objection

if TYPE_CHECKING:
    from elsewhere import Caller, Verdict  # type: ignore[import-not-found]


async def later(caller: Any) -> bool:
    return True


async def one_by_one(caller: Any) -> AsyncIterator[bool]:
    yield True


def slowly(caller: Any) -> Iterator[bool]:
    yield True


def at_once(caller: Any) -> bool:
    return True


def of_two(caller: Any, other: Any) -> bool:
    return True


class Later:
    async def __call__(self, caller: Any) -> bool:
        return True


class AtOnce:
    def __call__(self, caller: Any) -> bool:
        return True

    def method(self, caller: Any) -> bool:
        return True

    async def later(self, caller: Any) -> bool:
        return True

    def of_none(self) -> bool:
        return True


class Slow(Policy):
    async def verdict(self, caller: Any) -> bool | None:  # type: ignore[override]
        return True


@pytest.mark.parametrize(
    "function",
    [
        later,
        one_by_one,
        slowly,
        Later(),
        AtOnce().later,
        functools.partial(later),
        functools.partial(functools.partial(Later())),
        functools.cache(later),
        functools.partial(functools.lru_cache(slowly)),
    ],
    ids=repr,
)
def test_what_answers_later_is_refused(function: Any) -> None:
    assert "gives its answer later" in str(objection(function))


@pytest.mark.parametrize(
    "function",
    [lambda: True, of_two, AtOnce().of_none, functools.partial(at_once, 1), lambda *, caller: True, "x".isdigit],
    ids=repr,
)
def test_what_does_not_take_one_argument_is_refused(function: Any) -> None:
    assert objection(function) == "it cannot be called with the caller alone, as 'lambda caller: ...' can"


Sure = NewType("Sure", bool)
Number = NewType("Number", int)

OTHERS: list[Any] = [
    int, str, None, "str", "int | None", list[bool], Awaitable[bool], Callable[[], bool], Optional[bool],  # noqa: UP045 - as some write it
    bool | None, Union[bool, str],  # noqa: UP007 - as some write it
    Literal["yes"], Literal[True, "no"], Number, Annotated[str, 1], Policy,
]  # fmt: skip

FINE: list[Any] = [
    bool, "bool", Any, object, Literal[True], Literal[True, False], Sure, Annotated[bool, "who"], "Verdict", NoReturn,
    "1 +",
]  # fmt: skip


def annotated(annotation: Any) -> Callable[[Any], Any]:
    def function(caller: Caller) -> Any:
        return True

    function.__annotations__["return"] = annotation
    return function


@pytest.mark.parametrize("annotation", OTHERS, ids=repr)
def test_what_says_that_it_answers_something_else_is_refused(annotation: Any) -> None:
    assert "its answer is annotated as" in str(objection(annotated(annotation)))
    assert "its answer is annotated as" in str(objection(functools.partial(annotated(annotation))))


@pytest.mark.parametrize("annotation", FINE, ids=repr)
def test_what_may_answer_true_or_false_is_taken(annotation: Any) -> None:
    """Also where annotations cannot be resolved: what it answers is looked at each time."""
    assert objection(annotated(annotation)) is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is younger")
def test_aliases_are_what_they_stand_for() -> None:
    names: dict[str, Any] = {}
    exec("type Verdict = bool\ntype Number = int", names)
    assert objection(annotated(names["Verdict"])) is None
    assert objection(annotated(names["Number"])) is not None


@functools.wraps(of_two)
def wrapper(caller: Any) -> bool:
    return of_two(caller, None)


@functools.wraps(annotated(int))
def translator(caller: Any) -> bool:
    return bool(caller)


@pytest.mark.parametrize(
    "function",
    [
        at_once,
        AtOnce(),
        AtOnce().method,
        functools.partial(at_once),
        functools.partial(of_two, None),
        functools.cache(at_once),
        lambda caller: True,
        lambda caller, *others: True,
        lambda *anybody: True,
        lambda caller, more=1: True,
        {1}.__contains__,
        operator.attrgetter("uid"),
        bool.__bool__,
        wrapper,
        translator,
    ],
    ids=repr,
)
def test_what_can_be_asked_is_taken(function: Any) -> None:
    assert objection(function) is None
    as_policy(function)


@pytest.mark.parametrize("thing", [5, "root", None, True])
def test_what_cannot_be_called_is_refused(thing: Any) -> None:
    assert objection(thing) == "it cannot be called"


def test_a_class_is_refused() -> None:
    assert objection(AtOnce) == "it is a class"


@pytest.mark.parametrize("rule", [policy.group, policy.uid, policy.gid, policy.as_policy, Later(), lambda: True])
def test_whatever_is_given_as_a_policy_is_looked_at_where_it_is_given(rule: Any) -> None:
    with pytest.raises(TypeError, match="a plain function of the caller's Credentials"):
        seqrpc.method(allow=rule)
    with pytest.raises(TypeError, match="a plain function of the caller's Credentials"):
        type("Named", (seqrpc.Service,), {}, allow=rule)
    with pytest.raises(TypeError, match="a plain function of the caller's Credentials"):
        policy.root | rule


@pytest.mark.parametrize("rule", [policy.group, Later(), lambda: True])
async def test_also_by_a_server_and_a_client(rule: Any) -> None:
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        with pytest.raises(TypeError, match="got "):
            await seqrpc.serve([], sock=ours, allow=rule)
        with pytest.raises(TypeError, match="got "):
            await seqrpc.connect(sock=theirs, server=rule)


def test_the_error_names_what_was_given_and_what_is_wrong_with_it() -> None:
    def makes(name: object) -> policy.Policy:
        return policy.root

    with pytest.raises(TypeError, match=r"got <function .*makes at .*>: .*annotated as .*Policy"):
        as_policy(makes)  # type: ignore[arg-type]


def test_a_policy_of_one_s_own_answers_at_once_too() -> None:
    with pytest.raises(TypeError, match=r"Slow object .* is no policy"):
        as_policy(Slow())


if TYPE_CHECKING:
    unused: Verdict
