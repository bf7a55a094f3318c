"""Interceptors around calls, where they are made: on a connection, and on one that is made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.reconnecting import QUICK, Journal, soon
from support.waiting import PATIENCE

import seqrpc


class Seen(seqrpc.Interceptor):
    """Writes down calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def request(self, call: seqrpc.OutgoingCall, proceed: Any) -> Any:
        self.seen.append(f"{call.method}{' one way' if call.oneway else ''}")
        result = await proceed()
        self.seen.append("done")
        return result


async def test_interceptors_surround_a_call_with_all_its_attempts(socket_path: Path) -> None:
    journal, seen = Journal(), Seen()
    server = await seqrpc.serve(journal, socket_path)
    async with seqrpc.connect(socket_path, reconnect=QUICK, interceptors=[seen]) as connection:
        call = soon(connection.proxy(Journal).wait_again("a"))
        await journal.stage.wait("a")
        await server.close()
        async with seqrpc.serve(journal, socket_path):
            assert await call == "a"
            await connection.notify("Journal.tell", "b")
            await connection.call("Journal.add", "c")
    assert journal.ran == ["a", "a", "b", "c"]
    ways = ["Journal.wait_again", "done", "Journal.tell one way", "done", "Journal.add", "done"]
    assert seen.seen == ways
    assert "Connection" in repr(connection.proxy(Journal))


async def test_on_an_ordinary_connection_they_surround_each_call(socket_path: Path) -> None:
    journal, seen = Journal(), Seen()
    async with (
        seqrpc.serve(journal, socket_path),
        seqrpc.connect(socket_path, interceptors=[seen]) as connection,
        seqrpc.timeout(PATIENCE),
    ):
        await connection.notify("Journal.tell", "b")
        assert await connection.proxy(Journal).add("c") == "c"
    assert seen.seen == ["Journal.tell one way", "done", "Journal.add", "done"]
