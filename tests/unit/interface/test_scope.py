"""What calls take along from where they are made."""

from __future__ import annotations

import contextvars
import math
from typing import Any

import pytest

from seqrpc.interface.scope import EVERYWHERE, Scope, bounded, metadata, run_outside, scope, within


def test_metadata_add_up_and_end_with_their_block() -> None:
    with metadata(trace="1", user="a"):
        with metadata(user="b"):
            assert scope.get().outgoing_meta == {"trace": "1", "user": "b"}
        assert scope.get().outgoing_meta == {"trace": "1", "user": "a"}
    assert scope.get() is EVERYWHERE


@pytest.mark.parametrize("value", [1, None, b"x"])
def test_metadata_are_strings(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metadata are strings, got .* for 'trace'"), metadata(trace=value):
        pass
    assert scope.get() is EVERYWHERE


def test_what_runs_outside_sees_no_scope_and_leaves_none() -> None:
    def look(number: int) -> tuple[int, bool]:
        inside = scope.get() is EVERYWHERE
        scope.set(Scope(deadline_ns=5))
        return number, inside

    with metadata(trace="1"):
        surrounding = scope.get()
        assert surrounding is not EVERYWHERE
        assert run_outside(look, 5) == (5, True)
        assert scope.get() is surrounding
        with pytest.raises(KeyError):
            run_outside({}.__getitem__, "x")


def test_what_was_said_around_a_call_is_said_within_alone() -> None:
    with metadata(trace="1"):
        surrounding = scope.get()
        with within(5, {"user": "a"}):
            inside = scope.get()
            assert (inside.deadline_ns, inside.outgoing_meta, inside.outer) == (5, {"user": "a"}, surrounding)
        assert scope.get() is surrounding


def test_what_is_entered_may_be_left_in_another_context() -> None:
    block = within(5, None)
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert scope.get() is EVERYWHERE


@pytest.mark.parametrize(
    "outer, delay, deadline",
    [
        (None, None, None),
        (None, 2, 2_000_000_005),
        (None, 0.5, 500_000_005),
        (None, -1, -999_999_995),
        (None, 1e9, None),
        (None, math.inf, None),
        (7, None, 7),
        (7, 2, 7),
        (3_000_000_000, 2, 2_000_000_005),
        (3_000_000_000, math.inf, 3_000_000_000),
    ],
)
def test_the_earlier_deadline_holds(outer: int | None, delay: float | None, deadline: int | None) -> None:
    surrounding = Scope(outer, {"trace": "1"})
    inside = bounded(surrounding, delay, 5)
    assert (inside.deadline_ns, inside.outgoing_meta) == (deadline, {"trace": "1"})
    assert inside.outer is surrounding


def test_no_number_is_no_delay() -> None:
    with pytest.raises(ValueError, match="NaN"):
        bounded(EVERYWHERE, math.nan, 5)


def test_metadata_may_be_entered_within_itself_and_decorate_what_runs_within_itself() -> None:
    seen = []
    entries = metadata(trace="1")

    @entries
    def look(deeper: bool) -> None:
        seen.append(scope.get().outgoing_meta)
        if deeper:
            look(False)
            seen.append(scope.get().outgoing_meta)

    with entries, entries:
        look(True)
    assert seen == [{"trace": "1"}] * 3
    assert scope.get().outgoing_meta is None
