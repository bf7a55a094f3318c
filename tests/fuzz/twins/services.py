"""What the fuzzed ends serve: handlers of every kind, which note what they see in the diary of the case."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Annotated, Any, Protocol

from fuzz.twins.told import moment, told

import seqrpc
from seqrpc import OwnedFd, RpcError, policy
from seqrpc.aio.connection import link_of
from seqrpc.aio.current import handled_call
from seqrpc.aio.server import hub_of
from seqrpc.interface.builtin import everybody

VAR: ContextVar[str] = ContextVar("fuzzed", default="nobody's")
"""Set by each handler, and to be seen by none but what it calls and starts."""


class Failed(RpcError, code="fuzz.Failed"):
    """An error of the services' own."""


class Grave(BaseException):
    """What no handler of exceptions takes."""


@dataclass
class Point:
    """An argument that is converted."""

    x: int
    y: float = 0.5


def larger() -> Point:
    """Return one with an attribute more."""
    point: Any = Point(1)
    point.z = 3
    made: Point = point
    return made


def smaller() -> Point:
    """Return one without an attribute, whose default then counts."""
    point = Point(1, 2.0)
    del point.y
    return point


class Level(IntEnum):
    """An integer that is none exactly."""

    LOW = 1


class Whole(int):
    """Another."""


class World(Protocol):
    """What the services are told of the case, and tell it."""

    server: Any
    kept: list[Any]

    def note(self, *what: Any) -> None:
        """Write something into the diary."""
        ...

    def gate(self, number: int) -> asyncio.Event:
        """Return what a later step opens."""
        ...

    def time(self, task: asyncio.Task[Any]) -> None:
        """Let time go on until a task is done."""
        ...

    def name_of(self, link: Any) -> str:
        """Return which connection a link is of."""
        ...


HERE: list[World] = []
"""The case that is being run, at the end; policies are asked about callers only."""


def _asked(name: str, answer: Any) -> Callable[[seqrpc.Credentials], bool]:
    def ask(caller: seqrpc.Credentials) -> bool:
        HERE[-1].note("policy", name, told(caller))
        if isinstance(answer, type):
            raise answer("no policy")
        admitted: bool = answer(HERE[-1]) if callable(answer) else answer
        return admitted

    ask.__name__ = name
    return ask


def _collecting(_world: World) -> bool:
    gc.collect()
    return True


def _ending(world: World) -> bool:
    """Admit, and end all connections of the server, of which this is one."""
    if world.server is not None:
        for link in hub_of(world.server).dispatchers:
            link.end_by(ValueError("by a policy"))
    return True


def _closing(world: World) -> bool:
    """Admit, and begin to close them."""
    if world.server is not None:
        for link in hub_of(world.server).dispatchers:
            link.refuse("by a policy")
    return True


