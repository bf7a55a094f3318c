"""Services that give objects away, for the tests of channels and of what they lead to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import seqrpc
from support.daemons import Stage


class Vault(seqrpc.Service):
    """An object that is given away."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.closed = 0
        self.callers: list[seqrpc.Credentials] = []
        self.met: list[Any] = []

    async def close(self) -> None:
        self.closed += 1
        self.stage.reach("closed")

    @seqrpc.method
    async def look(self, number: int = 1) -> int:
        self.callers.append(seqrpc.current_call().caller)
        return number

    @seqrpc.method(oneway=True)
    async def knock(self) -> None:
        self.stage.reach("knocked")

    @seqrpc.method
    async def wait(self, name: str) -> str:
        self.stage.reach(f"{name} began")
        try:
            await self.stage.wait(f"{name} may go on")
        except asyncio.CancelledError:
            self.stage.reach(f"{name} cancelled")
            raise
        return name

    @seqrpc.method
    async def block(self) -> None:
        """Go on although it is cancelled."""
        self.stage.reach("block began")
        while not self.stage.reached.count("block may end"):
            with contextlib.suppress(asyncio.CancelledError):
                await self.stage.wait("block may end")

    @seqrpc.method
    async def meet(self, other: Vault) -> None:
        self.met.append(other)

    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @seqrpc.method
    async def revoke(self) -> str:
        await seqrpc.revoke(self)
        return "revoked"


class Listener(seqrpc.Service):
    """What a caller passes in, to be called back."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.stage = Stage()

    @seqrpc.method
    async def hear(self, text: str) -> int:
        self.heard.append(text)
        return len(self.heard)

    async def close(self) -> None:
        self.stage.reach("closed")


class Bank(seqrpc.Service):
    """Gives a vault away, and takes others'."""

    def __init__(self) -> None:
        self.vault = Vault()
        self.other: seqrpc.Service = self.vault
        self.kept: list[Any] = []
        self.stage = Stage()

    @seqrpc.method
    async def open(self) -> Vault:
        return self.vault

    @seqrpc.method
    def open_in_a_thread(self) -> Vault:
        return self.vault

    @seqrpc.method
    async def open_many(self, number: int) -> list[Vault]:
        return [self.vault] * number

    @seqrpc.method
    async def open_other(self) -> Any:
        return self.other

    @seqrpc.method
    async def tell(self, listener: Listener, text: str) -> int:
        return await listener.hear(text)

    @seqrpc.method
    async def keep(self, vault: Vault) -> None:
        self.kept.append(vault)

    @seqrpc.method
    async def give_back(self) -> Vault:
        vault: Vault = self.kept.pop()
        return vault

    @seqrpc.method
    async def use(self, number: int) -> int:
        vault: Vault = self.kept[-1]
        return await vault.look(number)


def proxy_close(proxy: object) -> Any:
    """Return what lets go of the object behind a proxy."""
    return proxy.close()  # type: ignore[attr-defined]


async def channel_to(connection: seqrpc.Connection, method: str = "Bank.open") -> seqrpc.Channel:
    channel = await connection.call(method)
    assert isinstance(channel, seqrpc.Channel)
    return channel
