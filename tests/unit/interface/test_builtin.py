"""The service that every server has."""

from __future__ import annotations

import pytest

from seqrpc.interface.builtin import BuiltIn, everybody
from seqrpc.interface.description import describe
from seqrpc.interface.functions import Runs
from seqrpc.interface.policy import anyone
from seqrpc.kernel.credentials import Credentials

SOMEBODY = Credentials(pid=1, uid=4_242, gid=4_242)


def test_it_has_the_name_that_the_protocol_gives_it_and_one_method_for_everybody() -> None:
    description = describe(BuiltIn)
    assert description.name == "rpc"
    (ping,) = description.methods.values()
    assert (ping.name, ping.parameters, ping.allow, ping.runs) == ("ping", (), everybody, Runs.THREAD)


async def test_it_answers_nothing() -> None:
    assert await BuiltIn().ping() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("caller", [SOMEBODY, Credentials(pid=None, uid=None, gid=None), None])
def test_everybody_is_admitted_also_whom_the_kernel_does_not_name(caller: Credentials | None) -> None:
    assert everybody.admits(caller)
    assert caller is None or everybody.verdict(caller) is True
    assert repr(everybody) == "everybody"


def test_joined_with_others_it_is_a_policy_as_any_and_nobody_is_admitted_unnamed() -> None:
    assert (everybody & anyone).admits(SOMEBODY)
    assert not (~everybody).admits(SOMEBODY)
    assert not (everybody | anyone).admits(None)
