"""The asynchronous fixtures of pytest, for those who have pytest-asyncio; :mod:`seqrpc.testing.plugin` has the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest_asyncio

if TYPE_CHECKING:
    from seqrpc.aio.connection import Connection
    from seqrpc.testing.pairs import FaultyPair


@pytest_asyncio.fixture
async def seqrpc_serve() -> AsyncIterator[Callable[..., Awaitable[Connection]]]:
    """Return what serves to the end of the test, and connects, as :func:`seqrpc.testing.serve_in_memory`.

    ``connection = await seqrpc_serve(Calculator(), caller=seqrpc_caller(uid=1000))``
    """
    from seqrpc.testing.memory import serve_in_memory  # noqa: PLC0415 - here and below: only for those who ask

    async with AsyncExitStack() as stack:

        async def serve(services: Any, **options: Any) -> Connection:
            return await stack.enter_async_context(serve_in_memory(services, **options))

        yield serve


@pytest_asyncio.fixture
async def seqrpc_faulty_pair() -> AsyncIterator[FaultyPair]:
    """Return a :func:`seqrpc.testing.faulty_pair`, closed at the end of the test."""
    from seqrpc.testing.pairs import faulty_pair  # noqa: PLC0415

    async with faulty_pair() as pair:
        yield pair
