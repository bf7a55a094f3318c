"""Streams, services and buffers are found wherever an annotation has them."""

from __future__ import annotations

import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Annotated, Any

import msgspec
import pytest
from support.annotations import (
    Box,
    Clumsy,
    DataVault,
    Everything,
    Mixed,
    Point,
    Shape,
    StructOfStreams,
    Vault,
    converted,
    living_values,
)

from seqrpc.aio.channels import end_of
from seqrpc.aio.proxy import Proxy, callee_of
from seqrpc.aio.streams import Stream
from seqrpc.interface.annotations import shape_of
from seqrpc.interface.contents import takes_descriptors
from seqrpc.interface.conversion import convert
from seqrpc.interface.planning import plan
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd


@pytest.mark.parametrize(
    "annotation, wrap",
    [
        (AsyncIterator[int], lambda value: value),
        (AsyncIterable[int], lambda value: value),
        (AsyncGenerator[int, None], lambda value: value),
        (typing.AsyncIterator[int], lambda value: value),
        (AsyncIterator, lambda value: value),
        (Stream[int], lambda value: value),
        (Stream, lambda value: value),
        (Any, lambda value: value),
        (AsyncIterator[Point | None] | None, lambda value: value),
        (AsyncIterator[Mixed] | int, lambda value: value),
        (AsyncIterator[int] | OwnedFd | str, lambda value: value),
        (Annotated[AsyncIterator[int], "a note"], lambda value: value),
        (list[AsyncIterator[int]], lambda value: [value]),
        (dict[str, AsyncIterator[int] | None], lambda value: {"a": value, "b": None}),
        (tuple[int, AsyncIterator[int]], lambda value: (1, value)),
    ],
)
def test_streams_are_found_wherever_they_are(annotation: Any, wrap: Callable[[Any], Any]) -> None:
    planned = plan(annotation)
    assert takes_descriptors(shape_of(annotation))
    with living_values() as (stream, _channel, _buffer):
        assert convert(wrap(stream), planned) == wrap(stream)


@pytest.mark.parametrize(
    "annotation, wrap, unwrap",
    [
        (Vault, lambda value: value, lambda got: got),
        (Vault | None, lambda value: value, lambda got: got),
        (Vault | int | None, lambda value: value, lambda got: got),
        (Vault | AsyncIterator[int] | Buffer | OwnedFd, lambda value: value, lambda got: got),
        (list[Vault], lambda value: [value], lambda got: got[0]),
        (dict[str, Vault | str], lambda value: {"a": value, "b": "c"}, lambda got: got["a"]),
        (Box[Vault], lambda value: {"item": value}, lambda got: got.item),
        (DataVault, lambda value: value, lambda got: got),
        (list[DataVault | None], lambda value: [None, value], lambda got: got[1]),
        (Annotated[Vault, "a note"], lambda value: value, lambda got: got),
    ],
)
def test_channels_become_proxies_of_the_annotated_service(
    annotation: Any, wrap: Callable[[Any], Any], unwrap: Callable[[Any], Any]
) -> None:
    planned = plan(annotation)
    assert takes_descriptors(shape_of(annotation))
    with living_values() as (_stream, channel, _buffer):
        proxy = unwrap(convert(wrap(channel), planned))
        assert isinstance(proxy, Proxy)
        assert callee_of(proxy) is end_of(channel)
        assert type(proxy).__name__ in ("VaultProxy", "DataVaultProxy")


@pytest.mark.parametrize(
    "annotation", [Buffer, Buffer | None, Buffer | str, Buffer | OwnedFd, Any, Vault | Buffer, Buffer | bytes]
)
def test_buffers_come_as_they_are(annotation: Any) -> None:
    with living_values() as (_stream, _channel, buffer):
        assert takes_descriptors(shape_of(annotation))
        assert converted(buffer, annotation) is buffer
        assert converted([buffer], list[annotation])[0] is buffer


@pytest.mark.parametrize("annotation", [memoryview, memoryview | None, memoryview | int, memoryview | OwnedFd])
def test_a_memoryview_is_of_a_buffer_or_of_bytes(annotation: Any) -> None:
    with living_values() as (_stream, _channel, buffer):
        assert takes_descriptors(shape_of(annotation))
        for value in (buffer, b"abc", memoryview(b"abc")):
            with converted(value, annotation) as view:
                assert type(view) is memoryview
                assert bytes(view) == b"abc"
        with pytest.raises(
            msgspec.ValidationError, match=r"Expected (a buffer or bytes|`memoryview \| .*`), got `str`"
        ):
            converted("abc", annotation)


def test_all_of_them_are_found_in_dataclasses() -> None:
    with living_values() as (stream, channel, buffer):
        wire = {"vault": channel, "stream": stream, "buffer": buffer, "view": b"xyz", "data_vaults": [channel]}
        got = converted(wire, Everything)
        assert got.stream is stream
        assert got.buffer is buffer
        assert got.view == b"xyz"
        assert [type(proxy).__name__ for proxy in (got.vault, *got.data_vaults)] == ["VaultProxy", "DataVaultProxy"]
        assert converted({"vault": channel, "stream": stream}, Everything).buffer is None


def test_streams_and_buffers_are_found_in_structs() -> None:
    with living_values() as (stream, _channel, buffer):
        got = converted({"stream": stream, "buffer": buffer}, StructOfStreams)
        assert (got.stream, got.buffer) == (stream, buffer)
        with pytest.raises(msgspec.ValidationError, match=r"Expected a stream, got `int` - at `\$.stream`"):
            converted({"stream": 5, "buffer": buffer}, StructOfStreams)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (AsyncIterator[int], "Expected a stream, got `int`"),
        (Vault, "Expected a channel, got `int`"),
        (Buffer, "Expected a buffer, got `int`"),
        (list[Vault], r"Expected a channel, got `int` - at `\$\[0\]`"),
        (Vault | str, r"Expected `Vault \| str`, got `int`"),
        (Vault | None, "Expected a channel, got `int`"),
    ],
)
def test_what_is_none_of_them_does_not_fit(annotation: Any, message: str) -> None:
    value = [5] if annotation == list[Vault] else 5
    with pytest.raises(msgspec.ValidationError, match=message):
        converted(value, annotation)


def test_a_fault_of_a_type_of_the_application_s_own_is_its_fault() -> None:
    with pytest.raises(AttributeError, match="no_such_method"):
        converted({"word": "x"}, Clumsy)


def test_one_is_not_another() -> None:
    with living_values() as (stream, channel, buffer):
        for wrong, annotation in (
            (stream, Vault), (channel, AsyncIterator[int]), (buffer, OwnedFd), (stream, Buffer), (buffer, Vault),
            (stream, int), (channel, str), (channel, DataVault | memoryview), (buffer, dict[str, int]),
            (buffer, list[int]), (buffer, Point), (buffer, Shape), (buffer, Mixed), (stream, list[int]),
        ):  # fmt: skip
            if annotation == DataVault | memoryview:
                assert isinstance(converted(wrong, annotation), Proxy)
                continue
            with pytest.raises(msgspec.ValidationError, match=r"Expected|missing"):
                converted(wrong, annotation)
