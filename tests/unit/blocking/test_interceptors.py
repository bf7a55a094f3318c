from __future__ import annotations

from typing import Any

import pytest

import seqrpc
from seqrpc.blocking.current import CurrentCall
from seqrpc.blocking.interceptors import Interception, Interceptor, Proceed
from seqrpc.calls.records import CallRecord, OutgoingCall


class Around(Interceptor):
    def handle(self, call: CurrentCall, proceed: Proceed) -> Any:
        return proceed()


class Hearing(Interceptor):
    def ended(self, record: CallRecord) -> None: ...


class Calling(Interceptor):
    def request(self, call: OutgoingCall, proceed: Proceed) -> Any:
        return proceed()


def test_interceptors_are_sorted_by_what_they_override() -> None:
    given = [Around(), Hearing(), Calling(), Interceptor()]
    interception = Interception(given)
    assert interception.around == (given[0],)
    assert interception.hearing == (given[1],)
    assert interception.calling == (given[2],)


def test_what_is_not_overridden_goes_on() -> None:
    call: Any = None
    assert Interceptor().handle(call, lambda: 1) == 1
    assert Interceptor().request(call, lambda: 2) == 2
    Interceptor().ended(call)


class Awaited(Interceptor):
    async def handle(self, call: CurrentCall, proceed: Proceed) -> Any:
        return proceed()


@pytest.mark.parametrize(
    "given, text",
    [
        (Around(), r"takes a list of them, got .*write \[...\] around it"),
        ([Around], r"got the class: write Around\(\)"),
        ([3], "an object of a seqrpc.blocking.Interceptor was expected, got 3"),
        ([seqrpc.Interceptor()], "an object of a seqrpc.blocking.Interceptor was expected"),
        ([Awaited()], "Awaited.handle must be a plain function: nobody awaits it"),
    ],
)
def test_mistakes_are_told(given: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Interception(given)
