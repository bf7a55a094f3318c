"""From answers to what callers get."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from seqrpc.errors import InvalidResult, Overloaded, RpcError
from seqrpc.interface.answers import finishing, result_of
from seqrpc.interface.planning import plan
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.messages import Response


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Explosive:
    word: str

    def __post_init__(self) -> None:
        raise KeyError(self.word)


def finished(annotation: Any, response: Response, limits: Limits = DEFAULT_LIMITS) -> Any:
    return finishing("S.m", plan(annotation))(response, limits)


def answer(result: Any, *fds: OwnedFd) -> Response:
    return Response(1, None, result, list(fds))


def refusal(code: str) -> Response:
    return Response(1, [code, "later", {"seconds": 1}], None, [])


@pytest.mark.parametrize(
    "annotation, result, expected",
    [
        (int, 5, 5),
        (None, None, None),
        (float, 5, 5.0),
        (Point, {"x": 1}, Point(1)),
        (set[str], ["a"], {"a"}),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_result_is_of_the_annotated_type(annotation: Any, result: Any, expected: Any) -> None:
    made = finished(annotation, answer(result))
    assert made == expected
    assert type(made) is type(expected)


def test_what_needs_no_conversion_comes_as_it_is() -> None:
    result = [1, {"a": b"x"}]
    assert finished(Any, answer(result)) is result
    assert result_of(answer(result), DEFAULT_LIMITS) is result
    assert finishing("S.m", plan(Any)) is result_of


@pytest.mark.parametrize("annotation", [int, None, Point, Any])
def test_an_error_is_raised_as_the_class_of_its_code(annotation: Any) -> None:
    with pytest.raises(Overloaded, match="later") as caught:
        finished(annotation, refusal("rpc.Overloaded"))
    assert (caught.value.data, caught.value.remote) == ({"seconds": 1}, True)
    with pytest.raises(RpcError) as unknown:
        finished(annotation, refusal("bank.Empty"))
    assert type(unknown.value) is RpcError


@pytest.mark.parametrize(
    "annotation, result, reason, is_told",
    [
        (int, "x", "Expected `int`, got `str`", False),
        (int, None, "Expected `int`, got `null`", False),
        (Point, {"x": "a"}, r"Expected `int`, got `str` - at `\$.x`", False),
        (Explosive, {"word": "explode"}, "'explode'", True),
    ],
)
def test_what_does_not_fit_is_an_invalid_result_and_what_came_with_it_is_closed(
    annotation: Any, result: Any, reason: str, is_told: bool, pipe: tuple[int, int]
) -> None:
    fd = OwnedFd.dup(pipe[0])
    with pytest.raises(InvalidResult, match=rf"S\.m answered what does not fit its annotation: {reason}") as caught:
        finished(annotation, answer(result, fd))
    assert (caught.value.__cause__ is not None) == is_told, "msgspec's own words quote the other side"
    assert fd.closed


def test_descriptors_in_a_result_are_the_caller_s(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        assert finished(dict[str, OwnedFd], answer({"file": fd}, fd)) == {"file": fd}
        assert os.fstat(fd.fileno()).st_ino == os.fstat(pipe[0]).st_ino


def test_elements_that_may_be_chosen_to_collide_are_bounded_by_the_connection_s_limits() -> None:
    result = list(range(5))
    assert finished(set[int], answer(result), Limits(max_other_keys=5)) == {0, 1, 2, 3, 4}
    with pytest.raises(InvalidResult, match="at most 4 elements"):
        finished(set[int], answer(result), Limits(max_other_keys=4))
