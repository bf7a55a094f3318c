"""A secret that is sent in every wrong way is in no log, and is not answered."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import logging
import pathlib
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgpack
import pytest
from support.daemons import raw_client
from support.sync import raw_peer
from support.waiting import comes_true

import seqrpc
from seqrpc.interface.description import describe

SECRET = "hunter2-and-more"

Secret = Annotated[str, seqrpc.SENSITIVE]


class Color(enum.Enum):
    RED = "red"


class Rejected(seqrpc.RpcError, code="sensitive.Rejected"):
    pass


@dataclass
class Key:
    """Says what it does not like."""

    value: Secret

    def __post_init__(self) -> None:
        raise ValueError(f"no key: {self.value}")


class Token:
    """Fails in a way that nobody foresaw."""

    def __init__(self, value: str) -> None:
        raise KeyError(value)


seqrpc.register_type(Token, wire_type=str, encode=lambda _token: "", decode=Token)


class Vault(seqrpc.Service):
    """Takes secrets of all kinds, and fails with them."""

    @seqrpc.method
    async def login(  # noqa: PLR0917 - to be wrong in each
        self,
        user: str,
        password: Secret,
        color: Color = Color.RED,
        kind: Literal["a"] = "a",
        when: dt.datetime | None = None,
        path: pathlib.Path | None = None,
    ) -> str:
        return "welcome"

    @seqrpc.method
    async def key(self, key: Key) -> None: ...

    @seqrpc.method
    async def token(self, token: Annotated[Token, seqrpc.SENSITIVE]) -> None: ...

    @seqrpc.method
    async def fail(self, password: Secret) -> None:
        try:
            raise ValueError(password)
        except ValueError as exc:
            exc.add_note(password)
            raise ExceptionGroup(password, [exc, OSError(password)]) from exc

    @seqrpc.method
    def fail_in_thread(self, password: Secret) -> None:
        raise ValueError(password)

    @seqrpc.method
    async def wrong_result(self, password: Secret) -> int:
        return password  # type: ignore[return-value] # it is wrong

    @seqrpc.method
    async def unsendable(self, password: Secret) -> Any:
        return {password: object()}

    @seqrpc.method
    async def give(self) -> Annotated[int, seqrpc.SENSITIVE]:
        return SECRET  # type: ignore[return-value] # it is wrong

    @seqrpc.method
    async def give_in_vain(self) -> Secret:
        raise ValueError(SECRET)

    @seqrpc.method
    async def give_one_by_one(self) -> AsyncIterator[Secret]:
        yield "1"
        raise ValueError(SECRET)

    @seqrpc.method
    async def reject(self, password: Secret) -> None:
        try:
            raise ValueError(password)
        except ValueError:
            raise Rejected("no", {"closed": Closed()}) from None

    @seqrpc.method
    async def stream(self, password: Secret) -> AsyncIterator[int]:
        yield 1
        raise ValueError(password)

    @seqrpc.method(oneway=True)
    async def note(self, password: Secret, color: Color = Color.RED) -> None:
        raise ValueError(password)


class Closed:
    """What looks like an open file, and is none."""

    def fileno(self) -> int:
        raise ValueError(f"closed: {SECRET}")


CALLS: list[tuple[str, Any]] = [
    ("login", ["me", SECRET]),
    ("login", [SECRET]),
    ("login", ["me", [SECRET]]),
    ("login", ["me", {SECRET: SECRET}]),
    ("login", ["me", SECRET.encode()]),
    ("login", ["me", 7, SECRET]),
    ("login", ["me", "x", SECRET]),
    ("login", ["me", "x", "red", SECRET]),
    ("login", ["me", "x", "red", "a", SECRET]),
    ("login", ["me", "x", "red", "a", None, SECRET + "\0"]),
    ("login", ["me", "x", "red", "a", None, None, SECRET]),
    ("login", {"user": "me", SECRET: "x"}),
    ("login", {"user": "me", "password": [SECRET]}),
    ("login", {"user": "me", "password": "x", "color": SECRET}),
    ("login", {"user": {SECRET: 1}, "password": "x"}),
    ("key", [{"value": SECRET}]),
    ("key", [{SECRET: SECRET}]),
    ("key", [SECRET]),
    ("token", [SECRET]),
    ("token", [[SECRET]]),
    ("fail", [SECRET]),
    ("fail_in_thread", [SECRET]),
    ("wrong_result", [SECRET]),
    ("unsendable", [SECRET]),
    ("reject", [SECRET]),
    ("give", []),
    ("give_in_vain", []),
]
"""Methods and arguments."""

MALFORMED: list[Any] = [
    [0, 1, "Vault.login", SECRET],
    [0, 1, "Vault.login", {SECRET.encode(): 1}],
    [0, 1, "Vault.login", {(SECRET,): 1}],
    [0, SECRET, "Vault.login", []],
    [0, 1, "Vault.login", ["me"], SECRET],
    [0, 1, "Vault.login", ["me"], {"deadline": SECRET}],
    [0, 1, "Vault.login", ["me"], {"meta": {"password": SECRET.encode()}}],
    [0, 1, "Vault.login", [msgpack.ExtType(9, SECRET.encode())]],
    [0, 1, "Vault.login", ["me", SECRET], {}, SECRET],
    [SECRET, 1, "Vault.login", []],
    SECRET,
]
"""Packets that end a connection."""


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Have everything logged, and search it."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.get_records("call"):
        whole = [record.getMessage(), record.exc_text or "", repr(record.args)]
        if record.exc_info and record.exc_info[1]:
            whole += traceback.format_exception(record.exc_info[1])
        assert SECRET not in "".join(whole), record


async def send(socket_path: Any, message: Any, *, calls: bool) -> bytes:
    """Send a packet; return what is answered, up to the end if it ends the connection."""
    with raw_client(socket_path) as client:
        client.sock.setblocking(False)
        client.sock.send(msgpack.packb(message))
        answers = b""
        async with asyncio.timeout(30):
            while data := await asyncio.get_running_loop().sock_recv(client.sock, 65_536):
                answers += data
                if calls:
                    break
        return answers


async def test_whatever_is_wrong_with_it_a_secret_is_told_to_nobody(
    socket_path: Any, loop_errors: list[dict[str, Any]]
) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with seqrpc.serve(Vault(), socket_path) as server:
        for method, params in CALLS:
            answer = await send(socket_path, [0, 1, f"Vault.{method}", params], calls=True)
            assert SECRET.encode() not in answer, (method, params, answer)
        for message in MALFORMED:
            answer = await send(socket_path, message, calls=False)
            assert SECRET.encode() not in answer, message
        async with seqrpc.connect(socket_path) as connection:
            vault = connection.proxy(Vault)
            for stream in (vault.stream(SECRET), vault.give_one_by_one()):
                with pytest.raises(seqrpc.Internal):
                    assert [str(item) async for item in stream] == ["1"]
            await connection.notify("Vault.note", SECRET)
            await connection.notify("Vault.note", "x", SECRET)
            await comes_true(lambda: server.stats().methods["Vault.note"].calls == 2)
    assert not loop_errors


async def test_a_failure_is_found_in_the_log_all_the_same(socket_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with seqrpc.serve(Vault(), socket_path), seqrpc.connect(socket_path) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Vault.fail", SECRET)
        assert caught.value.message.split()[1].strip(";") in caplog.text
        for told in ("ExceptionGroup: (withheld)", "ValueError: (withheld)", "in fail"):
            assert told in caplog.text
        with pytest.raises(seqrpc.InvalidParams, match=r"Expected `str`, got `int` - at `password`$"):
            await connection.call("Vault.login", "me", 7)
        with pytest.raises(seqrpc.InvalidParams, match=r"`color` does not fit its annotation \(more is not told"):
            await connection.call("Vault.login", "me", "x", "blue")


def test_it_is_the_same_without_an_event_loop() -> None:
    with raw_peer(services=Vault()) as (connection, raw):
        for number, (method, params) in enumerate(CALLS):
            raw.send(0, number, f"Vault.{method}", params)
            connection.process()
            assert SECRET.encode() not in msgpack.packb(raw.receive())


async def test_what_an_interceptor_fails_with_does_not_show_it(
    socket_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(seqrpc.Interceptor):
        def ended(self, record: seqrpc.CallRecord) -> None:
            try:
                raise LookupError("of its own")
            except LookupError:
                raise RuntimeError("ended fails")  # noqa: B904 - as it often is

    async with seqrpc.serve(Vault(), socket_path, interceptors=[Failing()]):
        await send(socket_path, [0, 1, "Vault.token", [SECRET]], calls=True)
        await comes_true(lambda: "ended fails" in caplog.text)
    assert "of its own" in caplog.text


def test_a_mark_counts_wherever_it_stands() -> None:
    methods = describe(Vault).methods
    assert all(method.is_sensitive for method in methods.values())

    class Plain(seqrpc.Service):
        @seqrpc.method
        async def add(self, a: int) -> str:
            return str(a)

    assert not describe(Plain).methods["add"].is_sensitive