def _wrapped(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def _returning(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Base(seqrpc.Service, name="Nothing"):
    """Notes what handlers see."""

    def __init__(self, world: World) -> None:
        self.world = world

    def sees(self, method: str, *args: Any) -> str:
        """Note what a handler that begins sees; return the name of its connection."""
        call = seqrpc.current_call()
        running = handled_call()
        assert running is not None
        where = self.world.name_of(link_of(running.connection))
        task = asyncio.current_task()
        self.world.note(
            where, "begins", method, [told(arg) for arg in args], call.method, told(call.caller), moment(call.deadline),
            told(dict(call.meta)), told(call), VAR.get(), type(task).__name__, task in asyncio.all_tasks(),
            None if task is None else (task.done(), task.cancelling(), asyncio.iscoroutine(task.get_coro())),
            seqrpc.current_call() is call, told(running), running.task is None or running.task is task,
            told(running.request), running.has_begun,
        )  # fmt: skip
        VAR.set(f"{method} on {where}")
        return where


class Plain(Base, name="Plain"):
    """The methods that the quick way is for, and some that only look so."""

    @seqrpc.method
    async def nothing(self) -> None:
        self.sees("nothing")

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        self.sees("add", a, b)
        return a + b

    @seqrpc.method
    async def echo(self, value: Any) -> Any:
        self.sees("echo", value)
        return value

    @seqrpc.method
    async def untyped(self, one: Any, two: Any) -> Any:
        self.sees("untyped", one, two)
        return [two, one]

    @seqrpc.method
    async def text(self, text: str) -> str:
        self.sees("text", text)
        return text * 2

    @seqrpc.method
    async def mixed(self, a: int, b: str, c: float, d: bool, e: bytes) -> list[Any]:
        self.sees("mixed", a, b, c, d, e)
        return [e, d, c, b, a]

    @seqrpc.method
    async def default(self, a: int = 3, b: str = "x") -> str:
        self.sees("default", a, b)
        return f"{a}{b}"

    @seqrpc.method
    async def named(self, *, a: int, b: str | None = None) -> dict[str, Any]:
        self.sees("named", a, b)
        return {"a": a, "b": b}

    @seqrpc.method
    async def point(self, point: Point) -> Point:
        self.sees("point", point)
        return point

    @seqrpc.method
    async def several(self, numbers: list[int], by_name: dict[str, float]) -> tuple[int, float]:
        self.sees("several", numbers, by_name)
        return sum(numbers), float(len(by_name))

    @seqrpc.method
    async def maybe(self, number: int | None) -> int | None:
        self.sees("maybe", number)
        return number

    @seqrpc.method
    async def turns(self, number: int) -> int:
        where = self.sees("turns", number)
        for _ in range(min(number, 6)):
            await asyncio.sleep(0)
        self.world.note(where, "goes on", VAR.get(), told(seqrpc.current_call()))
        return number

    @seqrpc.method
    async def wait(self, gate: int) -> str:
        where = self.sees("wait", gate)
        try:
            await self.world.gate(gate).wait()
        except asyncio.CancelledError as exc:
            self.world.note(where, "cancelled", gate, exc.args)
            raise
        self.world.note(where, "goes on", VAR.get(), told(seqrpc.current_call()))
        return "waited"

    @seqrpc.method
    async def stubborn(self, gate: int) -> str:
        """Go on although it is cancelled, once."""
        where = self.sees("stubborn", gate)
        try:
            await self.world.gate(gate).wait()
        except asyncio.CancelledError:
            self.world.note(where, "stubborn")
            await asyncio.sleep(0)
        return "stubborn"

    @seqrpc.method
    async def fail(self, how: str) -> int:
        self.sees("fail", how)
        if how == "later":
            await asyncio.sleep(0)
        raise {
            "own": Failed("it failed", {"held": 7}),
            "plain": RpcError("plain", code="fuzz.Plain"),
            "reserved": seqrpc.PermissionDenied("not now"),
            "unavailable": seqrpc.Unavailable("closed"),
            "data": Failed("with what cannot be sent", object()),
            "key": KeyError("key"),
            "cancelled": asyncio.CancelledError("by itself"),
            "timeout": TimeoutError(),
            "group": ExceptionGroup("several", [ValueError("one"), Failed("two")]),
            "exit": GeneratorExit(),
            "surrogate": Failed("\ud800", "\ud800"),
            "long": Failed("x" * 70_000, "y" * 70_000),
            "stop": StopAsyncIteration("stop"),
            "base": Grave("of no kind"),
            "interrupt": KeyboardInterrupt("by the handler"),
            "leaves": SystemExit(3),
        }.get(how, ValueError(how))

    @seqrpc.method
    async def give(self, how: str) -> Any:
        self.sees("give", how)
        if how == "descriptor":
            return [OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))]
        if how == "closed":
            fd = OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            fd.close()
            return fd
        if how == "loop":
            ring: list[Any] = []
            ring.append(ring)
            return ring
        if how == "deep":
            deep: Any = None
            for _ in range(80):
                deep = [deep]
            return deep
        return {
            "object": object(), "set": {1}, "function": len, "big": 2**70, "least": -(2**63) - 1, "nan": float("nan"),
            "surrogate": "\ud800", "bytes": b"x" * 70_000, "text": "x" * 70_000, "long": [1] * 70_000,
            "packet": b"x" * (65_536 - 12), "over": b"x" * (65_536 - 5), "level": Level.LOW, "whole": Whole(5),
            "tuple": (1, (2, 3)), "keys": {1: 2, None: 3}, "bytearray": bytearray(b"12"), "view": memoryview(b"123"),
            "moment": datetime(2026, 1, 2, tzinfo=UTC), "decimal": Decimal("1.5"), "point": Point(1, 2.0),
            "error": ValueError("returned"), "zero": -0.0, "max": 2**64 - 1, "empty": "",
            "nested": [[], {}, [{"a": []}]],
            "true": True, "number": 200, "negative": -129, "texts": ["é" * 20, "x" * 300], "frozen": frozenset([1]),
        }.get(how, how)  # fmt: skip

    @seqrpc.method
    async def wrong(self, how: str) -> int:
        """Return something else than is annotated, unless it is asked for what fits."""
        self.sees("wrong", how)
        made: Any = {
            "text": "1", "true": True, "float": 1.0, "none": None, "level": Level.LOW, "whole": Whole(5), "int": 5,
            "big": 2**64, "list": [1], "coroutine": None,
        }.get(how, how)  # fmt: skip
        return made  # type: ignore[no-any-return] # as is said above

    @seqrpc.method
    async def cancels(self, turns: int) -> None:
        """Cancel its own task."""
        self.sees("cancels", turns)
        task = asyncio.current_task()
        assert task is not None
        task.cancel("by itself")
        for _ in range(min(turns, 3)):
            await asyncio.sleep(0)

    @seqrpc.method
    async def uncancels(self) -> str:
        """Cancel its own task, and go on all the same."""
        where = self.sees("uncancels")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            task.uncancel()
        self.world.note(where, "uncancelled", task.cancelling())
        return "alive"

    @seqrpc.method
    async def starts(self, gate: int) -> None:
        """Start a task that outlives the call."""
        where = self.sees("starts", gate)

        async def later() -> None:
            await self.world.gate(gate).wait()
            try:
                seen = told(seqrpc.current_call())
            except LookupError as exc:
                seen = told(exc)
            self.world.note(where, "outlives", VAR.get(), seen)

        self.world.kept.append(asyncio.get_running_loop().create_task(later(), name="started"))

    @seqrpc.method
    async def calls_back(self, method: str, argument: Any) -> Any:
        where = self.sees("calls_back", method, argument)
        try:
            return await seqrpc.current_call().connection.call(method, argument)
        except Exception as exc:
            self.world.note(where, "called back in vain", told(exc))
            raise

    @seqrpc.method
    async def collects(self) -> int:
        self.sees("collects")
        gc.collect()
        return 0

    @seqrpc.method
    async def closes(self, *, waits: bool = True) -> None:
        """Close the connection on which the call came."""
        where = self.sees("closes", waits)
        connection = seqrpc.current_call().connection
        if not waits:
            self.world.time(asyncio.get_running_loop().create_task(connection.close(), name="closes"))
            return
        try:
            await connection.close()
        finally:
            self.world.note(where, "closed", connection.closed)

    @seqrpc.method
    async def ends(self, how: str) -> None:
        """End the server: drain it, close it, or have it refuse what comes."""
        where = self.sees("ends", how)
        server = self.world.server
        if server is None:
            return
        if how == "drain":
            self.world.time(asyncio.get_running_loop().create_task(server.drain(), name="drains"))
        elif how == "close":
            try:
                await server.close()
            finally:
                self.world.note(where, "server closed")
        else:
            server.refuse_new()

    @seqrpc.method
    async def kept(self, value: Any) -> int:
        """Keep the call's view, context and argument beyond the call."""
        self.sees("kept", value)
        self.world.kept.append((seqrpc.current_call(), value))
        return len(self.world.kept)

    @seqrpc.method
    async def changes(self, items: list[Any]) -> list[Any]:
        """Change the argument after it was returned: it is sent as it was."""
        self.sees("changes", items)
        asyncio.get_running_loop().call_soon(items.append, "too late")
        return items

    @seqrpc.method(oneway=True)
    async def tell(self, value: Any) -> None:
        self.sees("tell", value)

    @seqrpc.method(oneway=True)
    async def tell_later(self, gate: int) -> None:
        where = self.sees("tell_later", gate)
        await self.world.gate(gate).wait()
        self.world.note(where, "told")

    @seqrpc.method
    async def secret(self, word: Annotated[str, seqrpc.SENSITIVE]) -> str:
        self.sees("secret", word)
        if word == "fail":
            raise ValueError(word)
        return word

    @seqrpc.method
    async def level(self, level: Level) -> Level:
        self.sees("level", level)
        return level

    @seqrpc.method
    async def descriptor(self, fd: OwnedFd) -> bool:
        self.sees("descriptor", fd)
        return not fd.closed

    @seqrpc.method
    async def keeps(self, fd: OwnedFd) -> bool:
        """Take it out of its object."""
        self.sees("keeps", fd)
        os.close(fd.detach())
        return fd.closed

    @seqrpc.method
    async def waits_with(self, fd: OwnedFd, number: int) -> bool:
        """Wait, and close it."""
        self.sees("waits_with", fd)
        await self.world.gate(number).wait()
        with fd:
            return not fd.closed

    @seqrpc.method
    async def fail_with(self, fd: OwnedFd, how: str) -> None:
        """Raise, as ``fail`` does."""
        self.sees("fail_with", fd, how)
        await self.fail(how)

    @seqrpc.method
    async def takes(self, value: Any) -> int:
        """Take descriptors in anything, and keep them until the end."""
        self.sees("takes", value)
        self.world.kept.append(value)
        return 1

    def unmarked(self) -> None:
        """Be called by nobody."""


