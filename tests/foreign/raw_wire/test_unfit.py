"""What is not malformed, but does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.raw_wire import Ext, Maker, Raw, Service, buffer, packed

VALUES: dict[str, Callable[[Maker], tuple[Any, int]]] = {
    "descriptor": lambda make: (Ext(1, b"\0"), make.null()),
    "stream": lambda make: (Ext(2, b"\0"), make.pair()[1]),
    "channel": lambda make: (Ext(3, b"\0"), make.pair()[1]),
    "buffer": lambda make: (buffer(0, 0, 1), make.memfd(b"x")),
}


@pytest.fixture(params=VALUES)
def value(request: pytest.FixtureRequest, make: Maker) -> tuple[Any, list[int]]:
    """Return each of the values that travel as descriptors, and the descriptor."""
    value, fd = VALUES[request.param](make)
    return value, [fd]


@pytest.mark.parametrize(
    "method, code",
    [("add", "rpc.InvalidParams"), ("forbidden", "rpc.PermissionDenied"), ("nothing", "rpc.MethodNotFound")],
)
def test_a_refused_call_lets_go_of_what_came_with_it(
    service: Service, raw: Raw, value: tuple[Any, list[int]], method: str, code: str
) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()

    assert raw.ask(1, method, value[0], fds=value[1])[2][0] == code

    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)


def test_an_answer_that_does_not_fit_is_let_go_of(service: Service, raw: Raw, value: tuple[Any, list[int]]) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()
    raw.send(packed(0, 1, "Foreign.code_of_call_back", []))
    assert raw.message() == [0, 0, "Client.greet", ["Python"]]

    raw.send(packed(1, 0, None, value[0]), value[1])

    assert raw.message() == [1, 1, None, "it does not fit"]
    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)


def test_an_item_that_does_not_fit_ends_its_stream_and_is_let_go_of(
    make: Maker, service: Service, raw: Raw, value: tuple[Any, list[int]]
) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()
    ours, theirs = make.pair()
    ours.send(packed(0, 1, 2))
    ours.send(packed(0, value[0]), value[1])

    answer = raw.ask(1, "why_numbers_end", Ext(2, b"\0"), fds=[theirs])

    assert answer == [1, 1, None, [3, "rpc.InvalidParams"]]
    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)
