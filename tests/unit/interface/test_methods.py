"""The mark of methods, and what they are on the object itself."""

from __future__ import annotations

import abc
import asyncio
import functools
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from support.daemons import on_a_pair
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.interface.description import describe
from seqrpc.interface.functions import Runs
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service, marks_of
from seqrpc.interface.signature import spec_of
from seqrpc.kernel.descriptors import OwnedFd

if TYPE_CHECKING:
    Found = int
    FoundItems = AsyncIterator[int]


class Plain(Service):
    pass


def test_a_marked_coroutine_function_is_the_function_itself() -> None:
    async def function(self: Any, a: int) -> int:
        return a

    before = dict(vars(function))
    assert method(function) is function
    assert method(oneway=True)(function) is function
    assert function.__name__ == "function"
    assert len(vars(function)) == len(before) + 1


@pytest.mark.parametrize(
    "what",
    [property(lambda self: 1), staticmethod(len), classmethod(print), Plain, len, 5, functools.partial(len), Plain()],
)
def test_only_functions_are_decorated(what: Any) -> None:
    with pytest.raises(TypeError, match=r"decorates functions, got .*: write a 'def' that uses it$"):
        method(what)


def test_of_what_is_no_function_it_is_told_what_it_is_made_of() -> None:
    with pytest.raises(TypeError, match=r"got a property of Plain\.size: write"):
        method(property(named_size))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="got 5: write"):
        method(5)  # type: ignore[call-overload]


def named_size(self: Any) -> int:
    return 1


