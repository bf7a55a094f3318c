from __future__ import annotations

from typing import Any

import pytest

import seqrpc
from seqrpc.interface.entries import MethodTable, bounded_name
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd

ME = Credentials(pid=1, uid=1000, gid=1000, groups=())


class S(seqrpc.Service):
    @seqrpc.method
    def plain(self) -> int:
        return 1

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    async def native(self) -> Any: ...

    def unmarked(self) -> None: ...


class Guarded(seqrpc.Service, allow=seqrpc.policy.uid(3)):
    @seqrpc.method
    def plain(self) -> None: ...


class Derived(S):
    @seqrpc.method
    def more(self, fd: OwnedFd) -> None: ...


def test_methods_are_known_by_their_names_on_the_wire() -> None:
    service = S()
    table = MethodTable([service], seqrpc.policy.anyone)
    assert table.services == (service,)
    assert {"S.plain", "S.native", "rpc.ping"} <= table.entries.keys()
    assert table.policies.keys() == table.entries.keys()
    plain, native, ping = (table.entries[name] for name in ("S.plain", "S.native", "rpc.ping"))
    assert plain.handler() == 1
    assert plain.result_check is not None
    assert native.result_check is None
    assert (plain.is_native, native.is_native) == (False, True)
    assert (plain.is_immediate, ping.is_immediate) == (False, True)
    assert "rpc.ping" in table.unread


def test_methods_classes_and_the_table_say_who_may_call_in_this_order() -> None:
    table = MethodTable([S(), Guarded()], seqrpc.policy.anyone)
    assert table.policies["S.plain"].admits(ME)
    assert not table.policies["S.native"].admits(ME)
    assert not table.policies["Guarded.plain"].admits(ME)
    assert not MethodTable([S()]).policies["S.plain"].admits(Credentials(pid=1, uid=2**30, gid=1, groups=()))


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two services are named 'S'"):
        MethodTable([S(), S()])
    with pytest.raises(TypeError):
        MethodTable([3])  # type: ignore[list-item]


def test_an_object_can_be_known_as_its_bases() -> None:
    table = MethodTable([Derived()], seqrpc.policy.anyone)
    assert "S.plain" not in table.entries
    table.answer_as_bases(table.services[0])
    assert table.entries["S.plain"] is table.entries["Derived.plain"]
    assert "S.more" not in table.entries
    assert table.takes_descriptors
    plain = MethodTable([S()])
    plain.tell_calls(lambda _methods, _uid: pytest.fail("nobody watches"))
    assert "rpc.monitor" in plain.entries
    assert not plain.takes_descriptors, "what the protocol has takes none on its own account"


def test_what_is_not_marked_is_told_to_those_who_serve_it(caplog: pytest.LogCaptureFixture) -> None:
    table = MethodTable([S()], seqrpc.policy.anyone)
    assert table.is_unmarked("S.unmarked")
    for name in ("S.plain", "S._hidden", "S.close", "S.none", "T.unmarked", "unmarked"):
        assert not table.is_unmarked(name)
    assert table.unknown("S.unmarked", ME)[0] == "rpc.MethodNotFound"
    assert "'S.unmarked' was called, which is not marked" in caplog.text


def test_those_who_are_not_admitted_do_not_learn_what_there_is() -> None:
    table = MethodTable([S(), Guarded()], seqrpc.policy.anyone)
    assert table.denied("S.native", ME) == ("rpc.PermissionDenied", "S.native: this caller is not admitted")
    assert table.unknown("Guarded.none", ME) == ("rpc.PermissionDenied", "Guarded.none: this caller is not admitted")
    code, message = table.unknown("S.plian", ME)
    assert code == "rpc.MethodNotFound"
    assert "S.plain" in message
    assert table.unknown("rpc.none", None)[0] == "rpc.MethodNotFound"


def test_names_that_callers_make_up_are_bounded() -> None:
    assert bounded_name("S.plain") == "S.plain"
    assert bounded_name("x" * 10_000) == "x" * 200 + "…"


class Bare(seqrpc.Service, allow=seqrpc.policy.uid(3), name="Vault"):
    @seqrpc.method
    async def look(self) -> None: ...


class Vault(Bare, name="Vault"):
    @seqrpc.method(allow=seqrpc.policy.hidden(seqrpc.policy.uid(4)))
    async def locked(self) -> None: ...


class Secret(seqrpc.Service, allow=seqrpc.policy.hidden(seqrpc.policy.uid(4))):
    @seqrpc.method
    async def tell(self) -> None: ...


class Scattered(seqrpc.Service, allow=seqrpc.policy.anyone):
    @seqrpc.method(allow=seqrpc.policy.hidden(seqrpc.policy.uid(4)))
    async def tell(self) -> None: ...

    @seqrpc.method(allow=seqrpc.policy.hidden(seqrpc.policy.uid(5)))
    async def more(self) -> None: ...


@pytest.fixture
def _many_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrpc.interface.offers.OFFERS_WINDOW", 0.0)


HIDDEN = ("Vault.locked", "Secret.tell", "Scattered.tell", "Scattered.more")
NEAR = ("Vault.lock", "Vault.locked.x", "Secret.tel", "Secrets.tell", "Secret", "Scattered.tel", "tell", "locked")


@pytest.mark.usefixtures("_many_offers")
@pytest.mark.parametrize("allow", [seqrpc.policy.anyone, seqrpc.policy.uid(3), ~seqrpc.policy.anyone])
@pytest.mark.parametrize("uid", [3, 1000, None])
def test_what_is_hidden_is_answered_as_if_it_was_not_there(allow: seqrpc.policy.Policy, uid: int | None) -> None:
    caller = Credentials(pid=1, uid=uid, gid=1, groups=())
    table, without = MethodTable([Vault(), Secret(), Scattered()], allow), MethodTable([Bare()], allow)
    for name in HIDDEN:
        assert not table.policies[name].admits(caller)
        assert table.denied(name, caller) == without.unknown(name, caller)
    for name in NEAR:
        assert table.unknown(name, caller) == without.unknown(name, caller)


def test_a_secret_is_told_in_the_log_of_those_who_keep_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seqrpc")
    MethodTable([Secret()], seqrpc.policy.anyone).denied("Secret.tell", ME)
    assert "'Secret.tell' kept from" in caplog.text


@pytest.mark.usefixtures("_many_offers")
def test_those_who_know_the_secret_are_told_what_is_wrong() -> None:
    table = MethodTable([Vault(), Secret(), Scattered()], seqrpc.policy.uid(3))
    knows = Credentials(pid=1, uid=4, gid=1, groups=())
    for name in ("Secret.tel", "Scattered.tel"):
        code, message = table.unknown(name, knows)
        assert code == "rpc.MethodNotFound"
        assert f"did you mean '{name}l'?" in message


def test_whoever_serves_something_tells_what_it_is() -> None:
    table = MethodTable([Vault()])
    discover = table.entries["rpc.discover"]
    assert discover.result_check is None
    assert not discover.is_immediate
    assert repr(discover.policy) == "whoever may call something"
    assert [discover.policy.admits(Credentials(pid=1, uid=uid, gid=1)) for uid in (3, 4, 1000)] == [True, True, False]
    assert "rpc.discover" not in MethodTable([]).entries
