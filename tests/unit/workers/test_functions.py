from __future__ import annotations

import asyncio
import collections
import functools
import os
import sys
import traceback
from typing import Any

import msgpack
import msgspec
import pytest
from support import workers as support
from support.plans import planned
from support.waiting import PATIENCE

from seqrpc.calls.workers import MAIN, Origin, origin_of
from seqrpc.workers.children import begin
from seqrpc.workers.functions import (
    Failure,
    Functions,
    Outcome,
    RemoteTraceback,
    exception_of,
    origin_of_function,
)
from seqrpc.workers.plain import packed, unpacked

NOTHING = packed({}, "kwargs")


def over_the_wire(outcome: Outcome) -> Outcome:
    sent = msgpack.packb(msgspec.to_builtins(outcome, builtin_types=(bytes,)))
    return msgspec.convert(msgpack.unpackb(sent), Outcome)


async def outcome_of(function: Any, *many: tuple[Any, ...], **kwargs: Any) -> Outcome:
    """Return what comes of calls, as it arrives."""
    told = [[packed(arg, "args") for arg in args] for args in many]
    functions = Functions()
    outcome = await functions.call(origin_of_function(function), told, packed(kwargs, "kwargs"))
    return over_the_wire(outcome)


async def raised_by(function: Any, *args: Any) -> BaseException:
    outcome = await outcome_of(function, args)
    assert outcome.failure is not None
    return exception_of(outcome.failure)


class Odd(Exception):
    """Made with other arguments than those that it has."""

    def __init__(self, number: int, *, name: str = "") -> None:
        super().__init__(f"{name} has {number}")
        self.number = number

    def __reduce__(self) -> Any:
        return Odd, (self.number,)


