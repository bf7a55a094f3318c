"""What clients of both kinds do alike, to the letter: things to do, and what is seen of how each ends."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import seqrpc
from support.faces import Client


class Wrong(seqrpc.RpcError, code="outcomes.Wrong"):
    """An error of the application's."""


class Thing(seqrpc.Service):
    """An object to hold."""

    @seqrpc.method
    async def look(self) -> int:
        return 5

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    async def secret(self) -> None:
        pass


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Various(seqrpc.Service):
    """Ends calls in all ways."""

    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    def unmarked(self) -> None:
        pass

    @seqrpc.method
    async def raises(self, how: str) -> None:
        raise {
            "wrong": Wrong("it was wrong", data={"why": [1, 2]}),
            "empty": Wrong(),
            "unknown": seqrpc.RpcError("it happens", code="others.Unknown", data=5),
            "bug": ZeroDivisionError("a secret"),
            "late": seqrpc.DeadlineExceeded("much too late"),
            "denied": seqrpc.PermissionDenied("not today"),
            "cancelled": asyncio.CancelledError(),
            "unavailable": seqrpc.Unavailable("gone fishing"),
        }[how]

    @seqrpc.method
    def raises_in_a_thread(self) -> None:
        raise Wrong("in a thread")

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    async def secret(self) -> None:
        pass

    @seqrpc.method
    async def wrong_result(self) -> int:
        return "five"  # type: ignore[return-value]

    @seqrpc.method
    async def wrong_point(self) -> Any:
        return {"x": "5"}

    @seqrpc.method
    async def strange(self) -> Any:
        return object()

    @seqrpc.method
    async def point(self, point: Point) -> Point:
        return point

    @seqrpc.method
    async def gives(self, size: int) -> bytes:
        return bytes(size)

    @seqrpc.method
    async def takes(self, data: bytes) -> int:
        return len(data)

    @seqrpc.method
    async def size(self, file: seqrpc.OwnedFd) -> int:
        return os.fstat(file.fileno()).st_size

    @seqrpc.method
    async def brightest(self, pixels: seqrpc.Buffer) -> int:
        return max(pixels)

    @seqrpc.method
    async def count(self, how: str = "") -> AsyncIterator[int]:
        yield 1
        yield 2
        if how == "misfit":
            yield "three"  # type: ignore[misc]
        elif how == "strange":
            yield object()  # type: ignore[misc]
        elif how:
            await self.raises(how)

    @seqrpc.method
    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    @seqrpc.method
    async def thing(self) -> Thing:
        return Thing()

    @seqrpc.method
    async def keep(self, thing: Thing) -> None:
        pass

    @seqrpc.method
    async def slow(self) -> None:
        await asyncio.Event().wait()


class Misread(seqrpc.Service, name="Various"):
    """Expects what is not there."""

    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> str:
        raise NotImplementedError

    @seqrpc.method
    async def wrong_point(self) -> Point:
        raise NotImplementedError

    @seqrpc.method
    async def not_there(self) -> None:
        raise NotImplementedError

    @seqrpc.method
    async def thing(self) -> int:
        raise NotImplementedError

    @seqrpc.method
    async def count(self, how: str = "") -> AsyncIterator[str]:
        yield ""


class Plain:
    """Nothing that can be sent."""


Action = Callable[[Client], Awaitable[Any]]

ACTIONS: dict[str, Action] = {}


def action(function: Action) -> Action:
    """Put something to do into the table."""
    ACTIONS[function.__name__] = function
    return function


async def outcome_of(client: Client, act: Action) -> Any:
    """Do something; return what is seen of how it ended, without what differs each time."""
    try:
        result = await act(client)
    except BaseException as exc:
        return _seen(exc)
    return repr(result)


def _seen(exc: BaseException) -> dict[str, Any]:
    seen: dict[str, Any] = {"class": type(exc), "text": _same(str(exc)), "repr": _same(repr(exc))}
    for name in ("code", "message", "data", "execution", "reason", "errno", "remote"):
        value = getattr(exc, name, None)
        seen[name] = _same(value) if isinstance(value, str) else value
    seen["cause"] = None if exc.__cause__ is None else _seen(exc.__cause__)
    return seen


def _same(text: str) -> str:
    return re.sub(r"incident [0-9a-f]{8}|0x[0-9a-f]+|pid=\d+", "…", text.replace("async with", "with"))


def _call(name: str, *args: Any, **kwargs: Any) -> None:
    label = f"call_{name.rpartition('.')[2]}_{len(ACTIONS)}"
    ACTIONS[label] = lambda client: client.call(name, *args, **kwargs)


