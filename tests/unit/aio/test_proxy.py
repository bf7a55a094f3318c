from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.daemons import Stage, on_a_pair

import seqrpc
from seqrpc import OwnedFd
from seqrpc.aio.proxy import Proxy, proxy_class


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Reply(msgspec.Struct):
    fd: OwnedFd
    name: str


@dataclasses.dataclass
class Explosive:
    word: str

    def __post_init__(self) -> None:
        raise KeyError(self.word)


class Shapes(seqrpc.Service, name="org.example.Shapes"):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def move(self, point: Point, /, by: int = 1, *, back: bool = False) -> Point:
        return Point(point.x + (-by if back else by), point.y)

    @seqrpc.method
    async def nothing(self) -> None:
        pass

    @seqrpc.method
    async def count(self) -> int:
        return 5

    @seqrpc.method
    async def anything(self, value: Any) -> Any:
        return value

    @seqrpc.method
    async def open(self, fd: OwnedFd) -> Reply:
        return Reply(OwnedFd.dup(fd), "x")

    @seqrpc.method
    async def open_both(self, fd: OwnedFd) -> list[OwnedFd]:
        return [fd, OwnedFd.dup(fd)]

    @seqrpc.method
    async def fail(self) -> int:
        raise seqrpc.Overloaded("later")

    @seqrpc.method(oneway=True)
    async def tell(self, word: str) -> None:
        self.stage.reach(word)
        raise RuntimeError("nobody hears this")

    async def hidden(self) -> None:
        pass


class Interface:
    """What an app ships instead of the implementation; it is told otherwise than what the service does."""

    async def count(self) -> str: ...  # type: ignore[empty-body]

    async def anything(self, value: Any) -> Explosive: ...  # type: ignore[empty-body]

    async def open(self, fd: OwnedFd) -> int: ...  # type: ignore[empty-body]

    async def open_both(self, fd: OwnedFd) -> list[int]: ...  # type: ignore[empty-body]

    async def nothing(self) -> int: ...  # type: ignore[empty-body]

    async def not_there(self) -> int: ...  # type: ignore[empty-body]


class Liar(Shapes, name="Interface"):
    pass


async def test_a_proxy_calls_with_python_s_own_arguments_and_converts_results() -> None:
    async with on_a_pair(Shapes()) as connection:
        shapes = connection.proxy(Shapes)
        assert await shapes.move(Point(1)) == Point(2)
        assert await shapes.move(Point(1, 5), 3) == Point(4, 5)
        assert await shapes.move(Point(1), back=True) == Point(0)
        assert await shapes.move(Point(1), by=2, back=True) == Point(-1)
        assert await shapes.count() == 5
        assert await shapes.nothing() is None  # type: ignore[func-returns-value]
        assert await shapes.anything({"a": [1, None]}) == {"a": [1, None]}
        with pytest.raises(seqrpc.InvalidParams, match="Expected `int`, got `str` - at `by`"):
            await shapes.move(Point(1), "x")  # type: ignore[arg-type]


async def test_wrong_calls_fail_before_anything_is_sent() -> None:
    async with on_a_pair(Shapes()) as connection:
        shapes = connection.proxy(Shapes)
        with pytest.raises(TypeError, match="got the argument 'by' twice"):
            await shapes.move(Point(1), 2, by=3)  # type: ignore[misc]
        with pytest.raises(AttributeError):
            await shapes.hidden()
        with pytest.raises(seqrpc.LocalProtocolError, match=r"cannot send params\[0\]"):
            await shapes.anything(object())


async def test_errors_come_back_as_their_class() -> None:
    async with on_a_pair(Shapes()) as connection:
        with pytest.raises(seqrpc.Overloaded, match="later"):
            await connection.proxy(Shapes).fail()


async def test_results_bring_descriptors_that_are_the_caller_s(pipe: tuple[int, int]) -> None:
    async with on_a_pair(Shapes()) as connection:
        with OwnedFd.dup(pipe[0]) as fd:
            reply = await connection.proxy(Shapes).open(fd)
            assert not fd.closed, "arguments are borrowed"
        with reply.fd:
            assert (reply.name, os.fstat(reply.fd.fileno()).st_ino) == ("x", os.fstat(pipe[0]).st_ino)


async def test_oneway_methods_do_not_wait_for_an_answer() -> None:
    service = Shapes()
    async with on_a_pair(service) as connection:
        shapes = connection.proxy(Shapes)
        assert await shapes.tell("by position") is None  # type: ignore[func-returns-value]
        assert await shapes.tell(word="by name") is None  # type: ignore[func-returns-value]
        await service.stage.wait("by name")
    assert service.stage.reached == ["by position", "by name"]


