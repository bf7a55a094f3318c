"""Who may call what, and who may learn that there is no such method."""

from __future__ import annotations

import pytest
from support.daemons import on_a_pair
from support.dispatch import Everything

import seqrpc
from seqrpc import policy


async def test_an_unknown_method_is_told_to_those_whom_the_policy_admits() -> None:
    class Closed(seqrpc.Service, allow=~policy.anyone):
        @seqrpc.method(allow=policy.anyone)
        async def open(self) -> int:
            return 1

    async with on_a_pair(Everything(), Closed()) as connection:
        for name in ("Everything.nothing", "Nothing.at_all", "nothing", "", "rpc.nothing"):
            with pytest.raises(seqrpc.MethodNotFound, match="there is no method"):
                await connection.call(name)
        with pytest.raises(seqrpc.PermissionDenied, match="not admitted"):
            await connection.call("Closed.nothing")
        assert await connection.call("Closed.open") == 1
    async with on_a_pair(Everything(), allow=policy.uid(4_242)) as connection:
        with pytest.raises(seqrpc.PermissionDenied, match="not admitted"):
            await connection.call("Nothing.at_all")
        await connection.notify("Nothing.at_all")
        await connection.call("rpc.ping")


async def test_the_most_specific_allow_wins() -> None:
    class Default(seqrpc.Service):
        @seqrpc.method
        async def plain(self) -> str:
            return "plain"

        @seqrpc.method(allow=policy.anyone)
        async def open(self) -> str:
            return "open"

    class Open(seqrpc.Service, allow=policy.anyone):
        @seqrpc.method
        async def plain(self) -> str:
            return "plain"

        @seqrpc.method(allow=~policy.anyone)
        async def closed(self) -> str:
            return "closed"

    class Inherited(Open):
        async def closed(self) -> str:
            return "overridden"

    async with on_a_pair(Default(), Open(), Inherited(), allow=~policy.anyone) as connection:
        admitted = []
        for name in (
            "Default.plain",
            "Default.open",
            "Open.plain",
            "Open.closed",
            "Inherited.plain",
            "Inherited.closed",
        ):
            try:
                await connection.call(name)
                admitted.append(name)
            except seqrpc.PermissionDenied:
                continue
        assert admitted == ["Default.open", "Open.plain", "Inherited.plain"]