named_size.__qualname__ = "Plain.size"


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function in a plain one, as most decorators do."""

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.log.append(function.__name__)
        return function(self, *args, **kwargs)

    return wrapper


def _square(_self: object, number: int) -> int:
    return number * number


class Counter(Service):
    """Every kind of function."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @method
    def thread(self, offset: int = 0) -> int:
        """Return the thread's number."""
        return threading.get_ident() + offset

    @method
    async def count(self, to: int) -> AsyncIterator[int]:
        """Count."""
        try:
            for number in range(to):
                yield number
        finally:
            self.log.append("count ended")

    @method
    def counted(self, to: int) -> AsyncIterator[int]:
        self.log.append(f"counted in {threading.get_ident() == threading.main_thread().ident}")
        return Counter.count.__wrapped__(self, to)  # type: ignore[attr-defined,no-any-return]

    @method
    @logged
    async def wrapped(self, a: int) -> int:
        return a

    @method
    @logged
    async def wrapped_stream(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @method
    @logged
    def wrapped_plain(self) -> int:
        return threading.get_ident()

    squared = method(_square)


@pytest.fixture(params=["itself", "proxy"])
async def counter(request: pytest.FixtureRequest) -> AsyncIterator[Counter]:
    itself = Counter()
    async with on_a_pair(itself) as connection:
        proxy = connection.proxy(Counter)
        proxy_log = itself.log
        if request.param == "proxy":
            with pytest.raises(AttributeError):
                proxy.log  # noqa: B018
        yield itself if request.param == "itself" else proxy
        assert proxy_log is itself.log


async def test_a_plain_function_is_awaited_and_runs_in_a_thread(counter: Counter) -> None:
    assert await counter.thread() != threading.get_ident()
    coroutine = counter.thread(offset=1)
    assert inspect.iscoroutine(coroutine)
    await coroutine
    assert await counter.wrapped_plain() != threading.get_ident()
    assert await counter.squared(3) == 9


async def test_a_wrapped_coroutine_function_is_awaited(counter: Counter) -> None:
    assert await counter.wrapped(5) == 5


async def test_a_generator_gives_items(counter: Counter) -> None:
    for count in (counter.count, counter.counted, counter.wrapped_stream):
        assert [number async for number in count(3)] == [0, 1, 2]
        async with count(3) as items:
            assert [number async for number in items] == [0, 1, 2]
        items = count(2)
        assert await anext(items) == 0
        await items.aclose()
        assert [number async for number in items] == []


async def test_on_the_object_itself_closing_the_items_ends_the_generator() -> None:
    counter = Counter()
    async with counter.count(5) as items:
        assert await anext(aiter(items)) == 0
    assert counter.log == ["count ended"]
    items = counter.counted(5)
    assert await anext(aiter(items)) == 0
    await items.aclose()
    assert counter.log[1:] == ["counted in False", "count ended"]


async def test_items_of_the_object_itself_can_be_passed_on() -> None:
    class Total(Service):
        @method
        async def total(self, numbers: AsyncIterator[int]) -> int:
            return sum([number async for number in numbers])

        @method
        async def numbers(self) -> AsyncIterator[int]:
            return Counter().count(4)

    async with on_a_pair(Total()) as connection:
        total = connection.proxy(Total)
        assert await total.total(Counter().count(4)) == 6
        assert [number async for number in await total.numbers()] == [0, 1, 2, 3]


def test_they_look_like_what_is_written() -> None:
    assert inspect.iscoroutinefunction(Counter.thread)
    assert str(inspect.signature(Counter.thread)) == "(self, offset: 'int' = 0) -> 'int'"
    assert Counter.thread.__doc__ == "Return the thread's number."
    assert Counter.count.__doc__ == "Count."
    assert Counter.count.__qualname__ == "Counter.count"
    assert inspect.isasyncgenfunction(inspect.unwrap(Counter.count))


def test_the_server_has_the_functions_as_they_are_written() -> None:
    methods = spec_of(Counter).methods
    functions = {name: spec.function for name, spec in methods.items()}
    assert functions["thread"] is Counter.thread.__wrapped__  # type: ignore[attr-defined]
    assert functions["count"] is Counter.count.__wrapped__  # type: ignore[attr-defined]
    assert inspect.isasyncgenfunction(functions["count"])
    assert {name: method.runs for name, method in describe(Counter).methods.items()} == {
        "count": Runs.GENERATOR,
        "counted": Runs.THREAD,
        "squared": Runs.THREAD,
        "thread": Runs.THREAD,
        "wrapped": Runs.COROUTINE,
        "wrapped_plain": Runs.THREAD,
        "wrapped_stream": Runs.GENERATOR,
    }


def test_abstract_methods_stay_abstract() -> None:
    class Base(Service, abc.ABC):
        @method
        @abc.abstractmethod
        def under(self) -> int: ...

        @abc.abstractmethod
        @method
        def above(self) -> int: ...

    assert Base.__abstractmethods__ == {"under", "above"}
    assert list(describe(Base).methods) == ["above", "under"]


def test_other_decorators_stand_below_the_mark_of_a_plain_function() -> None:
    message = r"^.*Wrong\.size: put @seqrpc\.method above the other decorators of a plain function$"
    with pytest.raises(TypeError, match=message):

        class Wrong(Service):
            @logged
            @method
            def size(self) -> int:
                return 1

    class Right(Service):
        log: ClassVar[list[str]] = []

        @logged
        @method
        async def size(self) -> int:
            return 1

        @logged
        @method
        async def count(self) -> AsyncIterator[int]:
            yield 1

    assert marks_of(Right, "size") is not None
    assert [method.runs for method in describe(Right).methods.values()] == [Runs.GENERATOR, Runs.COROUTINE]


async def test_a_stream_whose_annotation_names_what_is_defined_later_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Service):
        @method
        def find(self) -> AsyncIterator[Found]:
            async def found() -> AsyncIterator[Any]:
                yield 1

            return found()

    async with Later().find() as items:
        assert [item async for item in items] == [1]
    monkeypatch.setitem(globals(), "Found", int)
    assert describe(Later).methods["find"].streams


def test_a_stream_that_cannot_be_known_for_one_where_it_is_defined_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Service):
        @method
        def find(self) -> FoundItems:
            raise NotImplementedError

    monkeypatch.setitem(globals(), "FoundItems", AsyncIterator[int])
    with pytest.raises(
        TypeError, match=r"Later\.find: it streams, which does not show where it is defined: annotate its result"
    ):
        describe(Later)


async def test_who_only_looks_at_a_proxy_s_class_finds_the_same_there() -> None:
    async with on_a_pair(Counter()) as connection:
        proxy = connection.proxy(Counter)
        assert inspect.signature(proxy.thread) == inspect.signature(Counter().thread)
        assert isinstance(proxy.count(1), seqrpc.Stream)


class Plainly(Service):
    @method
    def size(self) -> int:
        return 1

    @method
    async def report(self) -> int:
        return await self.size() + 1

    @method
    def stop(self) -> int:
        return next(iter([]))

    @method
    def leave(self) -> int:
        raise SystemExit(3)


class Overriding(Plainly):
    def size(self) -> int:  # type: ignore[override] # not marked, and served all the same
        return 2


