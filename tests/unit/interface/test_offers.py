"""Which method was probably meant, and who is told."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.daemons import on_a_pair

import seqrpc
from seqrpc import policy
from seqrpc.interface import offers as module
from seqrpc.interface.offers import OFFERS, Offers
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import MOST_OFFERS

HERE = Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())

POLICIES: dict[str, policy.Policy] = {
    "Machine.add": policy.anyone,
    "Machine.added": ~policy.anyone,
    "Machine.release": ~policy.anyone,
    "org.example.Vault.open_door": policy.anyone,
    "rpc.ping": policy.anyone,
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Let the process have made no offer, and leave it so."""
    OFFERS.__init__()  # type: ignore[misc]
    yield
    OFFERS.__init__()  # type: ignore[misc]


@pytest.mark.parametrize(
    "called, meant",
    [
        ("Machine.ad", "Machine.add"),
        ("add", "Machine.add"),
        ("Machine.adde", "Machine.add"),  # "added" is nearer, and not for this caller
        ("machine.ad", "Machine.add"),
        ("org.example.Vault.opendoor", "org.example.Vault.open_door"),
        ("open_door", "org.example.Vault.open_door"),
        ("rpc.pin", "rpc.ping"),
        ("Machine.releas", None),
        ("release", None),
        ("Machine.open_door", None),
        ("Machine.xyz", None),
        ("", None),
        (".", None),
        ("Machine." + "add" * 100_000, None),
    ],
)
def test_what_is_near_and_may_be_called_is_offered(called: str, meant: str | None) -> None:
    offered = "" if meant is None else f"; did you mean {meant!r}?"
    assert Offers().offer(called, POLICIES, HERE) == offered


@pytest.mark.parametrize("service", ["Other", "org.example.Other", "O" * 48, "rpcs"])
def test_where_only_the_service_is_called_otherwise_how_to_name_it_is_said(service: str) -> None:
    expected = f"; did you mean 'Machine.add'? (a service is called {service!r} if its class has name={service!r})"
    assert Offers().offer(f"{service}.add", POLICIES, HERE) == expected


@pytest.mark.parametrize("service", ["O" * 49, "rpc.x"])
def test_what_can_be_no_name_is_not_proposed_as_one(service: str) -> None:
    assert Offers().offer(f"{service}.add", POLICIES, HERE) == "; did you mean 'Machine.add'?"


def test_nothing_is_offered_to_a_caller_without_a_name() -> None:
    assert Offers().offer("add", POLICIES, None) == ""


def test_the_policies_of_a_few_names_only_are_asked() -> None:
    asked: list[str] = []

    class Asked(policy.Policy):
        def __init__(self, name: str) -> None:
            self.name = name

        def verdict(self, caller: Credentials) -> bool:
            asked.append(self.name)
            return False

    policies: dict[str, policy.Policy] = {name: Asked(name) for name in (f"S{number}.add" for number in range(100))}
    assert Offers().offer("add", policies, HERE) == ""
    assert asked == ["S0.add", "S1.add", "S2.add"]


def test_who_mistypes_often_gets_no_offers_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = Offers()
    made = [offers.offer("add", POLICIES, HERE) for _ in range(3 * MOST_OFFERS)]
    assert made[:MOST_OFFERS] == ["; did you mean 'Machine.add'?"] * MOST_OFFERS
    assert made[MOST_OFFERS:] == [""] * (2 * MOST_OFFERS)
    monkeypatch.setattr(module, "OFFERS_WINDOW", 0.0)
    assert offers.offer("add", POLICIES, HERE)


class Machine(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method(allow=~policy.anyone)
    async def secret(self) -> None: ...

    async def forgotten(self) -> None: ...


async def test_a_caller_is_told_what_it_may_call_and_the_log_what_is_not_marked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with on_a_pair(Machine()) as connection:
        for called in ("add", "Machine.ad", "Machin.add"):
            with pytest.raises(seqrpc.MethodNotFound, match=r"no method '.*'; did you mean 'Machine\.add'\?"):
                await connection.call(called, 1, 2)
        for called in ("secret", "Machine.secre", "Machine.forgotten"):
            with pytest.raises(seqrpc.MethodNotFound) as caught:
                await connection.call(called)
            assert caught.value.message == f"there is no method {called!r}"
    told = [record.getMessage() for record in caplog.records]
    assert told == ["! 'Machine.forgotten' was called, which is not marked with @seqrpc.method"]


async def test_whom_no_policy_admits_is_offered_nothing() -> None:
    async with on_a_pair(Machine(), allow=policy.uid(4_242)) as connection:
        with pytest.raises(seqrpc.PermissionDenied) as caught:
            await connection.call("Machine.ad")
        assert caught.value.message == "Machine.ad: this caller is not admitted"
