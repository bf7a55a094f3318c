"""The fixtures of pytest. It is loaded wherever pytest and seqrpc are, so it does nothing until one of them is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from seqrpc.kernel.credentials import Credentials
    from seqrpc.testing.threads import ThreadedServer


def pytest_configure(config: pytest.Config) -> None:
    """Bring the asynchronous fixtures where something runs them."""
    if any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio", "pytest_asyncio.plugin"))):
        config.pluginmanager.import_plugin("seqrpc.testing.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have leaks looked for when all else of a test has ended: what is set up first is torn down last."""
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if "seqrpc_no_leaks" in names:
            names.remove("seqrpc_no_leaks")
            names.insert(_first_of_its_own(item, names), "seqrpc_no_leaks")


def _first_of_its_own(item: pytest.Item, names: list[str]) -> int:
    """Return the place of the first fixture that is the test's own: what it shares with others may stay open."""
    known: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    shared = [place for place, name in enumerate(names) if name in known and known[name][-1].scope != "function"]
    return shared[-1] + 1 if shared else 0


@pytest.fixture
def seqrpc_caller() -> Callable[..., Credentials]:
    """Return :func:`seqrpc.testing.caller`, which makes somebody else: ``seqrpc_caller(uid=1000)``."""
    from seqrpc.testing.callers import caller  # noqa: PLC0415 - here and below: who does not ask for it, pays nothing

    return caller


@pytest.fixture
def seqrpc_no_leaks() -> Iterator[None]:
    """Fail the test if it leaves something behind, as :func:`seqrpc.testing.assert_no_leaks` does."""
    from seqrpc.testing.leaks import assert_no_leaks  # noqa: PLC0415

    with assert_no_leaks():
        yield


@pytest.fixture
def seqrpc_serve_in_thread() -> Iterator[Callable[..., ThreadedServer]]:
    """Return a function that serves in a thread, as :func:`seqrpc.testing.serve_in_thread`, to the end of the test."""
    from seqrpc.testing.threads import serve_in_thread  # noqa: PLC0415

    with ExitStack() as stack:

        def serve(services: Any, **options: Any) -> ThreadedServer:
            return stack.enter_context(serve_in_thread(services, **options))

        yield serve
