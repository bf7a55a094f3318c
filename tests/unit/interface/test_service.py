from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.waiting import PATIENCE

from seqrpc.interface import policy
from seqrpc.interface.methods import method
from seqrpc.interface.service import Marks, Service, marks_of, served_function, shows_arguments


class Plain(Service):
    @method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @method(allow=policy.root, oneway=True)
    def log(self, text: str) -> None:
        pass

    async def hidden(self) -> None:
        pass


def test_marks_are_what_method_was_told() -> None:
    assert marks_of(Plain, "add") == Marks(None, oneway=False)
    assert marks_of(Plain, "log") == Marks(policy.root, oneway=True)
    assert marks_of(Plain, "hidden") is None
    assert marks_of(Plain, "nothing") is None


def test_an_overridden_method_keeps_the_marks_of_its_base() -> None:
    class Child(Plain):
        def log(self, text: str) -> None:  # type: ignore[override] # it lacks the mark, and others await it
            pass

    assert marks_of(Child, "log") == Marks(policy.root, oneway=True)


def test_marks_nearest_to_the_class_win_and_allow_among_those_that_say_it() -> None:
    class Silent(Plain):
        @method
        def log(self, text: str) -> None:
            pass

    class Loud(Silent):
        @method(allow=policy.anyone)
        def log(self, text: str) -> None:
            pass

    assert marks_of(Silent, "log") == Marks(policy.root, oneway=False)
    assert marks_of(Loud, "log") == Marks(policy.anyone, oneway=False)


def test_marks_come_from_mixins_that_are_no_services() -> None:
    class Mixin:
        @method(allow=policy.anyone)
        async def hello(self) -> None:
            pass

    class Mixed(Mixin, Plain):
        pass

    assert marks_of(Mixed, "hello") == Marks(policy.anyone, oneway=False)
    assert marks_of(Mixed, "add") is not None


def test_a_function_of_the_caller_may_stand_in_for_a_policy() -> None:
    @method(allow=lambda caller: caller.pid == 1)
    def function(self: Any) -> None:
        pass

    class Holder:
        held = function

    marks = marks_of(Holder, "held")
    assert marks is not None
    assert isinstance(marks.allow, policy.Policy)


def test_what_is_no_policy_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="a policy"):
        method(allow="root")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a policy"):

        class Wrong(Service, allow=5):  # type: ignore[arg-type]
            pass


def test_a_service_is_called_as_its_class_or_as_it_says() -> None:
    class Named(Plain, name="org.example.Named", allow=policy.anyone):
        pass

    class Child(Named):
        pass

    assert Plain.service_name == "Plain"
    assert Plain.service_policy is None
    assert Named.service_name == "org.example.Named"
    assert Child.service_name == "Child", "a name is not inherited"
    assert Child.service_policy is policy.anyone, "whom it admits is"


def test_a_name_is_text() -> None:
    with pytest.raises(TypeError, match=r"Wrong: name= takes text, as 'org\.example\.Wrong', got 5$"):

        class Wrong(Plain, name=5):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("name", ["", ".", ".a", "a.", "rpc", "rpc.a", "rpc."])
def test_names_that_cannot_be_called_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a service name"):

        class Wrong(Plain, name=name):
            pass


def test_names_that_only_look_reserved_are_allowed() -> None:
    class Fine(Plain, name="rpcs.x"):
        pass

    assert Fine.service_name == "rpcs.x"


async def test_the_hook_that_runs_when_nobody_holds_an_object_does_nothing_by_itself() -> None:
    await Plain().close()
    assert marks_of(Plain, "close") is None, "it cannot be called from elsewhere"


async def test_a_service_may_have_a_method_named_close_that_is_called_like_any_other() -> None:
    class Door(Service):
        closed = 0

        @method
        async def close(self) -> int:  # type: ignore[override]
            self.closed += 1
            return self.closed

    class House(Service):
        def __init__(self) -> None:
            self.door = Door()

        @method
        async def enter(self) -> Any:
            return self.door

    house = House()
    async with on_a_pair(house) as connection:
        channel = await connection.call("House.enter")
        assert await channel.proxy(Door).close() == 1
        assert not channel.closed, "the channel lives on"
        async with channel.proxy(Door):
            pass
        assert channel.closed
        async with asyncio.timeout(PATIENCE):
            while house.door.closed < 2:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)