async def test_oneway_calls_obey_the_deadline_and_carry_metadata() -> None:
    seen: list[Any] = []

    class Teller(seqrpc.Service):
        @seqrpc.method(oneway=True)
        async def tell(self) -> None:
            call = seqrpc.current_call()
            seen.append((call.meta, call.deadline is not None))

    async with on_a_pair(Teller()) as connection:
        async with seqrpc.timeout(60):
            with seqrpc.metadata(trace="1"):
                await connection.proxy(Teller).tell()
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with seqrpc.timeout(0):
                await connection.proxy(Teller).tell()
        await connection.call("rpc.ping")
        assert seen == [({"trace": "1"}, True)]


async def test_an_answer_that_does_not_fit_is_an_invalid_result_and_its_descriptors_are_closed(
    pipe: tuple[int, int],
) -> None:
    async with on_a_pair(Liar()) as connection:
        before = len(os.listdir("/proc/self/fd"))
        told = connection.proxy(Interface)
        with pytest.raises(seqrpc.InvalidResult, match=r"Interface\.count .*Expected `str`, got `int`"):
            await told.count()
        with pytest.raises(seqrpc.InvalidResult, match="Expected `int`, got `null`"):
            await told.nothing()
        with pytest.raises(seqrpc.InvalidResult, match="explode"):
            await told.anything({"word": "explode"})
        with OwnedFd.dup(pipe[0]) as fd:
            with pytest.raises(seqrpc.InvalidResult):
                await told.open(fd)
            with pytest.raises(seqrpc.InvalidResult):
                await told.open_both(fd)
        with pytest.raises(seqrpc.MethodNotFound):
            await told.not_there()
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_any_class_with_annotated_methods_will_do() -> None:
    class Calculator:
        async def add(self, a: int, b: int) -> float: ...  # type: ignore[empty-body]

    class Implementation(seqrpc.Service, name="Calculator"):
        @seqrpc.method
        async def add(self, a: int, b: int) -> int:
            return a + b

    async with on_a_pair(Implementation()) as connection:
        result = await connection.proxy(Calculator).add(1, b=2)
        assert (result, type(result)) == (3.0, float)


async def test_a_proxy_says_what_it_is() -> None:
    async with on_a_pair(Shapes()) as connection:
        shapes = connection.proxy(Shapes)
        assert isinstance(shapes, Proxy)
        assert repr(shapes) == f"<ShapesProxy on {connection!r}>"
        assert shapes.move.__name__ == "move"
        with pytest.raises(AttributeError):
            shapes.colour = 5  # type: ignore[attr-defined]


def test_the_class_of_proxies_is_made_once() -> None:
    assert proxy_class(Shapes) is proxy_class(Shapes)
    assert proxy_class(Shapes) is not proxy_class(Liar)


def test_a_class_that_cannot_be_called_is_a_type_error() -> None:
    class Wrong:
        async def stars(self, *args: int) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.stars"):
        proxy_class(Wrong)


class Room(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def look(self) -> int:
        return 5

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @seqrpc.method
    async def wrong(self) -> AsyncIterator[Any]:
        for item in (1, "x"):
            yield item

    async def close(self) -> None:
        self.stage.reach("closed")


class WrongRoom(seqrpc.Service, name="Room"):
    @seqrpc.method
    async def look(self) -> str: ...  # type: ignore[empty-body]

    @seqrpc.method
    async def wrong(self) -> AsyncIterator[int]:
        yield 1


class House(seqrpc.Service):
    def __init__(self) -> None:
        self.room = Room()

    @seqrpc.method
    async def enter(self) -> Room:
        return self.room


@pytest.mark.parametrize("how", ["close", "block", "block that fails"])
async def test_closing_the_proxy_of_a_channel_lets_go_of_the_object(how: str) -> None:
    house = House()
    async with on_a_pair(house) as connection:
        room = await connection.proxy(House).enter()
        if how == "close":
            await room.close()
            await room.close()
        else:
            with pytest.raises(KeyError) if how == "block that fails" else contextlib.nullcontext():
                async with room as same:
                    assert same is room
                    assert await room.look() == 5
                    if how == "block that fails":
                        raise KeyError
        await house.room.stage.wait("closed")
        with pytest.raises(seqrpc.ConnectionLost):
            await room.look()


async def test_closing_the_proxy_of_a_whole_connection_leaves_the_connection() -> None:
    async with on_a_pair(House(), Room()) as connection:
        room = connection.proxy(Room)
        await room.close()
        async with room as same:
            assert await same.look() == 5
        assert await room.look() == 5
        assert not connection.closed


async def test_a_proxy_s_stream_makes_its_call_when_it_is_read_or_opened() -> None:
    async with on_a_pair(Room()) as connection:
        room = connection.proxy(Room)
        stream = room.count(3)
        assert isinstance(stream, seqrpc.Stream)
        assert repr(stream) == "<Stream unopened>"
        assert [number async for number in stream] == [0, 1, 2]
        assert [number async for number in await room.count(to=2).open()] == [0, 1]  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="got the argument 'to' twice"):
            room.count(1, to=2)  # type: ignore[misc]
        await room.count(1).aclose()
        with pytest.raises(seqrpc.InvalidParams):
            await anext(room.count("x"))  # type: ignore[arg-type]


