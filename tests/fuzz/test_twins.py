"""A few seconds of the differential fuzzer (``python -m fuzz.twins``), and that it sees what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fuzz.twins.driver import Twins, difference, hunt
from fuzz.twins.making import PROFILES, make

import seqrpc

CASES = 16
"""Of each profile."""


@pytest.mark.parametrize("profile", PROFILES)
def test_scripts_are_made_of_their_numbers_alone(profile: str) -> None:
    scripts = [make(number, 7, profile) for number in range(20)]
    assert scripts == [make(number, 7, profile) for number in range(20)]
    assert scripts == json.loads(json.dumps(scripts))
    assert len({json.dumps(script) for script in scripts}) == 20


@pytest.mark.skipif(getattr(seqrpc, "__twin__", "pure") == "pure", reason="the native twin is not there")
@pytest.mark.parametrize("profile", PROFILES)
def test_both_twins_do_the_same(profile: str, tmp_path: Path) -> None:
    with Twins() as twins:
        found = [worker.twin()["twin"] for worker in (twins.pure, twins.native)]
        figures = hunt(twins, seed=2, cases=CASES, most=1, profile=profile, into=tmp_path)
    assert found == ["pure", "native"]
    assert figures.cases == CASES
    told = [path.read_text() for path in tmp_path.iterdir()]
    assert figures.differences == [], told


def changed_tree(tree: Path, file: str, old: str, new: str) -> Path:
    """Return a copy of the package in which one thing is another."""
    shutil.copytree(Path(seqrpc.__file__).parent, tree / "seqrpc", ignore=shutil.ignore_patterns("*.so"))
    text = (tree / "seqrpc" / file).read_text()
    assert text.count(old) == 1
    (tree / "seqrpc" / file).write_text(text.replace(old, new))
    return tree


def request(call_id: int, method: bytes, argument: int) -> list[Any]:
    return [bytes([0x94, 0, call_id, 0xA0 + len(method), *method, 0x91, argument]).hex(), 0]


def script_of(*steps: list[list[Any]], **limits: int) -> dict[str, Any]:
    script = make(0, 1)
    plain = {"peers": ["R"], "allow": "default", "interceptors": 0, "limits": {"close_timeout": 0.05, **limits}}
    return {**script, **plain, "steps": [{"do": ops} for ops in steps]}


def test_another_bound_is_found_and_shrunk(tmp_path: Path) -> None:
    """The second process has one request more in flight than its limit says."""
    more = ("len(self.requests) >= self._max_calls", "len(self.requests) > self._max_calls")
    tree = changed_tree(tmp_path / "tree", "protocol/session.py", *more)
    waits = [request(call_id, b"Plain.wait", 1) for call_id in range(3)]
    script = script_of(
        [["send", 0, [request(9, b"Plain.maybe", 5)]]],
        [["send", 0, waits], ["gc"]],
        [["gate", 1]],
        max_calls_in_flight=1,
    )

    with Twins(tree=tree, same=True) as twins:
        for seed in (89, 88, 77):  # on a slow machine what differs in one of them may not always do so
            figures = hunt(twins, seed=seed, cases=16, most=1, into=tmp_path / "found", shrinks=False)
        shrunk = twins.shrink(script)
        lines = difference(*twins.both({"script": shrunk}))

    assert figures.differences
    assert len(shrunk["steps"]) == 1
    [[op, _peer, packets]] = shrunk["steps"][0]["do"]
    assert (op, len(packets)) == ("send", 2)
    assert any(line.startswith("-") and b"rpc.Overloaded".hex() in line for line in lines)


def test_what_is_only_chance_is_no_difference(tmp_path: Path) -> None:
    """The second process has one request more in flight than its limit says, every other time or so."""
    chance = '__import__("os").urandom(1) < b"\\x80"'
    more = ("len(self.requests) >= self._max_calls", f"len(self.requests) >= self._max_calls + ({chance})")
    tree = changed_tree(tmp_path / "tree", "protocol/session.py", *more)

    with Twins(tree=tree, same=True) as twins:
        figures = hunt(twins, seed=77, cases=32, most=1, into=tmp_path / "found")

    assert figures.differences == []
    assert figures.unsteady > 0
    assert all(path.name.startswith("unsteady-") for path in (tmp_path / "found").iterdir())


def test_a_process_that_dies_is_a_difference_and_another_goes_on(tmp_path: Path) -> None:
    """The second process ends itself when it is asked for something."""
    old = "        context = self._surroundings.copy()\n"
    dies = '        if request.params == [113]:\n            __import__("os").kill(__import__("os").getpid(), 9)\n'
    tree = changed_tree(tmp_path / "tree", "aio/dispatch.py", old, old + dies)
    script = script_of([["send", 0, [request(1, b"Guarded.same", 113)]]])

    with Twins(tree=tree, same=True) as twins:
        one, other = twins.both({"script": script})
        again, yet_again = twins.both({"script": script})

    assert other == yet_again == {"died": -9}
    assert one["diary"] == again["diary"]
    assert any("begins" in line for line in one["diary"])