class Keyword(Exception):
    """Cannot be made with what it has."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name)


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Slots(Exception):
    """Does not let itself be told everything."""

    @property
    def told(self) -> int:
        return 1


class Outer:
    class Inner(Exception): ...

    @classmethod
    def made(cls, number: int) -> list[Any]:
        return [cls.__name__, number]

    @staticmethod
    def doubled(number: int) -> int:
        return 2 * number


def raise_one(kind: str) -> None:
    noted = KeyError("key", 5)
    noted.add_note("a note")
    attributed = ValueError("with attributes")
    attributed.size, attributed.thing = 5, object()  # type: ignore[attr-defined]
    slots = Slots("x")
    slots.__dict__["told"] = 3
    raised: dict[str, BaseException] = {
        "noted": noted,
        "attributed": attributed,
        "odd": Odd(3, name="x"),
        "keyword": Keyword(name="ann"),
        "mute": Mute("x"),
        "slots": slots,
        "inner": Outer.Inner("deep"),
        "unsendable": ValueError(object()),
        "system": FileNotFoundError(2, "No such file", "na\udcffme"),
        "exit": SystemExit(3),
    }
    raise raised[kind]


def is_there_a_loop() -> str:
    async def name() -> str:
        return "of its own"

    return asyncio.run(name())


async def test_functions_are_called_for_each_of_many() -> None:
    outcome = await outcome_of(support.echo, (1, (2, 3)), ({4},), name=b"x")
    assert outcome.failure is None
    named = {"name": b"x"}
    assert [unpacked(result) for result in outcome.results] == [((1, (2, 3)), named), (({4},), named)]


async def test_one_that_fails_ends_the_others() -> None:
    exc = await raised_by(support.fail, "text")
    assert (type(exc), exc.args) == (KeyError, ("text", 5))
    assert isinstance(exc.__cause__, RemoteTraceback)
    shown = "".join(traceback.format_exception(exc))
    assert "raise KeyError(text, 5)" in shown
    assert shown.rstrip().endswith("KeyError: ('text', 5)")


async def test_functions_run_as_if_there_were_no_loop() -> None:
    outcome = await outcome_of(is_there_a_loop, ())
    assert outcome.results == ["of its own"]
    assert asyncio.get_running_loop().is_running()


async def test_what_does_not_travel_is_told_as_an_error_of_the_call() -> None:
    exc = await raised_by(support.give, "object")
    assert isinstance(exc, TypeError)
    assert str(exc).startswith("the result of give is of type object, which does not travel")
    assert unpacked((await outcome_of(support.give, ("set",))).results[0]) == {1, (2, 3)}


async def test_a_function_that_is_not_there_is_told() -> None:
    for origin in (Origin("support.workers", "nothing"), Origin("support.nothing", "nothing")):
        failure = (await Functions().call(origin, [[]], NOTHING)).failure
        assert failure is not None
        assert isinstance(exception_of(failure), AttributeError | ModuleNotFoundError)


async def test_exceptions_arrive_as_they_were() -> None:
    noted = await raised_by(raise_one, "noted")
    assert (type(noted), noted.args, noted.__notes__) == (KeyError, ("key", 5), ["a note"])
    attributed = await raised_by(raise_one, "attributed")
    assert vars(attributed) == {"size": 5}, "what does not travel is left out"
    odd = await raised_by(raise_one, "odd")
    assert isinstance(odd, Odd)
    assert odd.number == 3
    assert type(await raised_by(raise_one, "inner")) is Outer.Inner
    system = await raised_by(raise_one, "system")
    assert isinstance(system, FileNotFoundError)
    assert (system.errno, system.filename) == (2, "na\udcffme")
    slots = await raised_by(raise_one, "slots")
    assert isinstance(slots, Slots)
    assert slots.told == 1
    assert isinstance(await raised_by(raise_one, "exit"), SystemExit)


@pytest.mark.parametrize(
    "kind, text",
    [
        ("keyword", "Keyword: ann"),
        ("mute", None),
        ("unsendable", "ValueError: <object object at"),
    ],
)
async def test_those_that_cannot_be_made_here_are_told(kind: str, text: str | None) -> None:
    exc = await raised_by(raise_one, kind)
    assert isinstance(exc.__cause__, RemoteTraceback)
    if text is None:
        assert isinstance(exc, Mute)
    else:
        assert isinstance(exc, RuntimeError)
        assert text in str(exc)


def failure(module: str, qualname: str, *args: Any, state: Any = ()) -> Failure:
    return Failure(module, qualname, packed(list(args), "args"), list(state), "its text", "a traceback\n")


@pytest.mark.parametrize(
    "told",
    [
        failure("no.such.module", "Thing"),
        failure("builtins", "NoSuchError"),
        failure("builtins", "KeyError.nothing"),
        failure("builtins", "dict"),
        failure("builtins", "print", "shall not be called"),
        failure("builtins", "UnicodeDecodeError", "too few"),
        failure(__name__, "Outer.doubled", 1),
        Failure("builtins", "KeyError", None, [], "its text", ""),
    ],
)
def test_nothing_is_made_that_is_no_exception_or_not_imported(told: Failure) -> None:
    exc = exception_of(told)
    assert type(exc) is RuntimeError
    assert str(exc) == f"{told.module}.{told.qualname}: its text"


def test_a_class_of_the_program_is_known_by_what_it_is_called_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Own", Odd, raising=False)
    exc = exception_of(failure(MAIN, "Own", 5))
    assert isinstance(exc, Odd)
    assert str(exc.__cause__) == '\n"""\na traceback\n"""'


def test_attributes_that_make_an_object_what_it_is_are_not_set() -> None:
    exc = exception_of(failure("builtins", "ValueError", state=[("__class__", 1), ("__cause__", None), ("size", 2)]))
    assert type(exc) is ValueError
    assert vars(exc) == {"size": 2}
    assert isinstance(exc.__cause__, RemoteTraceback)


def test_an_initializer_is_called_at_once() -> None:
    support._initialized.clear()
    Functions(origin_of(support.initialize), [packed((1, 2), "x"), packed({3}, "y")])
    assert support.initialized() == [(1, 2), {3}]
    Functions(origin_of(support.initialize))
    support._initialized.clear()
    with pytest.raises(ValueError, match="no"):
        Functions(origin_of(support.fail_to_initialize), [])


@pytest.mark.parametrize(
    "function, origin",
    [
        (support.echo, Origin("support.workers", "echo")),
        (len, Origin("builtins", "len")),
        (dict, Origin("builtins", "dict")),
        (str.upper, Origin("builtins", "str.upper")),
        (dict.fromkeys, Origin("builtins", "dict.fromkeys")),
        (collections.Counter.update, Origin("collections", "Counter.update")),
    ],
)
def test_what_has_a_name_is_found_by_it(function: Any, origin: Origin) -> None:
    assert origin_of_function(function) == origin


@pytest.mark.parametrize(
    "function, kind, text",
    [
        (functools.partial(len), TypeError, "has no name by which a child could find it"),
        (5, TypeError, "5 has no name by which a child could find it"),
        ([].append, TypeError, "has no name by which"),
        (lambda: None, ValueError, "cannot be imported in a child"),
        (support.Parent().hear, (TypeError, ValueError), "a child"),
    ],
)
def test_what_has_none_is_told(function: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        origin_of_function(function)


async def test_they_run_in_a_child() -> None:
    async with asyncio.timeout(PATIENCE):
        child = await begin(planned(Functions, origin_of(support.initialize), [packed(1, "x")]))
        try:
            for function, result in ((support.initialized, [1]), (os.getpid, child.process.pid)):
                origin = origin_of_function(function)
                raw = await child.connection.call("seqrpc.Functions.call", origin, [[]], NOTHING)
                assert [unpacked(each) for each in msgspec.convert(raw, Outcome).results] == [result]
        finally:
            await child.close()


def test_another_user_cannot_end_this_process_by_an_exception() -> None:
    told = failure("builtins", "SystemExit", [0, 7])
    assert isinstance(exception_of(told), SystemExit)
    assert isinstance(exception_of(told, is_foreign=True), RuntimeError)
    assert isinstance(exception_of(failure("builtins", "ValueError", [0, 7]), is_foreign=True), ValueError)
