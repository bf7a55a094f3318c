"""Descriptors in objects of the kinds that annotations name."""

from __future__ import annotations

import os
from typing import Any

from support.annotations import Holder, Point, StructHolder

from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.protocol.values import descriptors_in


def test_descriptors_are_found_in_any_value(pipe: tuple[int, int]) -> None:
    fds = [OwnedFd.dup(pipe[0]) for _ in range(7)]
    try:
        value = {
            fds[0]: [fds[1], 5, (fds[2],)],
            "b": {fds[3], "x"},
            "c": frozenset({fds[4]}),
            "d": StructHolder([fds[5]]),
            "e": Holder(fds[6]),
            "f": Point,
        }
        found = descriptors_in(value)
        assert len(found) == 7
        assert set(found) == set(fds)
    finally:
        close_all(fds)


def test_descriptors_are_found_once_in_a_value_that_holds_itself_and_at_any_depth(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        circle: list[Any] = [fd]
        circle.append(circle)
        assert descriptors_in(circle) == [fd]
        deep: Any = fd
        for _ in range(5_000):
            deep = [deep]
        assert descriptors_in(deep) == [fd]
    assert descriptors_in(os) == []
