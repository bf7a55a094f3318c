"""Items of a stream that came in: in which order they are given out, and what is closed of those that nobody takes."""

from __future__ import annotations

from typing import Any

import pytest
from support.descriptors import owned

from seqrpc.errors import RpcError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.received import ReceivedItems, TooManyAtOnce


class Wrong(RpcError, code="received.Wrong"):
    """An item does not fit."""


def small(items: list[Any]) -> list[Any]:
    """Make strings of small numbers."""
    if any(item is None or item >= 10 for item in items):
        raise Wrong("too large")
    return [str(item) for item in items]


def taken(items: ReceivedItems) -> list[Any]:
    """Return all items that can be had."""
    found = []
    while items:
        while not items.is_ready:
            items.look()
        found.append(items.take())
    return found


def received(*values: Any, fds: list[OwnedFd] | None = None, check: Any = None) -> ReceivedItems:
    items = ReceivedItems()
    items.check = check
    items.add(list(values), [] if fds is None else fds)
    return items


def test_items_without_descriptors_are_ready_at_once() -> None:
    items = received(1, 2)

    assert list(items.ready) == [1, 2]
    assert not items.has_more
    assert taken(items) == [1, 2]
    assert not items
    assert not items.is_ready


def test_many_items_are_looked_at_some_at_a_time() -> None:
    items = received(*range(3_000))
    parts = []
    while True:
        parts.append(len(items.ready))
        for _ in range(parts[-1]):
            items.take()
        if not items.has_more:
            break
        assert items
        items.look()
    assert parts == [1_024, 1_024, 952]


def test_fewer_are_looked_at_once_they_were_too_many() -> None:
    asked = []

    def check(values: list[int]) -> list[int]:
        asked.append(len(values))
        if len(values) > 3:
            raise TooManyAtOnce
        return values

    with owned(1) as (file,):
        items = received(*range(10), file, *range(10, 13), fds=[file], check=check)
        assert not items.is_ready
        assert taken(items) == [*range(10), file, 10, 11, 12]
    assert asked == [10, 5, 2, 2, 2, 2, 2, 1, 2, 1]
    assert items.failure is None


def test_an_item_with_descriptors_is_given_out_with_them() -> None:
    with owned(1) as fds:
        (file,) = fds
        items = received(file, fds=list(fds))
        assert items.is_ready
        assert not items.ready
        assert items.take() is file
        items.drop()
        assert not file.closed, "it was taken"


def test_items_between_those_with_descriptors_keep_their_order() -> None:
    with owned(2) as fds:
        one, two = fds
        assert taken(received(0, one, 1, 2, two, 3, fds=list(fds))) == [0, one, 1, 2, two, 3]


def test_what_nobody_takes_is_closed() -> None:
    with owned(3) as fds:
        one, two, three = fds
        items = received(one, two, 1, three, fds=list(fds))
        assert items.take() is one
        items.look()
        items.drop()
        assert [fd.closed for fd in (one, two, three)] == [False, True, True]
        assert not items


def test_what_is_forgotten_is_not_closed() -> None:
    with owned(2) as fds:
        items = received(*fds, fds=list(fds))
        items.failure = Wrong("later")
        items.forget()
        assert [fd.closed for fd in fds] == [False, False]
        assert not items
        assert items.failure is None


def test_items_are_converted_before_they_are_given_out() -> None:
    assert taken(received(1, 2, check=small)) == ["1", "2"]
    with owned(1) as fds:
        (file,) = fds
        assert taken(received([file], fds=list(fds), check=lambda values: [value[0] for value in values])) == [file]


def test_descriptors_that_the_check_leaves_out_are_closed() -> None:
    with owned(2) as fds:
        one, two = fds
        assert taken(received([one, two], fds=list(fds), check=lambda values: [value[0] for value in values])) == [one]
        assert [fd.closed for fd in (one, two)] == [False, True]


@pytest.mark.parametrize("values", [[10], [1, 2, 10, 3]])
def test_an_item_that_does_not_fit_comes_after_those_before_it(values: list[int]) -> None:
    items = received(*values, check=small)
    assert isinstance(items.failure, Wrong)
    assert taken(items) == [str(value) for value in values[: values.index(10)]]


def test_a_check_may_fail_over_many_items_and_over_none_of_them() -> None:
    def fickle(values: list[Any]) -> list[Any]:
        if len(values) > 1:
            raise Wrong("too many at once")
        return values

    items = received(1, 2, check=fickle)
    assert items.failure is None
    assert taken(items) == [1, 2]


def test_an_item_with_descriptors_that_does_not_fit_closes_them_and_those_behind_it() -> None:
    with owned(2) as fds:
        one, two = fds

        def fails(values: list[Any]) -> list[Any]:
            raise Wrong(str(len(values)))

        items = received(one, two, fds=list(fds), check=fails)
        assert isinstance(items.failure, Wrong)
        assert [fd.closed for fd in (one, two)] == [True, True]
        assert not items
