from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import (
    AbstractAddress,
    Address,
    AddressLike,
    FdAddress,
    PathAddress,
    SystemdAddress,
    parse_address,
)

WRITTEN: list[tuple[str, Address]] = [
    ("/run/x.sock", PathAddress("/run/x.sock")),
    ("./x.sock", PathAddress("./x.sock")),
    ("x.sock", PathAddress("x.sock")),
    ("./@x", PathAddress("./@x")),
    ("/run/@x", PathAddress("/run/@x")),
    ("/run//a/../x", PathAddress("/run//a/../x")),
    ("/" + "long/" * 200 + "x", PathAddress("/" + "long/" * 200 + "x")),
    ("grüße", PathAddress("grüße")),
    ("fdx:3", PathAddress("fdx:3")),
    ("@name", AbstractAddress(b"name")),
    ("@@", AbstractAddress(b"@")),
    ("@a/b c", AbstractAddress(b"a/b c")),
    ("@" + "x" * 107, AbstractAddress(b"x" * 107)),
    ("@a\0b", AbstractAddress(b"a\0b")),
    ("@\0", AbstractAddress(b"\0")),
    ("@ü", AbstractAddress("ü".encode())),
    ("@\udcff", AbstractAddress(b"\xff")),
    ("fd:0", FdAddress(0)),
    ("fd:3", FdAddress(3)),
    ("fd:2147483647", FdAddress(2**31 - 1)),
    ("systemd:x.socket", SystemdAddress("x.socket")),
    ("systemd:unknown", SystemdAddress("unknown")),
]


@pytest.mark.parametrize("text, address", WRITTEN)
def test_text_becomes_an_address_and_prints_back_as_it_was_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(parse_address(text)) == text


def test_bytes_are_read_as_text_is() -> None:
    assert [parse_address(os.fsencode(text)) for text, _address in WRITTEN] == [address for _text, address in WRITTEN]


def test_abstract_names_take_every_byte() -> None:
    every = bytes(range(256))
    for start in (0, 107, 149):
        name = every[start : start + 107]
        assert parse_address(b"@" + name) == AbstractAddress(name)
        assert parse_address(str(AbstractAddress(name))) == AbstractAddress(name)


def test_bytes_of_a_path_that_are_no_utf_8_print_back() -> None:
    address = parse_address(b"/run/\xff")
    assert address == PathAddress("/run/\udcff")
    assert os.fsencode(str(address)) == b"/run/\xff"


@pytest.mark.parametrize(
    "path, text",
    [
        ("/run/x", "/run/x"),
        ("x", "x"),
        ("@x", "./@x"),
        ("fd:3", "./fd:3"),
        ("systemd:x", "./systemd:x"),
        ("d/@x", "d/@x"),
    ],
)
def test_a_path_object_is_a_path_whatever_it_begins_with(path: str, text: str) -> None:
    for kind in (Path, PurePosixPath):
        assert parse_address(kind(path)) == PathAddress(text)


def test_an_address_is_one_already() -> None:
    addresses = [address for _text, address in WRITTEN]
    assert all(parse_address(address) is address for address in addresses)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "not empty"),
        (b"", "not empty"),
        ("/run/a\0b", "no NUL byte"),
        ("\0abstract", "abstract names begin with '@'"),
        ("/run/\ud800", "cannot be written"),
        ("@", "1 to 107 bytes, '@' has 0"),
        ("@" + "x" * 108, "has 108"),
        ("@" + "ü" * 54, "has 108"),
        ("@\ud800", "cannot be written"),
        ("fd:", "'fd:' and its number"),
        ("fd:-1", "'fd:' and its number"),
        ("fd:+1", "'fd:' and its number"),
        ("fd:03", "'fd:' and its number"),
        ("fd: 3", "'fd:' and its number"),
        ("fd:3\n", "'fd:' and its number"),
        ("fd:1_0", "'fd:' and its number"),
        ("fd:x", "'fd:' and its number"),
        ("fd:\N{ARABIC-INDIC DIGIT THREE}", "'fd:' and its number"),
        ("fd:2147483648", "'fd:' and its number"),
        ("fd:" + "9" * 5000, "'fd:' and its number"),
        ("systemd:", "printable ASCII"),
        ("systemd:a:b", "printable ASCII"),
        ("systemd:ü", "printable ASCII"),
        ("systemd:a\n", "printable ASCII"),
    ],
)
def test_what_is_no_address_is_named_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        parse_address(text)


@pytest.mark.parametrize("wrong", [3, None, bytearray(b"/x"), ("/x",)])
def test_what_is_no_text_at_all_is_a_type_error(wrong: AddressLike) -> None:
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
        parse_address(wrong)


def test_addresses_can_be_keys() -> None:
    addresses = [address for _text, address in WRITTEN]
    assert len({*addresses, *(parse_address(str(address)) for address in addresses)}) == len(addresses)
