"""One face for clients of both kinds, so that a test is written once: it awaits what one returns, or a thread does."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import seqrpc
import seqrpc.blocking
from seqrpc.aio.proxy import Proxy
from seqrpc.blocking.proxy import Proxy as BlockingProxy

MOST_CALLS = 64
"""How many calls of a blocking client may wait at once."""


class Kind:
    """A kind of client."""

    name: str

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of the client's, and wait for it."""
        raise NotImplementedError

    def connecting(self, *address: Any, **options: Any) -> Any:
        """Return what connects when it is done."""
        raise NotImplementedError

    async def connect(self, *address: Any, **options: Any) -> Client:
        """Connect."""
        return Client(self, await self.do(self.connecting, *address, **options))

    @asynccontextmanager
    async def connected(self, *address: Any, **options: Any) -> AsyncIterator[Client]:
        """Connect, and close at the end."""
        client = await self.connect(*address, **options)
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def serving(
        self,
        *services: seqrpc.Service,
        server_limits: seqrpc.Limits | None = None,
        server_interceptors: Sequence[seqrpc.Interceptor] = (),
        accept_descriptors: bool | None = None,
        **options: Any,
    ) -> AsyncIterator[Client]:
        """Serve on one end of a socket pair; give the client at the other, which is made with ``options``."""
        ours, theirs = seqrpc.socket_pair()
        async with (
            seqrpc.serve(
                services,
                sock=theirs,
                limits=server_limits or seqrpc.Limits(),
                interceptors=server_interceptors,
                accept_descriptors=accept_descriptors,
            ),
            self.connected(sock=ours, **options) as client,
        ):
            yield client

    def timeout(self, delay: float) -> AbstractAsyncContextManager[None]:
        """Bound what is done inside."""
        raise NotImplementedError

    def iterator(self, items: Iterable[Any]) -> Any:
        """Return what streams these when it is given as an argument: it ends as they do, and closes them then."""
        raise NotImplementedError

    def diary(self, name: str, lines: list[str]) -> Any:
        """Return an interceptor that writes down calls as they begin and end, on either side."""
        raise NotImplementedError

    async def revoke(self, service: seqrpc.Service) -> None:
        """Take an object back from all who hold it."""
        raise NotImplementedError

    def face(self, value: Any) -> Any:
        """Return a value that came, with faces on what can be waited for."""
        if isinstance(value, seqrpc.Stream | seqrpc.blocking.Stream):
            return StreamFace(self, value)
        if isinstance(value, seqrpc.Channel | seqrpc.blocking.Channel):
            return Client(self, value)
        if isinstance(value, Proxy | BlockingProxy):
            return ProxyFace(self, value)
        if isinstance(value, list):
            return [self.face(each) for each in value]
        if isinstance(value, dict):
            return {key: self.face(each) for key, each in value.items()}
        return value


def bare(value: Any) -> Any:
    """Return a value without faces, to be sent."""
    if isinstance(value, Face):
        return value.raw
    if isinstance(value, list):
        return [bare(each) for each in value]
    if isinstance(value, dict):
        return {key: bare(each) for key, each in value.items()}
    return value


class Asynchronous(Kind):
    """The client on an event loop."""

    name = "asyncio"

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        done = function(*args, **kwargs)
        return await done if inspect.isawaitable(done) else done

    def connecting(self, *address: Any, **options: Any) -> Any:
        return seqrpc.connect(*address, **options)

    def timeout(self, delay: float) -> AbstractAsyncContextManager[None]:
        return seqrpc.timeout(delay)

    async def iterator(self, items: Iterable[Any]) -> AsyncIterator[Any]:
        try:
            for item in items:
                yield item
        finally:
            getattr(items, "close", str)()

    def diary(self, name: str, lines: list[str]) -> Any:
        return _Diary(name, lines)

    async def revoke(self, service: seqrpc.Service) -> None:
        await seqrpc.revoke(service)