async def test_an_override_that_is_not_marked_is_awaited_as_what_it_overrides() -> None:
    assert await Overriding().report() == 3
    async with on_a_pair(Overriding()) as connection:
        assert await connection.call("Overriding.size") == 2
        assert await connection.call("Overriding.report") == 3


async def test_what_must_not_leave_a_thread_is_a_runtime_error() -> None:
    for calling in (Plainly().stop(), Plainly().leave()):
        with pytest.raises(RuntimeError, match=r"a handler raised (StopIteration|SystemExit)"):
            await calling


class Reading(Service):
    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.has_begun = threading.Event()
        self.read = b""

    @method
    def digest(self, fd: OwnedFd) -> None:
        number = fd.fileno()
        self.has_begun.set()
        assert self.may_go.wait(PATIENCE)
        self.read = os.pread(number, 10, 0)

    @method
    async def use(self, fd: OwnedFd) -> None:
        await self.digest(fd)

    @method
    def give(self) -> OwnedFd:
        self.has_begun.set()
        assert self.may_go.wait(PATIENCE)
        return OwnedFd.dup(0)


async def test_a_cancelled_caller_waits_for_the_thread_whose_descriptors_it_has(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "secret").write_bytes(b"secret")
    service = Reading()
    async with on_a_pair(service) as connection:
        with (tmp_path / "mine").open("rb") as mine:
            calling = asyncio.ensure_future(connection.call("Reading.use", mine))
            await asyncio.to_thread(service.has_begun.wait, PATIENCE)
            calling.cancel()
            await connection.call("rpc.ping")
            secrets = [(tmp_path / "secret").open("rb") for _ in range(20)]
            service.may_go.set()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await comes_true(lambda: service.read != b"")
            assert service.read == b"mine"
            for secret in secrets:
                secret.close()


async def test_what_a_thread_gives_a_cancelled_caller_is_closed() -> None:
    service = Reading()
    before = set(os.listdir("/proc/self/fd"))
    calling = asyncio.ensure_future(service.give())
    await asyncio.to_thread(service.has_begun.wait, PATIENCE)
    calling.cancel()
    await asyncio.sleep(0)
    calling.cancel()
    service.may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert set(os.listdir("/proc/self/fd")) <= before


def test_the_mark_takes_a_function_or_options_that_there_are() -> None:
    marking: Any = method
    with pytest.raises(
        TypeError, match=r"takes allow=, oneway=, idempotent= and errors=, not alow=; did you mean 'allow'\?"
    ):
        marking(alow=5)
    with pytest.raises(TypeError, match=r"write @seqrpc\.method\(allow=\.\.\.\)"):
        marking(seqrpc.policy.root)


def test_what_has_no_answer_is_not_called_again() -> None:
    with pytest.raises(TypeError, match=r"idempotent= is about calls whose answer is lost, and oneway= has no answers"):

        @method(oneway=True, idempotent=True)
        async def tell(self: Any) -> None: ...


class Insufficient(seqrpc.RpcError, code="declared.InsufficientFunds"):
    pass


class Codeless(seqrpc.RpcError):
    pass


def test_a_method_declares_errors_each_once() -> None:
    class Bank(seqrpc.Service):
        @method(errors=[Insufficient, seqrpc.PermissionDenied, Insufficient])
        async def draw(self) -> None: ...

        @method
        async def look(self) -> None: ...

    methods = spec_of(Bank).description.methods
    assert methods["draw"].errors == (Insufficient, seqrpc.PermissionDenied)
    assert methods["look"].errors == ()


@pytest.mark.parametrize(
    "errors, match",
    [
        (Insufficient, r"errors= takes a list, got Insufficient: write errors=\[Insufficient\]"),
        (5, r"errors= takes a list, got 5"),
        ([ValueError], r"errors= takes subclasses of seqrpc.RpcError, got <class 'ValueError'>"),
        ([Insufficient("x")], r"errors= takes subclasses of seqrpc.RpcError, got Insufficient\('x'\)"),
        ([Codeless], r"errors= takes errors with a code: write class Codeless\(\.\.\., code='\.\.\.'\)"),
    ],
)
def test_what_is_no_error_is_not_declared(errors: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        method(errors=errors)


def test_what_has_no_answer_declares_no_errors() -> None:
    with pytest.raises(TypeError, match="nobody hears of the errors of what is oneway="):
        method(oneway=True, errors=[Insufficient])