async def test_items_that_do_not_fit_are_an_invalid_result_at_the_caller() -> None:
    async with on_a_pair(Room()) as connection:
        stream = connection.proxy(WrongRoom).wrong()
        assert await anext(stream) == 1
        with pytest.raises(seqrpc.InvalidResult, match="Expected `int`, got `str`"):
            await anext(stream)


async def test_a_stream_or_channel_in_an_answer_that_does_not_fit_is_let_go() -> None:
    house = House()

    class WrongHouse(seqrpc.Service, name="House"):
        @seqrpc.method
        async def enter(self) -> int: ...  # type: ignore[empty-body]

    async with on_a_pair(house) as connection:
        with pytest.raises(seqrpc.InvalidResult, match=r"Expected `int`, got `Channel`"):
            await connection.proxy(WrongHouse).enter()
        await house.room.stage.wait("closed")


class Keeper(seqrpc.Service):
    def __init__(self) -> None:
        self.kept = 0

    @seqrpc.method
    async def keep(self, file: seqrpc.OwnedFd | None = None) -> int:
        self.kept += 1
        return 0 if file is None else os.fstat(file.fileno()).st_ino

    @seqrpc.method(oneway=True)
    async def tell(self, file: seqrpc.OwnedFd) -> None:
        self.kept += 1

    @seqrpc.method
    async def lines(self, file: seqrpc.OwnedFd) -> AsyncIterator[int]:
        yield os.fstat(file.fileno()).st_ino


async def test_a_file_where_an_owner_is_annotated_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    keeper = Keeper()
    path = tmp_path / "file"
    path.touch()
    async with on_a_pair(keeper) as connection:
        proxy = connection.proxy(Keeper)
        with path.open("rb") as file, seqrpc.OwnedFd.dup(file) as fd:
            inode = path.stat().st_ino
            wrong: Any = file
            for call in (proxy.keep, proxy.tell, proxy.lines):
                with pytest.raises(TypeError, match=rf"^Keeper\.{call.__name__}: `file` is annotated with OwnedFd"):
                    call(wrong)
                with pytest.raises(TypeError, match=rf"^Keeper\.{call.__name__}: `file` is annotated with OwnedFd"):
                    call(file=wrong)
            assert keeper.kept == 0
            assert await proxy.keep(fd) == await proxy.keep(file=fd) == inode
            assert await anext(proxy.lines(fd)) == inode
            assert await proxy.keep() == 0
            assert await connection.call("Keeper.keep", file) == inode
            assert not fd.closed


class Looks(seqrpc.Service):
    """What may be called twice."""

    @seqrpc.method(idempotent=True)
    async def look(self, number: int, *, more: int = 0) -> int:
        return number + more

    @seqrpc.method(idempotent=True)
    async def count(self) -> AsyncIterator[int]:
        yield 1

    @seqrpc.method
    async def other(self) -> seqrpc.Service:
        return Looks()


async def test_what_may_be_called_twice_is_called_once_over_what_is_not_made_anew() -> None:
    async with on_a_pair(Looks()) as connection:
        proxy = connection.proxy(Looks)
        other = (await connection.call("Looks.other")).proxy(Looks)
        for each in (proxy, other):
            assert await each.look(1) == 1
            assert await each.look(number=1, more=2) == 3
            assert [number async for number in each.count()] == [1]
        calling: Any = proxy.look(1)
        assert calling.__qualname__ == "Looks.look"
        assert await calling == 1