async def test_the_lifespan_of_the_base_does_nothing() -> None:
    async with Plain().lifespan() as nothing:
        assert nothing is None


async def add(self: Any, a: int) -> int:
    return a


MADE_OF_A_METHOD: list[Any] = [
    property(method(add)),  # type: ignore[arg-type]
    functools.cached_property(method(add)),  # type: ignore[arg-type]
    functools.partial(method(add), 1),
    functools.partialmethod(method(add), 1),
    functools.partialmethod(functools.partial(method(add)), 1),
    functools.lru_cache(method(add)),
    staticmethod(method(add)),
    classmethod(method(add)),
    property(None, method(add)),
]


@pytest.mark.parametrize("attribute", MADE_OF_A_METHOD, ids=lambda attribute: type(attribute).__name__)
def test_what_is_made_of_a_marked_function_is_refused_where_the_class_is_defined(attribute: Any) -> None:
    kind = type(attribute).__name__
    message = rf"^Wrong\.made: only plain methods can be called, and this is a {kind}: write a 'def' that uses it$"
    with pytest.raises(TypeError, match=message):
        type("Wrong", (Service,), {"made": attribute})
    mixin = type("Mixin", (), {"made": attribute})
    with pytest.raises(TypeError, match=message):
        type("Wrong", (mixin, Service), {})


def test_what_is_made_of_other_functions_is_nobody_s_business() -> None:
    class Fine(Service):
        size = property(lambda self: 1)
        other = functools.partialmethod(print, 1)
        constant = 5

    assert marks_of(Fine, "size") is None
    assert marks_of(Fine, "other") is None


def test_what_stands_above_the_mark_of_a_plain_function_is_refused() -> None:
    def function(self: Any) -> int:
        return 1

    wrapper = functools.wraps(method(function))(lambda self: 2)
    message = r"^Wrong\.size: put @seqrpc\.method above the other decorators of a plain function$"
    with pytest.raises(TypeError, match=message):
        type("Wrong", (Service,), {"size": wrapper})


def test_of_what_a_class_serves_the_functions_are_known_as_they_are_written() -> None:
    class Child(Plain):
        add = None  # type: ignore[assignment]

    assert served_function(Plain, "log") is inspect.unwrap(Plain.log)
    assert served_function(Plain, "add") is Plain.add
    assert served_function(Child, "add") is None


async def test_a_service_is_closed_at_the_end_of_its_block() -> None:
    class Door(Service):
        closed = False

        async def close(self) -> None:
            self.closed = True

    async with Door() as door:
        assert not door.closed
    assert door.closed


def test_the_lifespan_is_not_for_others_to_call() -> None:
    with pytest.raises(TypeError, match=r"Mortal\.lifespan is what surrounds the service's life"):

        class Mortal(Service):
            @method
            async def lifespan(self) -> None:  # type: ignore[override]
                pass


def test_whether_arguments_are_shown_is_inherited_and_said_by_true_or_false() -> None:
    class Open(Service, show_arguments=True):
        pass

    class Below(Open):
        pass

    class Quiet(Below, show_arguments=False):
        pass

    assert [shows_arguments(cls) for cls in (Service, Open, Below, Quiet)] == [False, True, True, False]
    with pytest.raises(TypeError, match="Odd: show_arguments= is True or False, got 'yes'"):
        type("Odd", (Service,), {}, show_arguments="yes")


def test_class_arguments_are_three_and_others_are_for_other_bases() -> None:
    with pytest.raises(TypeError, match=r"takes name=, allow= and show_arguments=, not alow=; did you mean 'allow'\?"):

        class Wrong(Service, alow=5):
            pass

    class Strict:
        def __init_subclass__(cls, *, must: int) -> None:
            """Ask for an argument of its own."""

    with pytest.raises(TypeError, match="must"):

        class Missing(Service, Strict):
            pass
