"""Objects as keys: whoever knows the passphrase gets the open vault, and nobody else can call it.

    python examples/vault.py

There are three processes: a vault, its owner, and a helper to whom the owner hands the open vault. ``Vault.unlock``
returns an object on a socket of its own. Whoever holds it may call it, so the owner can give it to somebody who never
heard the passphrase. The vault still learns who calls. A holder can let the object go, and the vault can take it back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import os
import sys
from collections.abc import AsyncGenerator

import seqrpc


def say(text: str) -> None:
    """Print a line with the process that prints it, in one piece, because other processes print, too."""
    sys.stdout.write(f"[process {os.getpid()}] {text}\n")
    sys.stdout.flush()


class WrongPassphrase(seqrpc.RpcError, code="vault.WrongPassphrase"):
    """That is not the passphrase."""


class OpenVault(seqrpc.Service):
    """The open vault. No name leads to it, only ``Vault.unlock``."""

    def __init__(self, vault: Vault) -> None:
        """Open ``vault``."""
        self._vault = vault

    @seqrpc.method
    async def put(self, name: str, secret: str) -> None:
        """Keep a secret."""
        self._vault.secrets[name] = secret

    @seqrpc.method
    async def get(self, name: str) -> str:
        """Return a secret."""
        say(f"vault: process {seqrpc.current_call().caller.pid} reads {name!r}")
        return self._vault.secrets[name]

    async def close(self) -> None:
        """Note that nobody holds it any more; seqrpc calls this."""
        self._vault.opened.remove(self)
        say("vault: closed")


class Vault(seqrpc.Service):
    """Secrets behind a passphrase."""

    def __init__(self, passphrase: str) -> None:
        """Begin with no secrets."""
        self._passphrase = passphrase.encode()
        self.secrets: dict[str, str] = {}
        self.opened: list[OpenVault] = []

    @seqrpc.method(errors=[WrongPassphrase])
    async def unlock(self, passphrase: str) -> OpenVault:
        """Return the open vault, which can be called until the holder lets it go or ``lock`` takes it back.

        Raises:
            WrongPassphrase: that is not the passphrase.
        """
        if not hmac.compare_digest(passphrase.encode(), self._passphrase):
            raise WrongPassphrase("that is not the passphrase")
        opened = OpenVault(self)
        self.opened.append(opened)
        return opened

    @seqrpc.method
    async def lock(self) -> None:
        """Take the open vault back from all who hold it."""
        for opened in list(self.opened):
            await seqrpc.revoke(opened)


class Helper(seqrpc.Service):
    """Somebody who does one thing with the vault and does not know the passphrase."""

    @seqrpc.method
    async def length_of(self, vault: OpenVault, name: str) -> int:
        """Return how long a secret is. The helper now holds the vault, and lets go of it at the end."""
        async with vault:
            return len(await vault.get(name))


PASSPHRASE = "correct horse battery staple"  # noqa: S105 - a demonstration: a real vault keeps it elsewhere

ROLES = {"vault": lambda: Vault(PASSPHRASE), "helper": Helper}


@contextlib.asynccontextmanager
async def process_of(role: str) -> AsyncGenerator[tuple[int, seqrpc.Connection]]:
    """Run this program in another role; yield its pid and a connection to it. It ends when the connection does."""
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        number = theirs.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--role", role, "--address", f"fd:{number}", pass_fds=[number]
        )
    async with seqrpc.connect(sock=ours) as connection:
        yield process.pid, connection
    if await process.wait():
        sys.exit(f"the {role} failed")


async def be_owner() -> None:
    """Use the vault in every way there is."""
    async with process_of("vault") as (_, to_vault), process_of("helper") as (helper_pid, to_helper):
        vault, helper = to_vault.proxy(Vault), to_helper.proxy(Helper)
        try:
            await vault.unlock("1234")
        except WrongPassphrase as exc:
            say(f"owner: refused: {exc}")
        try:
            await to_vault.call("OpenVault.get", "door")
        except seqrpc.MethodNotFound:
            say("owner: there is no open vault to be found by a name")

        opened = await vault.unlock(PASSPHRASE)
        await opened.put("door", "1983")
        say(f"owner: reads {await opened.get('door')!r}")

        length = await helper.length_of(opened, "door")
        say(f"owner: helper (process {helper_pid}) says that it has {length} characters")
        try:
            await opened.get("door")
        except seqrpc.ConnectionLost:
            say("owner: what was handed on is no longer here")

        opened = await vault.unlock(PASSPHRASE)
        await vault.lock()
        try:
            await opened.get("door")
        except seqrpc.Unavailable as exc:
            say(f"owner: taken back: {exc}")


def main() -> None:
    """Be the owner, or with ``--role`` another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=ROLES, help="be this one, at --address")
    parser.add_argument("--address", metavar="fd:N", help="the socket of --role")
    args = parser.parse_args()
    if args.role:
        seqrpc.run(ROLES[args.role](), args.address)
    else:
        asyncio.run(be_owner())


if __name__ == "__main__":
    main()
