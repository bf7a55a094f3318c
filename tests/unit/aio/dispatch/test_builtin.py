"""What every server answers, whoever asks."""

from __future__ import annotations

from support.daemons import descriptor, on_a_pair, raw_client
from support.dispatch import Everything, open_count

import seqrpc
from seqrpc import policy


async def test_ping_answers_whoever_asks() -> None:
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        assert await connection.call("rpc.ping") is None
        await connection.notify("rpc.ping")
        assert await connection.call("rpc.ping") is None


async def test_ping_on_the_wire_closes_descriptors(pipe: tuple[int, int]) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Everything(), sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "rpc.ping", [descriptor(0)], fds=[pipe[0]])
            assert await client.receive() == [1, 1, None, None]
            assert open_count() == before
            await client.send(2, "rpc.ping", [descriptor(0)], fds=[pipe[0]])
            await client.send(0, 2, "rpc.ping", [])
            assert await client.receive() == [1, 2, None, None]
            assert open_count() == before
