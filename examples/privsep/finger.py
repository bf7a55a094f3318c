"""The half of the finger daemon that talks to strangers: it runs as nobody, in an empty directory.

Nothing to run: fingerd.py starts it, ``python examples/privsep/fingerd.py``.

It opens nothing by itself. The port and the log were opened by the other half, and came as descriptors. Whatever is
asked here, no more can be had than what ``Plans`` gives.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

import seqrpc

LONGEST_QUESTION = 256  # bytes
LONGEST_PLAN = 65_536  # bytes
PATIENCE = 10.0  # seconds for a question


class NoPlan(seqrpc.RpcError, code="finger.NoPlan"):
    """There is no plan of that name."""


class Plans(Protocol):
    """All that this half may ask of the other one."""

    async def open(self, name: str) -> seqrpc.OwnedFd:
        """Return somebody's plan, open for reading.

        Raises:
            NoPlan: there is none.
        """
        ...


class Finger(seqrpc.Service):
    """Answers questions that come over the network (RFC 1288): a name and an end of line.

    Args:
        port: the listening socket.
        log: the log, open for appending.
    """

    def __init__(self, port: seqrpc.OwnedFd, log: seqrpc.OwnedFd) -> None:
        """Take what the other half has opened."""
        self._port = port
        self._log = log

    @seqrpc.method
    async def serve(self) -> None:
        """Serve until the other half cancels this call."""
        plans = seqrpc.current_call().connection.proxy(Plans)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(PATIENCE):
                    writer.write(await self._answer_to(await reader.readuntil(b"\n"), plans))
                    await writer.drain()
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):  # TimeoutError is one
                pass
            finally:
                writer.close()

        with socket.socket(fileno=self._port.detach()) as sock:
            async with await asyncio.start_server(answer, sock=sock, limit=LONGEST_QUESTION) as server:
                await server.serve_forever()

    async def _answer_to(self, question: bytes, plans: Plans) -> bytes:
        name = question.strip().decode(errors="replace")
        try:
            with await plans.open(name) as file:
                plan = os.read(file.fileno(), LONGEST_PLAN)
        except NoPlan:
            self._note(f"{name!r}: no plan")
            return b"no plan\r\n"
        self._note(f"{name!r}: {len(plan)} bytes")
        return plan

    def _note(self, text: str) -> None:
        os.write(self._log.fileno(), f"{text}\n".encode())
