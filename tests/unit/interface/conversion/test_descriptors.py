"""Descriptors are found wherever an annotation has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Optional, Union

import msgspec
import pytest
from support.annotations import (
    Box,
    Chicken,
    DictHolder,
    Egg,
    Holder,
    Mixed,
    Node,
    PairHolder,
    StructHolder,
    converted,
)

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.contents import takes_descriptors
from seqrpc.interface.conversion import convert
from seqrpc.interface.planning import plan
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.values import descriptors_in


@pytest.mark.parametrize(
    "annotation, build",
    [
        (OwnedFd, lambda fd: fd),
        (OwnedFd | None, lambda fd: fd),
        (Any, lambda fd: fd),
        (list[OwnedFd], lambda fd: [fd]),
        (dict[str, OwnedFd], lambda fd: {"a": fd}),
        (tuple[int, OwnedFd], lambda fd: (1, fd)),
        (set[OwnedFd], lambda fd: {fd}),
        (OwnedFd | str, lambda fd: fd),
        (OwnedFd | str | None, lambda fd: fd),
        (Optional[Union[OwnedFd, int]], lambda fd: fd),  # noqa: UP007, UP045
        (OwnedFd | Mixed, lambda fd: fd),
        (Annotated[OwnedFd | int, "a note"], lambda fd: fd),
        (dict[int, OwnedFd | str], lambda fd: {1: fd, 2: "b"}),
        (tuple[OwnedFd | str, ...], lambda fd: (fd, "b")),
        (Sequence[OwnedFd | str], lambda fd: [fd]),
        (Box[OwnedFd], Box),
        (Box[OwnedFd | int], Box),
        (Holder, Holder),
        (StructHolder, lambda fd: StructHolder([fd])),
        (PairHolder, PairHolder),
        (Mixed, Mixed),
        (Mixed | None, Mixed),
        (OwnedFd | Mixed, Mixed),
        (Mixed | int | None, Mixed),
        (list[Mixed], lambda fd: [Mixed(fd, "y", ["z"])]),
        (Node, lambda fd: Node("a", Node("b", children=[Node(fd)]))),
        (Chicken, lambda fd: Chicken(Egg(Chicken(None), fd))),
    ],
)
def test_descriptors_are_found_wherever_they_are(
    annotation: Any, build: Callable[[OwnedFd], Any], pipe: tuple[int, int]
) -> None:
    planned = plan(annotation)
    assert takes_descriptors(shape_of(annotation))
    with OwnedFd.dup(pipe[0]) as fd:
        value = build(fd)
        assert descriptors_in(value) == [fd]
        wire = msgspec.to_builtins(value, builtin_types=(OwnedFd,))
        result = convert(wire, planned)
        assert result == value
        assert type(result) is type(value)
        assert descriptors_in(result) == [fd]


def test_a_typed_dict_holds_descriptors(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as fd:
        assert converted({"fd": fd}, DictHolder) == {"fd": fd}


def test_every_choice_of_a_union_with_a_descriptor_is_tried() -> None:
    planned = plan(OwnedFd | int | Mixed | list[Node] | None)
    assert convert(5, planned) == 5
    assert convert(None, planned) is None
    assert convert({"source": "a", "name": "b"}, planned) == Mixed("a", "b")
    assert convert([{"source": "a", "next": None}], planned) == [Node("a")]
    with pytest.raises(
        msgspec.ValidationError, match=r"Expected `OwnedFd \| int \| Mixed \| .*Node.* \| None`, got `str`"
    ):
        convert("x", planned)