def _proxied(name: str, *args: Any, cls: Any = Various, **kwargs: Any) -> None:
    label = f"proxy_{name}_{len(ACTIONS)}"

    async def act(client: Client) -> Any:
        return await getattr(client.proxy(cls), name)(*args, **kwargs)

    ACTIONS[label] = act


def _streamed(*args: Any, cls: Any = Various) -> None:
    label = f"stream_{'_'.join(args)}_{len(ACTIONS)}"

    async def act(client: Client) -> Any:
        seen = []
        stream = client.proxy(cls).count(*args)
        try:
            async for item in stream:
                seen.append(item)  # noqa: PERF401 - what came before an error is seen, too
        except Exception as exc:
            return seen, stream.closed, _seen(exc), repr(stream)
        return seen, stream.closed, repr(stream)

    ACTIONS[label] = act


_call("Various.add", 2)
_call("Various.add", "2")
_call("Various.add", 1, 2, 3)
_call("Various.add", b=5)
_call("Various.add", a=1, c=5)
_call("Various.ad", 2)
_call("add", 2)
_call("Computer.add", 2)
_call("Various.unmarked")
_call("Various.secret")
_call("Various.add", 1, b=2)
_call("Various.add", Plain())
_call("Various.add", [1, {"a": Plain()}])
_call("Various.add", 2**64)
_call("Various.add", "\ud800")
_call("Various.add", {frozenset({1}): 2})
_call("x" * 1000)
_call("Various.point", {"x": "1"})
_call("Various.point", {})
_call("Various.size", 5)
_call("Various.brightest", b"abc")
_call("Various.total", [1, 2])
_call("Various.strange")
_call("Various.wrong_result")
_call("Various.takes", bytes(3_000_000))
_call("Various.gives", 3_000_000)
_call("Various.raises_in_a_thread")
for _how in ("wrong", "empty", "unknown", "bug", "late", "denied", "cancelled", "unavailable"):
    _call("Various.raises", _how)
    _proxied("raises", _how)
    _streamed(_how)
_streamed()
_streamed("misfit")
_streamed("strange")
_streamed(cls=Misread)
_proxied("add", 2)
_proxied("add", "2")
_proxied("add")
_proxied("add", 1, 2, 3)
_proxied("add", 1, a=2)
_proxied("add", 1, c=2)
_proxied("ad", 1)
_proxied("unmarked")
_proxied("secret")
_proxied("add", 1, cls=Misread)
_proxied("wrong_point", cls=Misread)
_proxied("not_there", cls=Misread)
_proxied("thing", cls=Misread)
_proxied("point", Point(1, 2))
_proxied("point", Plain())
_proxied("size", 0)
_proxied("takes", bytes(3_000_000))


@action
async def call_by_the_function(client: Client) -> Any:
    return await client.call(Various.add, 2)


@action
async def notify_by_the_function(client: Client) -> Any:
    return await client.notify(Various.add, 2)


@action
async def notice_that_cannot_be_sent(client: Client) -> Any:
    return await client.notify("Various.add", Plain())


@action
async def notice_that_is_too_large(client: Client) -> Any:
    return await client.notify("Various.takes", bytes(3_000_000))


@action
async def proxy_of_a_name(client: Client) -> Any:
    return client.proxy("Various")


@action
async def proxy_of_an_object(client: Client) -> Any:
    return client.proxy(Various())


@action
async def proxy_of_a_proxy(client: Client) -> Any:
    return client.proxy(client.proxy(Various).raw)


@action
async def closed_descriptor(client: Client) -> Any:
    with seqrpc.OwnedFd.dup(0) as fd:
        pass
    return await client.call("Various.size", fd)


@action
async def file_where_an_owner_is_wanted(client: Client) -> Any:
    with open(os.devnull, "rb") as file:  # noqa: ASYNC230 - it takes no time worth a thread
        return await client.proxy(Various).size(file)


@action
async def closed_buffer(client: Client) -> Any:
    with seqrpc.Buffer.copy_of(b"pixels") as pixels:
        pass
    return await client.proxy(Various).brightest(pixels)


@action
async def too_many_descriptors(client: Client) -> Any:
    with seqrpc.OwnedFd.dup(0) as fd:
        return await client.call("Various.add", [fd] * 254)


@action
async def deadline_has_passed(client: Client) -> Any:
    async with client.kind.timeout(0):
        return await client.call("Various.add", 1)


@action
async def negative_timeout(client: Client) -> Any:
    async with client.kind.timeout(-1):
        return await client.call("Various.add", 1)


@action
async def timeout_of_a_word(client: Client) -> Any:
    async with client.kind.timeout("soon"):  # type: ignore[arg-type]
        return await client.call("Various.add", 1)


@action
async def metadata_of_numbers(client: Client) -> Any:
    with seqrpc.metadata(number=5):  # type: ignore[arg-type]
        return await client.call("Various.add", 1)


