"""The two scripts about hostile callers run, and what they send is what they say. No time is asserted here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import pytest
from support.daemons import needs_root
from support.processes import AS_ROOT, OTHER_UID, in_child

from benchmarks import hostile, refused
from benchmarks.attacks import ATTACKS
from benchmarks.chosen import chosen_integers, chosen_pairs
from benchmarks.kinds import KINDS
from benchmarks.raw import Files, Packet, padding, plain
from benchmarks.refused import MOST_BYTES, Row, Turn

ROOT = Path(__file__).parent.parent
WITHIN = 120.0  # seconds: far more than anything here takes


@pytest.fixture
def opened() -> Iterator[Files]:
    files = Files()
    yield files
    files.close()


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", f"benchmarks.{script}", *args],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def measured(script: str, directory: Path, *args: str) -> tuple[str, dict[str, Any]]:
    """Return what is printed and what is in the JSON, whatever the figures are."""
    file = directory / "figures.json"
    done = run(script, "--json", str(file), *args)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
    figures = json.loads(file.read_text())
    assert done.returncode == any(row.get("over") or row.get("faults") for row in figures.values())
    return done.stdout, figures


@needs_root
def test_what_a_refused_packet_costs_is_measured(tmp_path: Path) -> None:
    printed, figures = measured(
        "refused", tmp_path, "--rounds", "2", "--packets", "5", "--only", "descriptor-1,notify-streams"
    )

    assert list(figures) == ["descriptor-1", "notify-streams"]
    for name, row in figures.items():
        assert row["failed"] == ""
        assert [turn["sent"] for turn in row["hostile"] + row["dull"]] == [5] * 4
        assert row["microseconds"] > 0
        assert row["ratio"] == row["microseconds"] / row["dull_microseconds"]
        assert f"\n{name} " in printed
    assert figures["descriptor-1"]["answers"] == {"rpc.PermissionDenied": 10}
    assert figures["notify-streams"]["answers"] == {}
    assert figures["notify-streams"]["descriptors"] == 40


@needs_root
def test_what_an_attack_costs_a_friendly_caller_is_measured(tmp_path: Path) -> None:
    printed, figures = measured("hostile", tmp_path, "--seconds", "0.2", "--only", "13-refused")

    (row,) = figures.values()
    assert row["failed"] == ""
    assert row["calls"] == 20
    assert row["failures"] == {}
    assert row["attack"]["sent"] >= row["attack"]["rpc.PermissionDenied"] > 0
    assert row["log_bytes_per_second"] > 0
    assert row["ratio"] == row["p99"] / row["idle_p99"] > 0
    assert "\n13-refused " in printed


@needs_root
def test_a_stop_amid_a_flood_is_measured(tmp_path: Path) -> None:
    printed, figures = measured("hostile", tmp_path, "--seconds", "0.2", "--only", "12-flood")

    assert figures["12-flood"]["failed"] == ""
    assert figures["12-flood"]["stop_seconds"] > 0
    assert "\n12-stop " in printed


@pytest.mark.parametrize("script", ["refused", "hostile"])
def test_what_is_not_there_is_refused(script: str) -> None:
    done = run(script, "--only", "nothing")

    assert done.returncode == 2
    assert done.stdout == ""
    assert "nothing begins with 'nothing'" in done.stderr


@pytest.mark.parametrize("script", [refused, hostile])
def test_without_root_it_says_so_and_measures_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__])

    assert in_child(script.main, uid=OTHER_UID if AS_ROOT else None) == 2

    printed, said = capfd.readouterr()
    assert printed == ""
    assert "it needs root" in said


def whole(packet: Packet) -> tuple[bytes, tuple[int, ...]]:
    """Return the message of a packet, and its own descriptors, wherever it is."""
    if packet.data[:2] != b"\x93\x04":
        return packet.data, packet.fds
    file, *rest = packet.fds
    size = os.fstat(file).st_size
    assert msgpack.unpackb(packet.data)[1] == size
    return os.pread(file, size, 0), tuple(rest)


def heads_and_indexes(data: bytes) -> tuple[int, list[int]]:
    """Return the kind of a message and the descriptors that it refers to, in order."""
    indexes: list[int] = []

    def look(kind: int, content: bytes) -> None:
        if kind > 0:  # no timestamp
            indexes.append(content[0])

    message = msgpack.unpackb(data, ext_hook=look, object_pairs_hook=list, strict_map_key=False)
    return message[0], indexes


@pytest.mark.parametrize("name", KINDS)
def test_the_dull_packet_has_as_many_bytes_and_the_same_descriptors(name: str, opened: Files) -> None:
    kind = KINDS[name]
    hostile_packet, dull_packet = kind.packets(opened)
    message, fds = whole(hostile_packet(7))
    dull, dull_fds = whole(dull_packet(7))

    assert dull_fds == fds
    assert len(message) <= len(dull) <= len(message) + 2  # a byte string has two bytes at least
    assert heads_and_indexes(message) == heads_and_indexes(dull) == (message[1], list(range(len(fds))))
    assert len(message) <= 65_536 or kind.spilled_bytes == len(message)


@pytest.mark.parametrize("name", ["strings", "meta"])
def test_fresh_names_are_in_no_two_packets(name: str, opened: Files) -> None:
    make, _dull = KINDS[name].packets(opened)

    assert make(1).data != make(1).data


@pytest.mark.parametrize("size", [2, 3, 256, 257, 258, 259, 65_538, 65_539, 100_000])
def test_padding_is_as_long_as_it_is_to_be(size: int) -> None:
    assert len(padding(size)) == size
    assert msgpack.unpackb(padding(size)) == b"x" * (size - min(5, 2 + (size > 257) + 2 * (size > 65_538)))
    assert len(plain(size + 100, 20)) == size + 100


def looks(table: list[int], key: int) -> int:
    """Return how many places a dictionary of CPython looks at until it puts a key somewhere, and put it there."""
    mask, perturb = len(table) - 1, key
    place, count = key & mask, 1
    while table[place] >= 0:
        perturb >>= 5
        place = (5 * place + perturb + 1) & mask
        count += 1
    table[place] = key
    return count


def test_chosen_integers_walk_along_all_that_was_filled() -> None:
    filling, walking = chosen_integers(10, 400, 200)
    table = [-1] * 1024

    assert [looks(table, key) for key in filling] == [1] * 400
    assert min(looks(table, key) for key in walking) > 400 * 7 // 8
    assert len({*filling, *walking}) == 600
    assert len(dict.fromkeys(range(600))) * 3 // 2 <= 1024 < 600 * 3  # a dictionary of so many has that many places


def test_chosen_pairs_have_one_hash() -> None:
    pairs = chosen_pairs(100)

    assert len(set(pairs)) == 100
    assert len(set(map(hash, pairs))) == 1


def test_every_entry_has_an_attack() -> None:
    assert {int(name.partition("-")[0]) for name in ATTACKS} == set(range(6, 15))
    for number in (6, 7, 9, 13, 14):
        names = [name for name in ATTACKS if name.startswith(f"{number}-")]
        assert any("refused" in name for name in names)
        assert any("admitted" in name or "method" in name for name in names)


def turn(microseconds: float = 10.0, *, peak: int = 0, kept: int = 0, hung: bool = False) -> Turn:
    return Turn(1, hung, microseconds, peak, kept)


@pytest.mark.parametrize(
    "costly, is_over",
    [
        (turn(15.0), False),
        (turn(15.1), True),
        (turn(peak=MOST_BYTES + 4096), False),
        (turn(peak=MOST_BYTES + 4097), True),
        (turn(kept=MOST_BYTES + 1), True),
        (turn(hung=True), True),
    ],
)
def test_a_row_is_over_when_it_costs_more_than_it_may(costly: Turn, is_over: bool) -> None:
    row = Row("name", "what", hostile=[costly], dull=[turn(peak=4096)])

    assert row.is_over() is is_over
