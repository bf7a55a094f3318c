"""What the worst of messages cost."""

from __future__ import annotations

import gc
import random
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from support.descriptors import owned
from support.measures import peak_bytes

from seqrpc.errors import RemoteProtocolError, TooLarge
from seqrpc.limits import MAX_PACKET, Limits
from seqrpc.protocol.decoder import Decoder

EMPTY: dict[str, tuple[bytes, int]] = {
    "arrays": (b"\x90", 1),
    "maps": (b"\x80", 1),
    "maps in arrays": (b"\x91\x80", 2),
    "keys that are arrays": (b"\x81\x90\xc0", 2),
    "keys that are maps": (b"\x81\x80\xc0", 2),
}


@pytest.mark.parametrize("name", EMPTY)
def test_arrays_and_maps_of_a_message_longer_than_a_packet_are_counted(name: str) -> None:
    decoder = Decoder(Limits(max_containers=1_001))
    empty, each = EMPTY[name]

    def message(number: int) -> bytes:
        return (
            b"\x92\xc6"
            + MAX_PACKET.to_bytes(4, "big")
            + bytes(MAX_PACKET)
            + b"\xdc"
            + number.to_bytes(2, "big")
            + empty * number
        )

    fits = (1_001 - 2) // each
    value, problem = decoder.decode(memoryview(message(fits)), [])
    assert (len(value[1]), problem) == (fits, None)
    for _ in range(2):
        with pytest.raises(TooLarge, match=r"at most 1001 arrays and maps \(max_containers\), this one more"):
            decoder.decode(memoryview(message(fits + 1)), [])
    assert decoder.decode(b"\xdc\x07\xd0" + b"\x90" * 2_000, [])[0] == [[]] * 2_000, "a packet bounds them by itself"


def test_a_message_of_too_many_arrays_and_maps_leaves_its_descriptors_and_the_decoder_as_they_were() -> None:
    decoder = Decoder(Limits(max_containers=10))
    data = b"\x93\xd4\x01\x00" + b"\xdc\xff\xff" + b"\x90" * 65_535 + b"\xc0"
    with owned(1) as fds:
        with pytest.raises(TooLarge):
            decoder.decode(data, fds)
        assert not fds[0].closed
        assert decoder.decode(b"\x90", []) == ([], None)
        assert decoder.decode(b"\xd4\x01\x00", fds) == (fds[0], None)


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("data", [bytes(1), b"\xdc\x40\x00" + b"\x90" * 16_384, b"\xdc\x40\x00" + b"\xc1" * 16_384])
def test_the_garbage_collector_is_left_as_it_was(collecting: bool, data: bytes) -> None:
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with suppress(RemoteProtocolError):
            Decoder().decode(data, [])
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


# Packets of full size that are bad at something; the number is how much memory a value may need for a byte.
NASTY: dict[str, tuple[Callable[[], bytes], int]] = {
    "arrays in arrays": (lambda: b"\x91" * MAX_PACKET, 2),
    "arrays that lie": (lambda: (b"\xdd\x00\x00\xff\x00" * 64).ljust(MAX_PACKET, b"\xc0"), 2),
    "two arrays that lie": (lambda: (b"\xdd\x00\x00\xff\x00" * 2).ljust(MAX_PACKET, b"\xc0"), 18),
    "maps that lie": (lambda: (b"\xdf\x00\x00\x7f\x00\x01" * 64).ljust(MAX_PACKET, b"\xc0"), 2),
    "four thousand million": (lambda: b"\xdd\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"), 2),
    "four thousand million characters": (lambda: b"\xdb\xff\xff\xff\xff".ljust(MAX_PACKET, b"\xc0"), 2),
    "maps in keys": (lambda: (b"\x81" * 60).ljust(MAX_PACKET, b"\xc0"), 3),
    "empty maps": (lambda: b"\xdc\xff\xfd".ljust(MAX_PACKET, b"\x80"), 160),
    "empty arrays": (lambda: b"\xdc\xff\xfd".ljust(MAX_PACKET, b"\x90"), 160),
    "keys that are arrays": (lambda: (b"\xdc\x7f\xff" + b"\x81\x90\xc0" * 30_000)[:MAX_PACKET], 160),
    "references": (lambda: (b"\xdc\x55\x53" + b"\xd4\x01\xff" * 21_843 + b"\xc0" * 4)[:MAX_PACKET], 20),
    "floats that collide": (
        lambda: (
            b"\xde\x19\x80"
            + b"".join(
                b"\xcb" + struct.pack(">d", (1 + fraction / 2**20) * 2.0 ** (61 * power)) + b"\xc0"
                for fraction in range(204)
                for power in range(-16, 16)
            )
        ).ljust(MAX_PACKET, b"\xc0"),
        30,
    ),
}


@pytest.mark.parametrize("name", NASTY)
def test_the_nastiest_messages_longer_than_a_packet_cost_as_little(name: str) -> None:
    make, per_byte = NASTY[name]
    data = memoryview(make() + bytes(3 * MAX_PACKET))
    decoder = Decoder()

    def receive() -> None:
        with suppress(RemoteProtocolError, TooLarge):
            decoder.decode(data, [])

    assert peak_bytes(receive) < per_byte * len(data) + MAX_PACKET


@pytest.mark.parametrize("name", NASTY)
def test_the_nastiest_packets_cost_little_memory_and_time(name: str) -> None:
    make, per_byte = NASTY[name]
    data = make()
    assert len(data) == MAX_PACKET
    decoder = Decoder()

    def receive() -> None:
        with suppress(RemoteProtocolError, TooLarge):
            decoder.decode(data, [])

    assert peak_bytes(receive) < per_byte * MAX_PACKET
    began = time.process_time()
    receive()
    assert time.process_time() - began < 0.5


def test_random_packets_of_full_size_cost_little_memory() -> None:
    decoder = Decoder()
    numbers = random.Random(5)

    def receive() -> None:
        with pytest.raises(RemoteProtocolError):
            decoder.decode(data, [])

    for first in range(0x80, 0x100):
        data = bytes((0xDD, 0, 0, 0x10, 0, first)) + numbers.randbytes(MAX_PACKET - 6)
        assert peak_bytes(receive) < 40 * MAX_PACKET
