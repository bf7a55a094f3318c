"""Packets on an event loop, their descriptors and their senders."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import socket
from pathlib import Path

import pytest
from support.descriptors import Lender, owned, same_file
from support.packets import send_with
from support.processes import OTHER_GID, OTHER_UID, in_child
from support.transport import Pair, Recorder, as_root, on_transport, queue_one

import seqrpc
from seqrpc.kernel.linux import SO_PASSCRED
from seqrpc.kernel.platforms import PLATFORM

# Packets


async def test_packets_and_their_descriptors_pass_both_ways(raw: Pair, pipe: tuple[int, int]) -> None:
    ends = [on_transport(end)[1] for end in raw]
    for number in (0, 1, 2, 253):
        for here, there in (ends, ends[::-1]):
            with owned(number) as fds:
                here.transport.send_packet(b"%d" % number, fds)
            await there.until_packets(len(there.packets) + 1)
            assert there.packets[-1] == b"%d" % number
            assert len(there.fds[-1]) == number
    ends[0].transport.send_packet(b"these", [Lender(fd) for fd in pipe])
    await ends[1].until(lambda: ends[1].packets[-1] == b"these")
    assert [same_file(*fds) for fds in zip((fd.fileno() for fd in ends[1].fds[-1]), pipe, strict=True)] == [True, True]
    for end in ends:
        await end.end()


async def test_descriptors_are_close_on_exec_when_they_arrive(raw: Pair, pipe: tuple[int, int]) -> None:
    _transport, recorder = on_transport(raw[0])
    send_with(raw[1], b"x", pipe)
    await recorder.until_packets(1)
    assert all(fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in recorder.fds[0])
    await recorder.end()


async def test_one_packet_sent_is_one_packet_received(raw: Pair) -> None:
    (here, _), (_, there) = on_transport(raw[0]), on_transport(raw[1])
    packets = [b"a", b"b", b"c" * 65_536, b"d", b"e" * 65_535]
    for packet in packets:
        here.send_packet(packet)
    await there.until_packets(len(packets))
    assert there.packets == packets
    here.abort()
    await there.until_told("lost")


async def test_single_packets_are_received_one_after_the_other(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    for number in range(30):
        raw[1].send(b"%d" % number)
        await recorder.until_packets(number + 1)
    for number in range(30, 60):
        raw[1].send(b"%d" % number)
    await recorder.until_packets(60)
    assert recorder.packets == [b"%d" % number for number in range(60)]
    await recorder.end()


async def test_what_cannot_be_a_packet_is_refused_before_anything_is_sent(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    for data in (b"", b"x" * 65_537):
        with pytest.raises(ValueError, match=f"a packet has 1 to 65536 bytes, this one {len(data)}"):
            transport.send_packet(data)
    with owned(254) as fds, pytest.raises(ValueError, match="at most 253 descriptors, this one 254"):
        transport.send_packet(b"x", fds)
    with pytest.raises(ValueError, match="own socket"):
        transport.send_packet(b"x", [raw[0]])
    with owned(1) as fds:
        fds[0].close()
        with pytest.raises(ValueError, match="closed"):
            transport.send_packet(b"x", fds)
    with pytest.raises(BlockingIOError):
        raw[1].recv(1)
    await recorder.end()


@pytest.mark.parametrize("queued", [False, True])
async def test_what_has_no_descriptor_to_lend_is_refused_before_anything_is_sent(raw: Pair, queued: bool) -> None:
    transport, recorder = on_transport(raw[0])
    if queued:
        queue_one(transport)
    waiting = transport.get_write_buffer_packets()
    with pytest.raises(ValueError, match="BytesIO has no descriptor to send: fileno") as caught:
        transport.send_packet(b"x", [io.BytesIO()])
    assert not isinstance(caught.value, OSError)
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="socket has no descriptor to send: it is closed"):
        transport.send_packet(b"x", [closed])
    assert transport.get_write_buffer_packets() == waiting
    await recorder.end()


async def test_a_number_that_is_no_descriptor_fails_that_packet_only(raw: Pair) -> None:
    class Wrong:
        def fileno(self) -> int:
            return 1_000_000

    transport, recorder = on_transport(raw[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.send_packet(b"x", [Wrong()])
    queue_one(transport)
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.send_packet(b"x", [Wrong()])
    assert transport.get_write_buffer_packets() == 1
    await recorder.end()


async def test_a_socket_with_a_timeout_of_its_own_does_not_make_the_loop_wait(raw: Pair) -> None:
    raw[0].settimeout(3600)
    _transport, recorder = on_transport(raw[0])
    raw[1].send(b"a")
    await recorder.until_packets(1)  # the read that follows finds nothing
    assert recorder.packets == [b"a"]
    assert raw[0].gettimeout() == 0
    await recorder.end()


# Who is there


async def test_packets_on_a_pair_tell_of_their_true_sender(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    assert transport.get_extra_info("credentials") is None
    assert transport.get_extra_info("connected_uid") == os.getuid(), "who made it"
    raw[1].send(b"mine")
    await recorder.until_packets(1)
    assert recorder.senders == [seqrpc.Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())]
    await recorder.end()


@as_root
async def test_packets_on_a_pair_tell_of_their_true_sender_in_another_process(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])

    def send() -> int:
        raw[1].send(b"theirs")
        return os.getpid()

    raw[1].send(b"before")
    pid = in_child(send, uid=OTHER_UID, gid=OTHER_GID)
    raw[1].send(b"after")
    await recorder.until_packets(3)
    assert [(sender.pid, sender.uid, sender.gid) for sender in recorder.senders if sender] == [
        (os.getpid(), 0, 0),
        (pid, OTHER_UID, OTHER_GID),
        (os.getpid(), 0, 0),
    ]
    await recorder.end()


async def test_a_kernel_that_names_the_sender_once_is_believed_from_then_on(
    raw: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So FreeBSD does it (``LOCAL_CREDS``); here the asking is ended after the first packet."""
    monkeypatch.setattr(type(PLATFORM), "credentials_come_once", True)
    transport, recorder = on_transport(raw[0])
    raw[1].send(b"first")
    await recorder.until_packets(1)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 0)
    raw[1].send(b"second")
    await recorder.until_packets(2)
    assert recorder.senders[0] is not None
    assert recorder.senders[1] == recorder.senders[0]
    await recorder.end()