class Blocking(Kind):
    """The client without an event loop, in threads."""

    name = "blocking"

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(MOST_CALLS)

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        whole = functools.partial(context.run, _without_stops, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.threads, whole)

    def connecting(self, *address: Any, **options: Any) -> Any:
        return seqrpc.blocking.connect(*address, **options)

    @asynccontextmanager
    async def timeout(self, delay: float) -> AsyncIterator[None]:
        with seqrpc.blocking.timeout(delay):
            yield

    def iterator(self, items: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from items
        finally:
            getattr(items, "close", str)()

    def diary(self, name: str, lines: list[str]) -> Any:
        return _BlockingDiary(name, lines)

    async def revoke(self, service: seqrpc.Service) -> None:
        await self.do(seqrpc.blocking.revoke, service)


class Alone(Blocking):
    """The client without an event loop, in the only thread that there is: who it calls is another process."""

    name = "alone"

    def __init__(self) -> None:
        """Need no threads."""

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return _without_stops(function, *args, **kwargs)


class _Stopped(Exception):
    """The end of an iterator: StopIteration itself cannot be raised through a future, nor out of a coroutine."""


def _without_stops(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration:
        raise _Stopped from None


class Face:
    """What stands before something of a client's.

    Args:
        kind: how it is waited for.
        raw: what it is itself.
    """

    def __init__(self, kind: Kind, raw: Any) -> None:
        self.kind = kind
        self.raw = raw

    async def _do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        done = await self.kind.do(function, *map(bare, args), **{name: bare(each) for name, each in kwargs.items()})
        return self.kind.face(done)


class Client(Face):
    """A connection, or a channel."""

    async def call(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await self._do(self.raw.call, method, *args, **kwargs)

    async def notify(self, method: Any, /, *args: Any, **kwargs: Any) -> None:
        await self._do(self.raw.notify, method, *args, **kwargs)

    def proxy(self, cls: Any) -> Any:
        return ProxyFace(self.kind, self.raw.proxy(cls))

    async def close(self) -> None:
        await self._do(self.raw.close)

    @property
    def closed(self) -> bool:
        closed: bool = self.raw.closed
        return closed

    @property
    def closing_reason(self) -> str | None:
        reason: str | None = self.raw.closing_reason
        return reason

    @property
    def peer(self) -> seqrpc.Credentials | None:
        peer: seqrpc.Credentials | None = self.raw.peer
        return peer

    def __repr__(self) -> str:
        return repr(self.raw)


class ProxyFace(Face):
    """A proxy, of a connection or of a channel."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.raw, name)
        if inspect.isasyncgenfunction(inspect.unwrap(method)):
            return lambda *args, **kwargs: self.kind.face(method(*map(bare, args), **kwargs))
        return functools.partial(self._do, method)

    def __repr__(self) -> str:
        return repr(self.raw)


class StreamFace(Face):
    """The reading end of a stream."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._do(getattr(type(self.raw), "__anext__", None) or type(self.raw).__next__, self.raw)
        except _Stopped:
            raise StopAsyncIteration from None

    async def open(self) -> Self:
        await self.kind.do(self.raw.open)
        return self

    async def close(self) -> None:
        await self.kind.do(getattr(self.raw, "aclose", None) or self.raw.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        closed: bool = self.raw.closed
        return closed

    def __repr__(self) -> str:
        return repr(self.raw)


class _Diary(seqrpc.Interceptor):
    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    async def _around(self, what: str, proceed: Callable[[], Any]) -> Any:
        self.lines.append(f"{self.name} > {what}")
        try:
            result = await proceed()
        except BaseException as exc:
            self.lines.append(f"{self.name} ! {type(exc).__name__}")
            raise
        self.lines.append(f"{self.name} < {result}")
        return result

    async def handle(self, call: seqrpc.CurrentCall, proceed: Callable[[], Any]) -> Any:
        return await self._around(call.method, proceed)

    async def request(self, call: seqrpc.OutgoingCall, proceed: Callable[[], Any]) -> Any:
        return await self._around(call.method, proceed)

    def ended(self, record: seqrpc.CallRecord) -> None:
        self.lines.append(f"{self.name} = {record.method}: {record.code}")


class _BlockingDiary(seqrpc.blocking.Interceptor):
    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    def _around(self, what: str, proceed: Callable[[], Any]) -> Any:
        self.lines.append(f"{self.name} > {what}")
        try:
            result = proceed()
        except BaseException as exc:
            self.lines.append(f"{self.name} ! {type(exc).__name__}")
            raise
        self.lines.append(f"{self.name} < {result}")
        return result

    def handle(self, call: seqrpc.blocking.CurrentCall, proceed: Callable[[], Any]) -> Any:
        return self._around(call.method, proceed)

    def request(self, call: seqrpc.OutgoingCall, proceed: Callable[[], Any]) -> Any:
        return self._around(call.method, proceed)

    def ended(self, record: seqrpc.CallRecord) -> None:
        self.lines.append(f"{self.name} = {record.method}: {record.code}")
