"""What packets of a tunnel have in them."""

from __future__ import annotations

import os
import sys
import threading

import msgpack

from seqrpc.cli.frames import Memory, Socket
from seqrpc.cli.packets import content_of, send, size_of, streams_of
from seqrpc.kernel import memfd
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.sockets import socket_pair

STREAM = msgpack.ExtType(2, b"\x00")
SPILLED = msgpack.packb([4, 5])


def test_streams_are_known_by_the_message_also_where_that_is_memory() -> None:
    answer = msgpack.packb([1, 7, None, STREAM])
    assert streams_of(answer, [Socket(5)]) == {0}
    assert streams_of(msgpack.packb([1, 7, None, 3]), [Socket(5)]) == set()
    assert streams_of(answer, [Memory(b"x")]) == set()
    assert streams_of(SPILLED, [Memory(answer), Socket(5)]) == {1}


def test_a_sealed_memory_file_has_a_size_and_a_content_and_other_files_have_none() -> None:
    with memfd.sealed("test", b"abc") as file:
        assert (size_of(file), content_of(file)) == (3, b"abc")
    with OwnedFd(os.open(os.devnull, os.O_RDONLY)) as file:
        assert size_of(file) is None


def test_a_packet_waits_for_room() -> None:
    ours, theirs = socket_pair()
    with ours, theirs:
        ours.setblocking(False)
        sent = 0
        try:
            while True:
                ours.send(b"x")
                sent += 1
        except BlockingIOError:
            pass
        waiting = threading.Thread(target=send, args=(ours, b"last", []))
        waiting.start()
        assert waiting.ident is not None
        while "poller" not in sys._current_frames()[waiting.ident].f_locals:
            pass
        assert [theirs.recv(9) for _ in range(sent)] == [b"x"] * sent
        assert theirs.recv(9) == b"last"
        waiting.join()
