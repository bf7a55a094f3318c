"""What functions are, when others wrap them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from seqrpc.interface.functions import (
    Runs,
    call_plain,
    hides_thread,
    layers_of,
    layers_within,
    result_annotation,
    served,
    stand_in,
    way_of,
    wraps_wrongly,
)

if TYPE_CHECKING:
    from decimal import Decimal

Numbers = AsyncIterator[int]


def plain(self: Any) -> int:
    """Return one."""
    return 1


async def coroutine(self: Any) -> int:
    return 1


async def generator(self: Any) -> AsyncIterator[int]:
    yield 1


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def asynchronously(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "function, runs",
    [
        (plain, Runs.THREAD),
        (coroutine, Runs.COROUTINE),
        (generator, Runs.GENERATOR),
        (lambda self: 1, Runs.THREAD),
        (plainly(plain), Runs.THREAD),
        (plainly(coroutine), Runs.COROUTINE),
        (plainly(plainly(generator)), Runs.GENERATOR),
        (asynchronously(plain), Runs.COROUTINE),
        (plainly(asynchronously(plain)), Runs.COROUTINE),
        (asynchronously(generator), Runs.COROUTINE),
    ],
)
def test_a_function_runs_as_it_is_written_and_a_plain_one_as_what_it_wraps(
    function: Callable[..., Any], runs: Runs
) -> None:
    assert way_of(function) is runs


def test_the_layers_of_a_function_end_also_where_they_go_round() -> None:
    def one() -> None: ...

    def other() -> None: ...

    one.__wrapped__ = other  # type: ignore[attr-defined]
    assert list(layers_of(one)) == [one, other]
    other.__wrapped__ = one  # type: ignore[attr-defined]
    assert list(layers_of(one)) == [one, other]
    assert way_of(one) is Runs.THREAD


def test_a_stand_in_looks_like_its_function_and_leads_to_it() -> None:
    made = stand_in(plain, lambda: 5)
    assert (made.__name__, made.__doc__, made()) == ("plain", "Return one.", 5)
    assert served(made) is plain
    assert served(plain) is plain


def test_who_wraps_a_stand_in_takes_its_attributes_and_not_its_place() -> None:
    made = stand_in(plain, asynchronously(plain))
    wrapper = plainly(made)
    assert vars(wrapper).keys() == vars(made).keys()
    assert served(wrapper) is wrapper


def test_a_plain_function_is_hidden_where_its_stand_in_is_wrapped() -> None:
    assert hides_thread(plainly(stand_in(plain, asynchronously(plain))))
    assert not hides_thread(stand_in(plain, asynchronously(plain)))
    assert not hides_thread(stand_in(plainly(plain), asynchronously(plain)))
    assert not hides_thread(plainly(stand_in(generator, plainly(generator))))
    assert not hides_thread(plainly(coroutine))


def test_what_an_attribute_is_made_of_is_found() -> None:
    assert list(layers_within(5)) == [5]
    both: Any = property(plain, None, plainly(plain))
    assert list(layers_within(both)) == [both, plain, both.fdel]
    inner = functools.partial(plain, 1)
    outer = functools.partialmethod(inner, 2)
    assert list(layers_within(outer)) == [outer, inner, plain]
    once = functools.cached_property(plain)
    again = property(once, once)  # type: ignore[arg-type]
    assert list(layers_within(again)) == [again, once, plain]


def text_of_aliases(self: Any) -> Numbers:
    raise NotImplementedError


def text_with_more(self: Any) -> Annotated[AsyncIterator[int], "more"]:
    raise NotImplementedError


def text_of_what_is_not_there(self: Any) -> AsyncIterator[Decimal]:
    raise NotImplementedError


def text_of_nothing_that_is_there(self: Any) -> Decimal:
    raise NotImplementedError


def unannotated(self):  # type: ignore[no-untyped-def]
    raise NotImplementedError


def annotated_by_a_type(self: Any) -> Any: ...


annotated_by_a_type.__annotations__["return"] = Numbers


@pytest.mark.parametrize(
    "function, annotation",
    [
        (plain, int),
        (plainly(plain), int),
        (text_of_aliases, Numbers),
        (text_with_more, Annotated[AsyncIterator[int], "more"]),
        (text_of_what_is_not_there, AsyncIterator),
        (text_of_nothing_that_is_there, Any),
        (unannotated, Any),
        (annotated_by_a_type, Numbers),
    ],
)
def test_of_a_result_s_annotation_is_read_what_can_be(function: Callable[..., Any], annotation: Any) -> None:
    assert result_annotation(function) == annotation


def raising(exc: BaseException) -> Callable[[], Any]:
    def function() -> Any:
        raise exc

    return function


async def forgotten() -> None: ...


def test_a_plain_function_gives_what_it_returns_and_raises_what_may_leave_a_thread() -> None:
    assert call_plain(lambda: 5) == 5
    with pytest.raises(KeyError):
        call_plain(raising(KeyError("x")))
    for exc in (StopIteration(), SystemExit(3), KeyboardInterrupt()):
        with pytest.raises(RuntimeError, match=f"a handler raised {type(exc).__name__}"):
            call_plain(raising(exc))
    with pytest.raises(TypeError, match="forgotten was called and not awaited: a plain function"):
        call_plain(forgotten)


def test_a_wrapper_that_returns_something_else_is_told_what_it_was_to_return() -> None:
    async def nothing() -> None: ...

    def wrapper() -> None: ...

    error = wraps_wrongly(wrapper, "a coroutine function", 3, "something to await")
    told = "wrapper wraps a coroutine function, and returned an object of int and not something to await"
    assert str(error).endswith(told)
    coroutine = nothing()
    assert "returned an object of coroutine and not an async iterator" in str(
        wraps_wrongly(wrapper, "an async generator function", coroutine, "an async iterator")
    )
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
