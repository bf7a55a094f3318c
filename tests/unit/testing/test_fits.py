"""Whether a class fits an interface, also one that it does not derive from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

import seqrpc
from seqrpc.testing import assert_fits


class Store(Protocol):
    async def get(self, key: str, default: bytes | None = None) -> bytes | None: ...
    async def put(self, key: str, value: bytes) -> None: ...
    def keys(self, prefix: str = "") -> AsyncIterator[str]: ...


class Fitting(seqrpc.Service):
    @seqrpc.method
    def get(self, key: str, default: bytes | None = None, *, fresh: bool = False) -> bytes | None:
        return default

    @seqrpc.method
    async def put(self, key: str | int, value: bytes) -> None: ...

    @seqrpc.method
    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        yield ""

    @seqrpc.method
    async def more(self) -> None: ...


class Fake:
    async def get(self, key: str, default: bytes | None = None) -> bytes | None:
        return None

    async def put(self, key: str, value: bytes) -> None: ...

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        yield prefix


class Wrong(seqrpc.Service):
    @seqrpc.method
    async def get(self, name: str) -> int:
        return 0

    async def put(self, key: str, value: bytes) -> None: ...

    @seqrpc.method
    async def keys(self, prefix: str = "") -> list[str]:
        return []


class Api(seqrpc.Service):
    @seqrpc.method(oneway=True)
    async def tell(self, text: str) -> None: ...


class Told(seqrpc.Service):
    @seqrpc.method
    async def tell(self, text: str) -> None: ...


def test_what_fits_passes() -> None:
    for what in (Fitting, Fitting(), Fake, Fake(), Store):
        assert_fits(what, Store)
    assert_fits(Fitting, Fitting)
    assert_fits(Told, Told)


def test_what_does_not_is_told_a_line_for_each_method() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_fits(Wrong, Store)
    assert str(caught.value).splitlines() == [
        "Wrong does not fit Store:",
        "get: its result may be an integer, and that of that one not",
        "keys: it gives one answer, and that one streams",
        "put: it is not served: mark it with @seqrpc.method",
    ]
    with pytest.raises(AssertionError, match="more: it is missing"):
        assert_fits(Fake, Fitting)
    with pytest.raises(AssertionError, match="tell: it gives one answer, and that one is one-way"):
        assert_fits(Told(), Api)


def test_parameters_are_looked_at() -> None:
    class Named:
        async def get(self, name: str, default: bytes | None = None) -> bytes | None:
            return default

        async def put(self, key: str, value: bytes, mode: int) -> None: ...

        async def keys(self, prefix: int = 0) -> AsyncIterator[str]:
            yield ""

    with pytest.raises(AssertionError) as caught:
        assert_fits(Named, Store)
    assert str(caught.value).splitlines()[1:] == [
        "get: it has no parameter `key`",
        "keys: its parameter `prefix` does not take a string, and that of that one does",
        "put: its parameter `mode` has to be given, and that one has none of the name",
    ]


def test_what_is_no_class_is_no_interface() -> None:
    for interface in (5, "Store", Fake()):
        what: Any = interface
        with pytest.raises(TypeError, match="assert_fits takes a class as the interface, got "):
            assert_fits(Fake, what)


def test_an_interface_that_cannot_be_called_from_elsewhere_is_told() -> None:
    class Odd:
        async def get(self, key: complex) -> None: ...

    with pytest.raises(TypeError, match="complex"):
        assert_fits(Fake, Odd)