class Counter(Base, name="Counter"):
    """An object that is given away, with a connection of its own."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.number = 0

    @seqrpc.method
    async def add(self, number: int) -> int:
        self.sees("Counter.add", number)
        self.number += number
        return self.number

    @seqrpc.method
    async def fail(self) -> None:
        self.sees("Counter.fail")
        raise Failed("of an object")


class Odd(Base, name="Odd", show_arguments=True):
    """The methods that the quick way must leave alone."""

    @seqrpc.method
    def sync(self, a: int) -> int:
        call = seqrpc.current_call()
        running = handled_call()
        assert running is not None
        self.world.note(self.world.name_of(link_of(running.connection)), "in a thread", told(a), told(call), VAR.get())
        VAR.set("in a thread")
        if a < 0:
            raise ValueError(a)
        return a + 1

    @seqrpc.method
    async def stream(self, number: int) -> AsyncIterator[int]:
        self.sees("stream", number)
        for item in range(min(number, 20)):
            yield item
        if number > 20:
            raise Failed("no more")

    @seqrpc.method
    async def counter(self) -> Counter:
        self.sees("counter")
        return Counter(self.world)

    @seqrpc.method
    @_wrapped
    async def wrapped(self, a: int) -> int:
        self.sees("wrapped", a)
        return a

    @seqrpc.method
    @_returning
    async def returning(self, a: int) -> int:
        self.sees("returning", a)
        return a

    @seqrpc.method
    async def point(self, point: Point, level: Level = Level.LOW) -> list[Point]:
        self.sees("point", point, level)
        return [point, Point(level)]


class Guarded(Base, name="Guarded"):
    """Methods with policies of every kind."""

    @seqrpc.method(allow=_asked("counted", answer=True))
    async def counted(self, value: Any) -> int:
        self.sees("counted", value)
        return 1

    @seqrpc.method(allow=_asked("denied", answer=False))
    async def denied(self, value: Any) -> None:
        self.sees("denied", value)

    @seqrpc.method(allow=_asked("raising", ValueError))
    async def raising(self) -> None:
        self.sees("raising")

    @seqrpc.method(allow=_asked("collecting", _collecting))
    async def collecting(self, number: int) -> int:
        self.sees("collecting", number)
        return number

    @seqrpc.method(allow=_asked("ending", _ending))
    async def ending(self, number: int) -> int:
        self.sees("ending", number)
        return number

    @seqrpc.method(allow=_asked("closing", _closing))
    async def closing(self, number: int) -> int:
        self.sees("closing", number)
        return number

    @seqrpc.method(allow=_asked("odd", "yes"))  # no bool
    async def odd(self) -> None:
        self.sees("odd")

    @seqrpc.method(allow=policy.hidden(policy.uid(4711)))
    async def hidden(self, value: int = 0) -> None:
        self.sees("hidden", value)

    @seqrpc.method(allow=policy.same_user | policy.root)
    async def same(self, number: int) -> int:
        self.sees("same", number)
        return number

    @seqrpc.method(allow=policy.root & ~policy.uid(4711))
    async def of_root(self, number: int) -> int:
        self.sees("of_root", number)
        return number

    @seqrpc.method(allow=policy.anyone)
    async def anyones(self, number: int) -> int:
        self.sees("anyones", number)
        return number

    @seqrpc.method(allow=policy.group("nogroup") | policy.gid(0))
    async def of_group(self) -> None:
        self.sees("of_group")

    @seqrpc.method(allow=everybody)
    async def everybodys(self, value: Any) -> Any:
        """Be refused by the machinery, and not by the policy, where nobody knows the caller."""
        self.sees("everybodys", value)
        return value


def services(world: World) -> list[seqrpc.Service]:
    """Return what is served."""
    return [Plain(world), Odd(world), Guarded(world)]
