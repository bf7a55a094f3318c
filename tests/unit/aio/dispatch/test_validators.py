"""What a class says of an argument that it does not take reaches the caller; whatever else it raises does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from support.daemons import on_a_pair
from support.incidents import AN_INCIDENT

import seqrpc


def look_at(word: str) -> None:
    if word == "value":
        raise ValueError("a word has no 'v' here")
    if word == "type":
        raise TypeError("a word is no type")
    if word == "other":
        raise LookupError("the secret of the house")


@dataclass
class Plain:
    word: str

    def __post_init__(self) -> None:
        look_at(self.word)


class Strict(msgspec.Struct):
    word: str

    def __post_init__(self) -> None:
        look_at(self.word)


@dataclass
class Living:
    """Is put together by seqrpc itself."""

    word: str
    source: seqrpc.OwnedFd | str = "none"

    def __post_init__(self) -> None:
        look_at(self.word)


class Checks(seqrpc.Service):
    @seqrpc.method
    async def plain(self, thing: Plain) -> None: ...

    @seqrpc.method
    async def strict(self, thing: Strict) -> None: ...

    @seqrpc.method
    async def living(self, thing: Living) -> None: ...

    @seqrpc.method
    async def many(self, things: list[Plain]) -> None: ...

    @seqrpc.method
    async def streamed(self, things: AsyncIterator[Plain]) -> None:
        async for _ in things:
            pass


@pytest.mark.parametrize("method", ["plain", "strict", "living"])
@pytest.mark.parametrize("word, text", [("value", "a word has no 'v' here"), ("type", "a word is no type")])
async def test_a_value_error_or_a_type_error_is_a_word_to_the_caller(method: str, word: str, text: str) -> None:
    async with on_a_pair(Checks()) as connection:
        with pytest.raises(seqrpc.InvalidParams) as caught:
            await connection.call(f"Checks.{method}", {"word": word})
        assert caught.value.message == f"Checks.{method}: {text} - at `thing`"


async def test_with_the_path_to_the_value() -> None:
    async with on_a_pair(Checks()) as connection:
        with pytest.raises(seqrpc.InvalidParams, match=r"a word is no type - at `things\[1\]`"):
            await connection.call("Checks.many", [{"word": "good"}, {"word": "type"}])


@pytest.mark.parametrize("method", ["plain", "strict", "living"])
async def test_what_else_it_raises_is_its_own_affair(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Checks()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call(f"Checks.{method}", {"word": "other"})
        assert caught.value.message == AN_INCIDENT
    assert "the secret of the house" in caplog.text


@pytest.mark.parametrize(
    "word, code, text",
    [
        ("value", "rpc.InvalidParams", "an item of a stream does not fit its annotation: a word has no 'v' here"),
        ("other", "rpc.Internal", AN_INCIDENT),
    ],
)
async def test_so_it_is_with_items(word: str, code: str, text: Any) -> None:
    async def things() -> AsyncIterator[dict[str, str]]:
        yield {"word": word}

    async with on_a_pair(Checks()) as connection:
        with pytest.raises(seqrpc.RpcError) as caught:
            await connection.call("Checks.streamed", things())
        assert (caught.value.code, caught.value.message) == (code, text)
