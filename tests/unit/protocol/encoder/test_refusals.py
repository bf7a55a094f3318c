"""What cannot be sent, and how that is told."""

from __future__ import annotations

from typing import Any

import pytest
from support.coding import Record, encode, nested, refusal, sent
from support.descriptors import Lender
from support.measures import steps_of_python

from seqrpc.errors import LocalProtocolError
from seqrpc.limits import MAX_VALUES_SEARCHED, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder

NO_OBJECT = "a value of type object cannot be sent; make it a dataclass, or send its parts"


class Unhelpful:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} today")


class UnhelpfulMapping(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items today")


@pytest.mark.parametrize(
    "value, reason",
    [
        (2**64, "cannot send result: integers have at most 64 bits, this one has 65"),
        (-(2**63) - 1, "cannot send result: integers have at most 64 bits, this one has 64"),
        ([1, {"a": (0, 2**64)}], "cannot send result[1]['a'][1]: integers have at most 64 bits, this one has 65"),
        ({2**64: 1}, "cannot send result's key 18446744073709551616: integers have at most 64 bits"),
        (Record(2**64), "cannot send result.value: integers have at most 64 bits, this one has 65"),
        (object(), f"cannot send result: {NO_OBJECT}"),
        (
            {"a": [Lender(), Record(object())]},
            f"cannot send result['a'][1].value: {NO_OBJECT}",
        ),
        ([[1], {2: ()}, object()], f"cannot send result[2]: {NO_OBJECT}"),
        (1j, f"cannot send result: {NO_OBJECT.replace('object', 'complex')}"),
        ("\udcff", "cannot send result: 'utf-8' codec can't encode character"),
        (Record("\udcff"), "cannot send result.value: 'utf-8' codec can't encode character"),
        ({"\udcff": 1}, "cannot send result's key '\\udcff': 'utf-8' codec can't encode character"),
        (memoryview(bytes(9))[::2], "cannot send result: memoryview: underlying buffer is not C-contiguous"),
        (Unhelpful(), "cannot send result: no fileno today"),
        ([Record(Unhelpful())], "cannot send result[0].value: no fileno today"),
        (UnhelpfulMapping(a=1), "cannot send: no items today"),
        ({"x" * 5000: 2**64}, f"cannot send result['{'x' * 192}…: integers"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_sent_is_named(value: Any, reason: str) -> None:
    encoder = Encoder()
    assert refusal(value, encoder).startswith(reason)
    assert encode(1, encoder) == b"\x94\x01\x01\xc0\x01", "what failed left something behind"


def test_what_cannot_be_sent_is_told_without_its_place_if_that_would_take_long() -> None:
    told = refusal([*[0] * 100_000, 2**64])
    assert told == "cannot send: Integer value out of range (it is not among the first 16384 values)"


def test_what_cannot_be_sent_is_told_without_names_too() -> None:
    with pytest.raises(LocalProtocolError, match=f"^cannot send: {NO_OBJECT}$"):
        Encoder().encode((3, object()))


def test_an_exception_without_a_text_is_told_by_its_class() -> None:
    class Silent:
        def __getattr__(self, name: str) -> int:
            raise RuntimeError

    class SilentMapping(dict[str, int]):
        def items(self) -> Any:
            raise KeyError

    assert refusal(Silent()) == "cannot send result: RuntimeError"
    assert refusal(SilentMapping(a=1)) == "cannot send: KeyError"


def test_values_nested_as_deeply_as_allowed_arrive_and_deeper_ones_are_not_sent() -> None:
    assert sent(nested(63)) == nested(63)
    for depth in (64, 500, 600, 100_000):
        assert "nested" in refusal(nested(depth))


def test_a_bound_beyond_what_msgpack_packs_is_told_too() -> None:
    encoder, decoder = Encoder(Limits(max_depth=3_000)), Decoder(Limits(max_depth=3_000))
    assert decoder.decode(encode(nested(300), encoder), [])[0][3] == nested(300)
    assert "nested too deeply" in refusal(nested(2_000), encoder)


@pytest.mark.parametrize("depth", [70, 3_000])
def test_deep_dataclasses_are_not_sent(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = Record(value)
    assert refusal(value)


def test_what_holds_itself_is_not_sent() -> None:
    in_list: list[Any] = [1, 2]
    in_list.append(in_list)
    in_dict: dict[str, Any] = {}
    in_dict["me"] = in_dict
    in_record = Record(None)
    in_record.value = [in_record]

    assert refusal(in_list).endswith(": it is nested too deeply, or holds itself")
    assert refusal(in_dict).endswith(": it is nested too deeply, or holds itself")
    assert refusal(in_record)


def test_a_value_is_explained_also_when_the_stack_is_nearly_full() -> None:
    encoder = Encoder(Limits(max_depth=500))
    value: Any = object()
    for _ in range(400):
        value = [value]

    def far_down(levels: int) -> str:
        return far_down(levels - 1) if levels else refusal(value, encoder)

    assert far_down(550).startswith("cannot send")


def test_of_what_cannot_be_sent_the_place_is_told_if_it_is_not_far_behind() -> None:
    many = [1] * MAX_VALUES_SEARCHED
    assert refusal([*many[:100], object()]) == f"cannot send result[100]: {NO_OBJECT}"
    for value in ([many, object()], {"a": dict.fromkeys(range(MAX_VALUES_SEARCHED)), "b": object()}):
        with steps_of_python() as steps:
            assert refusal(value).startswith(f"cannot send: {NO_OBJECT}")
        assert steps[0] < 40 * MAX_VALUES_SEARCHED
    many *= 100
    with steps_of_python() as steps:
        assert "cannot be sent" in refusal([many, object()])
    assert steps[0] < 40 * MAX_VALUES_SEARCHED


def test_the_place_of_what_cannot_be_sent_is_told_shortly() -> None:
    text = refusal({"k" * 1_000_000: [1, object()]})
    assert text.startswith("cannot send result['kkkkk")
    assert len(text) < 300
