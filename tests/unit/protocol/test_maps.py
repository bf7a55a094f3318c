"""Maps that are made key by key."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from support.measures import peak_bytes
from support.properties import PROPERTY, values
from support.speed import is_within

from seqrpc.errors import TooLarge
from seqrpc.limits import MAX_PACKET
from seqrpc.protocol import maps
from seqrpc.protocol.maps import Counter, hooks_for, look_closer, read_maps

MANY = 10**9


def read(data: bytes | memoryview, containers: int = MANY, keys: int = MANY) -> Any:
    return read_maps(data, look_closer, containers, keys)


@PROPERTY
@given(values())
def test_what_is_read_is_what_msgpack_makes(value: Any) -> None:
    data = msgpack.packb(value, datetime=True)
    expected = msgpack.unpackb(data, strict_map_key=False, timestamp=3)
    assert read(data) == expected
    padded = msgpack.packb(["x" * 2_000, value, {"a": value, "b": "y" * 2_000}], datetime=True)
    assert read(memoryview(padded)) == ["x" * 2_000, expected, {"a": expected, "b": "y" * 2_000}]


def test_large_parts_without_maps_are_read_at_one_go() -> None:
    data = msgpack.packb([0, 1, "m", [{"rows": list(range(1_000_000))}, {"a": 1}]])
    began = time.process_time()
    assert read(data)[3][0]["rows"][-1] == 999_999
    assert time.process_time() - began < 0.5


def test_what_has_too_many_values_to_be_read_singly_is_refused_soon() -> None:
    size = 16 << 20
    for outer in (b"\x94\x00\x01\xa1m", b"\x94\x00\x01\xa1m\x91\x91\x91"):
        data = outer + b"\xdd" + size.to_bytes(4, "big") + b"\x01" * (size - 1) + b"\x81\x01\x01"
        began = time.process_time()
        with pytest.raises(TooLarge, match="at most 2097152 values"):
            read(data)
        assert time.process_time() - began < 1.5


def test_many_small_arrays_have_no_more_values_than_one_large_one() -> None:
    data = msgpack.packb([*[[0] * 30] * 70_000, {1: 1}])
    with pytest.raises(TooLarge, match="at most 2097152 values"):
        read(data)


def test_references_reach_the_hook_once_each() -> None:
    seen: list[tuple[int, bytes]] = []

    def hook(kind: int, data: bytes) -> str:
        seen.append((kind, data))
        return "made"

    message = [0, 1, "m", [["x" * 9_000, msgpack.ExtType(1, b"\x00")], {"a": msgpack.ExtType(4, bytes(17))}]]
    assert read_maps(msgpack.packb(message), hook, MANY, MANY)[3] == [["x" * 9_000, "made"], {"a": "made"}]
    assert seen == [(1, b"\x00"), (4, bytes(17))]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "incomplete"),
        (b"\x81\xa1a", "incomplete"),
        (b"\x82\xa1a\x01", "incomplete"),
        (b"\xdf\xff\xff\xff\xff\xa1a\x01", "incomplete"),
        (b"\x91\xdd\xff\xff\xff\xff\x01", "incomplete"),
        (b"\x81\xa1a\x01\x01", "1 bytes come after it"),
        (msgpack.packb(["x" * 2_000, {"a": 1}]) + b"\x01", "1 bytes come after it"),
        (msgpack.packb("x" * 2_000) + b"\x01", "come after it"),
        (b"\x81\xa1a\xc1", None),
    ],
)
def test_what_is_not_exactly_one_value_is_an_error(data: bytes, reason: str | None) -> None:
    with pytest.raises((ValueError, msgpack.UnpackException), match=reason):
        read(data)


KEYS: dict[str, Callable[[int], bytes]] = {
    "integers": lambda number: msgpack.packb(number << 40),
    "floats": lambda number: b"\xcb" + struct.pack(">d", (1 + number / 2**20) * 2.0**61),
    "arrays": lambda number: msgpack.packb([number]),
    "maps": lambda number: msgpack.packb({number: 1}),
    "timestamps": lambda number: msgpack.packb(msgpack.Timestamp(number)),
    "None": lambda number: b"\xc0",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("deep", [False, True])
def test_keys_whose_hashes_have_no_secret_are_counted_before_they_are_put_into_a_map(kind: str, deep: bool) -> None:
    def message(number: int) -> bytes:
        pairs = b"".join(KEYS[kind](index) + b"\xc0" for index in range(number))
        data = b"\xde" + number.to_bytes(2, "big") + pairs
        return b"\x91\x81\xa1a\x92\xa1b" + data if deep else data

    each = 2 if kind == "maps" else 1  # the key of the key counts too
    read(message(100), keys=100 * each)
    with pytest.raises(TooLarge, match="at most 99 keys"):
        read(message(100), keys=99)


def test_strings_and_byte_strings_are_always_taken() -> None:
    value: dict[Any, None] = {str(number): None for number in range(2_000)}
    value |= {bytes((number,)): None for number in range(200)}
    assert read(msgpack.packb(value), keys=0) == value


@pytest.mark.parametrize(
    "value", [[[]] * 5, [{}] * 5, {"a": {}, "b": [[], []], "c": 1}, [["x" * 2_000], [], {"a": []}]]
)
def test_arrays_and_maps_are_counted(value: Any) -> None:
    most = 6 if isinstance(value, list) and len(value) == 5 else 5
    assert read(msgpack.packb(value), containers=most) == value
    with pytest.raises(TooLarge, match="max_containers"):
        read(msgpack.packb(value), containers=most - 1)


def test_values_that_are_read_one_by_one_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "_MOST_VALUES", 100)
    assert read(msgpack.packb({"a": [1] * 90})) == {"a": [1] * 90}
    with pytest.raises(TooLarge, match="at most 100 values"):
        read(msgpack.packb({"a": [1] * 98}))


def test_only_long_messages_with_many_containers_are_counted_as_msgpack_makes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "MOST_KEYS", 1_500)
    text = msgpack.packb(["x" * 70_000])
    assert hooks_for(text, 1_000) == {}
    some = msgpack.packb([["x" * 70_000], *[{}] * 100])
    assert set(hooks_for(some, 1_000)) == {"object_hook"}
    assert set(hooks_for(some, 50)) == {"list_hook", "object_hook"}


def test_keys_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST_KEYS", 5)
    counter = Counter(3)
    made = {"a": 1, "b": 2, "c": 3}
    assert counter.count_map(made) is made
    with pytest.raises(ValueError, match="map"):
        counter.count_map(made)
    counter.count([])
    counter.count([])
    with pytest.raises(TooLarge, match="at most 3 arrays and maps"):
        counter.count([])


STAYS = """
import gc, sys
import msgpack
from seqrpc.protocol.decoder import Decoder

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