async def test_a_connected_socket_tells_who_connected_and_its_names(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(socket_path))
        listener.listen()
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(socket_path))
        sock, _ = listener.accept()
    transport, recorder = on_transport(sock)
    assert transport.get_extra_info("socket") is sock
    assert transport.get_extra_info("sockname") == os.fspath(socket_path)
    assert transport.get_extra_info("peername") == ""
    assert transport.get_extra_info("something else", 7) == 7
    me = seqrpc.Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
    assert transport.get_extra_info("credentials") == me
    peer.send(b"x")
    await recorder.until_packets(1)
    assert recorder.senders == [me]
    await recorder.end()
    peer.close()


async def test_another_protocol_may_take_over(raw: Pair) -> None:
    transport, first = on_transport(raw[0])
    second = Recorder()
    assert transport.get_protocol() is first
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    raw[1].send(b"x")
    await second.until_packets(1)
    assert first.packets == []
    with pytest.raises(TypeError, match="a SeqpacketProtocol was expected, got Protocol"):
        transport.set_protocol(asyncio.Protocol())
    transport.abort()
    await second.until_told("lost")


async def test_the_representation_shows_the_state(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    fd = raw[0].fileno()
    assert repr(transport) == f"<SeqpacketTransport open fd={fd} queued=0>"
    queue_one(transport)
    transport.close()
    assert repr(transport) == f"<SeqpacketTransport closing fd={fd} queued=7>"
    transport.abort()
    assert repr(transport) == f"<SeqpacketTransport closed fd={fd} queued=0>"
    await recorder.until_told("lost")
