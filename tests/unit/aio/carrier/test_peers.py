"""Who is at the other end: by the kernel's word, or by that of a test."""

from __future__ import annotations

import asyncio
import os

import pytest
from support.transport import Pair, Recorder

from seqrpc import Credentials, SeqpacketTransport
from seqrpc.aio.carrier import Carrier
from seqrpc.limits import DEFAULT_LIMITS

SOMEBODY = Credentials(pid=1, uid=4_242, gid=4_243)


class Carried(SeqpacketTransport):
    def __init__(self, raw: Pair, recorder: Recorder, peer: Credentials | None) -> None:
        loop = asyncio.get_running_loop()
        self._begin(raw[0], Carrier(loop, raw[0], recorder, DEFAULT_LIMITS, names_senders=False, peer=peer))


@pytest.mark.parametrize("peer", [None, SOMEBODY], ids=["kernel", "test"])
async def test_it_is_who_the_kernel_says_unless_somebody_else_is_believed(raw: Pair, peer: Credentials | None) -> None:
    expected = peer or Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
    recorder = Recorder()
    transport = Carried(raw, recorder, peer)
    assert transport.get_extra_info("credentials") == expected
    assert transport.get_extra_info("connected_uid") == expected.uid
    raw[1].send(b"x")
    await recorder.until_packets(1)
    assert recorder.senders == [expected]
    await recorder.end()
