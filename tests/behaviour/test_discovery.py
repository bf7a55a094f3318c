"""What can be called is told in both directions, by whatever can be called, to clients of both kinds."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.documents import check_document
from support.faces import Kind
from support.vaults import Bank, Vault

import seqrpc
from seqrpc.interface.openrpc import document_of
from seqrpc.kernel.credentials import Credentials

ME = Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid(), groups=())


class Guest(seqrpc.Service):
    """What a client serves."""

    @seqrpc.method
    async def answer(self, question: str) -> str:
        return f"{question}!"

    @seqrpc.method(allow=seqrpc.policy.hidden(~seqrpc.policy.anyone))
    async def hidden(self) -> None: ...


class Desk(seqrpc.Service):
    """Asks those who call."""

    @seqrpc.method
    async def ask(self, method: str) -> Any:
        return await seqrpc.current_call().connection.call(method)

    @seqrpc.method
    async def refusal(self, method: str) -> str:
        with pytest.raises(seqrpc.MethodNotFound) as caught:
            await seqrpc.current_call().connection.call(method)
        return caught.value.message

    @seqrpc.method
    async def ask_it(self, vault: Any) -> Any:
        return await vault.call("rpc.discover")


async def test_a_server_tells_what_it_serves(kind: Kind) -> None:
    async with kind.serving(Desk(), Bank()) as client:
        document = await client.call("rpc.discover")
        check_document(document)
        assert document == document_of([Desk, Bank], allow=seqrpc.policy.default, caller=ME)
        assert await client.call("rpc.discover") == document
        with pytest.raises(seqrpc.InvalidParams, match=r"rpc\.discover"):
            await client.call("rpc.discover", "more")


async def test_an_object_tells_what_it_is(kind: Kind) -> None:
    expected = document_of(Vault, allow=seqrpc.policy.anyone, caller=ME)
    async with kind.serving(Bank(), Desk()) as client:
        channel = await client.call("Bank.open")
        document = await channel.call("rpc.discover")
        check_document(document)
        assert document == expected
        assert {one["name"] for one in document["methods"]} >= {"Vault.look", "Vault.knock"}
        assert await client.call("Desk.ask_it", Vault()) == expected, "one that the client gives"


async def test_a_client_tells_what_it_serves(kind: Kind) -> None:
    async with kind.serving(Desk(), services=[Guest()]) as client:
        document = await client.call("Desk.ask", "rpc.discover")
        check_document(document)
        assert [one["name"] for one in document["methods"]] == ["Guest.answer"]
        assert await client.call("Desk.refusal", "Guest.hidden") == "there is no method 'Guest.hidden'"


async def test_who_serves_nothing_has_nothing_to_tell(kind: Kind) -> None:
    async with kind.serving(Desk(), Bank()) as client:
        assert await client.call("Desk.refusal", "rpc.discover") == "there is no method 'rpc.discover'"


def many(number: int) -> type[seqrpc.Service]:
    """Return a service with so many methods."""

    async def work(self: Any, name: str, limit: int = 10) -> list[str]:
        """Work on what has this name, and return the names of what came of it."""
        raise NotImplementedError

    functions = {}
    for index in range(number):

        async def method(self: Any, name: str, limit: int = 10) -> list[str]:
            raise NotImplementedError

        method.__doc__ = work.__doc__
        functions[f"method_{index}"] = seqrpc.method(method)
    return type("Many", (seqrpc.Service,), functions)


async def test_a_long_document_is_told_as_any_other(kind: Kind) -> None:
    service = many(500)
    async with kind.serving(service()) as client:
        document = await client.call("rpc.discover")
        assert len(document["methods"]) == 500
        assert document == document_of(service, allow=seqrpc.policy.default, caller=ME)
    limits = seqrpc.Limits(max_message_bytes=65_536)
    async with kind.serving(service(), server_limits=limits) as client:
        with pytest.raises(seqrpc.TooLarge):
            await client.call("rpc.discover")
        await client.call("rpc.ping")