@action
async def connection_as_an_argument(client: Client) -> Any:
    return await client.call("Various.keep", client)


@action
async def proxy_of_a_connection_as_an_argument(client: Client) -> Any:
    return await client.call("Various.keep", client.proxy(Various))


@action
async def closed_channel(client: Client) -> Any:
    channel = await client.call("Various.thing")
    before = repr(channel)
    await channel.close()
    first = _seen(await _error(channel.call("Thing.look")))
    return before, repr(channel), channel.closed, first, _seen(await _error(channel.notify("Thing.look")))


@action
async def channel_that_was_used_and_closed(client: Client) -> Any:
    channel = await client.call("Various.thing")
    assert await channel.call("Thing.look") == 5
    await channel.close()
    sending_on = _seen(await _error(client.call("Various.keep", channel)))
    return _seen(await _error(channel.call("Thing.look"))), sending_on


@action
async def channel_that_was_passed_on(client: Client) -> Any:
    channel = await client.call("Various.thing")
    await client.call("Various.keep", channel)
    first = _seen(await _error(channel.call("Thing.look")))
    return first, _seen(await _error(client.call("Various.keep", channel)))


@action
async def channel_sent_over_itself(client: Client) -> Any:
    thing = await client.call("Various.thing")
    return await thing.call("Thing.look", thing)


@action
async def object_s_method_that_is_not_there(client: Client) -> Any:
    thing = await client.call("Various.thing")
    return await thing.call("Thing.loook")


@action
async def object_s_method_that_is_for_nobody(client: Client) -> Any:
    thing = await client.proxy(Various).thing()
    return await thing.secret()


@action
async def stream_that_was_closed(client: Client) -> Any:
    stream = await client.call("Various.count")
    before = await anext(stream), repr(stream)
    await stream.close()
    return (
        before,
        repr(stream),
        _seen(await _error(anext(stream))),
        _seen(await _error(client.call("Various.total", stream))),
    )


@action
async def stream_that_was_read_to_its_end(client: Client) -> Any:
    stream = client.proxy(Various).count()
    before = repr(stream)
    items = [item async for item in stream]
    return before, items, repr(stream), _seen(await _error(client.proxy(Various).total(stream)))


@action
async def stream_that_was_passed_on(client: Client) -> Any:
    stream = await client.call("Various.count")
    total = await client.call("Various.total", stream)
    again = _seen(await _error(client.call("Various.total", stream)))
    return total, repr(stream), stream.closed, _seen(await _error(anext(stream))), again


@action
async def stream_that_fails_is_passed_on(client: Client) -> Any:
    return await client.proxy(Various).total(await client.proxy(Various).count("wrong").open())


@action
async def stream_with_items_unread_is_passed_on(client: Client) -> Any:
    stream = client.proxy(Various).count()
    assert await anext(stream) == 1
    return await client.proxy(Various).total(stream)


@action
async def stream_that_is_not_open_is_passed_on(client: Client) -> Any:
    return await client.proxy(Various).total(client.proxy(Various).count())


@action
async def stream_of_a_method_that_is_not_there(client: Client) -> Any:
    class Others(seqrpc.Service, name="Others"):
        @seqrpc.method
        async def count(self) -> AsyncIterator[int]:
            yield 1

    stream = client.proxy(Others).count()
    first = _seen(await _error(anext(stream)))
    return first, repr(stream), stream.closed


@action
async def stream_with_a_wrong_argument(client: Client) -> Any:
    return client.proxy(Various).count(1, 2, 3)


@action
async def iterator_as_an_argument(client: Client) -> Any:
    return await client.call("Various.total", client.kind.iterator([1, 2, 3]))


@action
async def iterator_with_an_item_that_does_not_fit(client: Client) -> Any:
    return await client.call("Various.total", client.kind.iterator([1, "two", 3]))


@action
async def iterator_with_an_item_that_cannot_be_sent(client: Client) -> Any:
    return await client.call("Various.total", client.kind.iterator([1, Plain(), 3]))


@action
async def iterator_where_a_number_is_wanted(client: Client) -> Any:
    return await client.call("Various.add", client.kind.iterator([1, 2, 3]))


@action
async def object_where_a_number_is_wanted(client: Client) -> Any:
    thing = Thing()
    try:
        return await client.call("Various.add", thing)
    finally:
        await client.kind.revoke(thing)


@action
async def revoking_what_is_no_object(client: Client) -> Any:
    return await client.kind.revoke(5)  # type: ignore[arg-type]


@action
async def revoking_a_class(client: Client) -> Any:
    return await client.kind.revoke(Thing)  # type: ignore[arg-type]


async def _error(awaitable: Awaitable[Any]) -> BaseException:
    try:
        await awaitable
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")