decoder, packets = Decoder(), int(sys.argv[1])
def send(number):
    names = [f"{number}-{index}" for index in range(int(sys.argv[2]))]
    data = msgpack.packb([0, 1, "m", dict.fromkeys(names), {"meta": dict.fromkeys(names, "")}])
    decoder.decode(data if len(data) <= 65_536 else memoryview(data), [])
send(0)
gc.collect()
before = rss()
for number in range(packets):
    send(number + 1)
gc.collect()
print(rss() - before)
"""


@pytest.mark.parametrize("packets, names", [(400, 1_000), (3, 500_000)])
def test_names_that_peers_make_up_are_not_kept(packets: int, names: int) -> None:
    made = subprocess.run(
        [sys.executable, "-c", STAYS, str(packets), str(names)], capture_output=True, check=True, text=True
    )
    # As many as are interned at most grow the interpreter's table by 10 MiB; those names took 60 and 145 MiB before.
    assert int(made.stdout) < (4 if packets == 400 else 24) * 1024 * 1024


def test_no_more_memory_than_msgpack_needs() -> None:
    value = {f"{number}": number for number in range(4_000)}
    data = msgpack.packb(value)
    made = sys.getsizeof(value) + sum(sys.getsizeof(key) + sys.getsizeof(number) for key, number in value.items())
    assert peak_bytes(lambda: read(data)) < 2 * made + MAX_PACKET


def test_what_lies_deep_is_read_one_by_one() -> None:
    value: Any = {"a": [1, {"b": "x" * 2_000}]}
    for _ in range(5):
        value = ["y" * 2_000, value]
    assert read(msgpack.packb(value)) == value


ALIKE = [(7 + number * (2**61 - 1)) for number in range(8)]
"""Integers of one hash."""


def test_values_in_keys_are_counted_for_each_may_be_compared_with_all_others() -> None:
    keys = [(*["x", 1.5] * 400, *last) for last in itertools.product(ALIKE, repeat=3)]
    assert len({hash(key) for key in keys}) == 1
    data = msgpack.packb(dict.fromkeys(keys, 1))
    began = time.process_time()
    with pytest.raises(TooLarge, match="keys of maps in a message have at most 16384 values in them"):
        read(data, keys=1_024)
    assert is_within(time.process_time() - began, 0.1), "each of 512 keys is compared with half of the others"
    few = {(*key[-6:], number): 1 for number, key in enumerate(keys)}
    assert read(msgpack.packb(few), keys=512) == few


def test_strings_in_keys_count_by_their_length() -> None:
    for kind, long in (("array", ["x" * 1_100]), ("map", {"a": b"x" * 1_100})):
        data = b"\x81" + msgpack.packb(long) + b"\x01"
        with pytest.raises(TooLarge, match="at most 16 values in them"):
            read(data, keys=1)
        assert len(read(data, keys=2)) == 1, kind
