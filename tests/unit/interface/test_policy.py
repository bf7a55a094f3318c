from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import AS_ROOT, OTHER_GID, OTHER_UID, in_child
from support.properties import PROPERTY

from seqrpc.interface import policy
from seqrpc.interface.policy import Policy, PolicyLike, Verdict, as_policy, rule_key
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.platforms import PLATFORM

UNKNOWN = Credentials(pid=1, uid=None, gid=None)


class Says(Policy):
    def __init__(self, verdict: Verdict) -> None:
        self.said = verdict

    def verdict(self, caller: Credentials) -> Verdict:
        return self.said


def caller(uid: int | None = 5, gid: int | None = 6, groups: tuple[int, ...] | None = ()) -> Credentials:
    return Credentials(pid=1, uid=uid, gid=gid, groups=groups)


# The tables of Kleene's logic, in the order True, False, None.
VERDICTS: tuple[Verdict, ...] = (True, False, None)
EITHER = ((True, True, True), (True, False, None), (True, None, None))
BOTH = ((True, False, None), (False, False, False), (None, False, None))


@pytest.mark.parametrize("left", range(3))
@pytest.mark.parametrize("right", range(3))
def test_or_and_and_follow_kleene_s_tables(left: int, right: int) -> None:
    one, other = Says(VERDICTS[left]), Says(VERDICTS[right])
    assert (one | other).verdict(UNKNOWN) is EITHER[left][right]
    assert (one & other).verdict(UNKNOWN) is BOTH[left][right]


def test_not_leaves_unknown_unknown() -> None:
    assert [(~Says(verdict)).verdict(UNKNOWN) for verdict in VERDICTS] == [False, True, None]


def test_only_a_plain_yes_admits() -> None:
    assert [Says(verdict).admits(UNKNOWN) for verdict in VERDICTS] == [True, False, False]


def test_nobody_is_admitted_without_credentials() -> None:
    assert not policy.anyone.admits(None)
    assert not (~policy.uid(1)).admits(None)


def test_a_rule_that_has_no_verdict_admits_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert not Policy().admits(UNKNOWN)
    assert not (~Policy()).admits(UNKNOWN)
    assert "failed, which admits nobody" in caplog.text


def rules_about_ids() -> st.SearchStrategy[Policy]:
    """Return rules that ask for who somebody is, combined in any way."""
    numbers = st.integers(0, 3)
    leaves = (
        numbers.map(policy.uid)
        | numbers.map(policy.gid)
        | st.sampled_from([policy.same_user, policy.root, policy.default, policy.group("root")])
        | st.just(policy.group("a-group-that-no-machine-has"))
    )
    return combined(leaves)


def combined(leaves: st.SearchStrategy[Policy]) -> st.SearchStrategy[Policy]:
    return st.recursive(
        leaves,
        lambda inner: (
            inner.map(lambda rule: ~rule)
            | st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1])
            | st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1])
        ),
        max_leaves=12,
    )


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@given(rule=rules_about_ids())
@PROPERTY
def test_no_combination_admits_a_caller_of_whom_nothing_is_known(rule: Policy) -> None:
    assert rule.verdict(UNKNOWN) is None
    assert not rule.admits(UNKNOWN)
    assert not (~rule).admits(UNKNOWN)


ids = st.integers(0, 3)
known = st.builds(caller, ids, ids, st.lists(ids, max_size=3).map(tuple))


@given(
    rule=combined(ids.map(policy.uid) | ids.map(policy.gid) | st.sampled_from([policy.anyone, policy.root])),
    full=known,
    hidden=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@PROPERTY
def test_what_is_decided_with_some_ids_unknown_holds_whatever_they_are(
    rule: Policy, full: Credentials, hidden: tuple[bool, bool, bool]
) -> None:
    partly = caller(
        None if hidden[0] else full.uid, None if hidden[1] else full.gid, None if hidden[2] else full.groups
    )
    assert rule.verdict(full) is not None
    assert rule.verdict(partly) in (None, rule.verdict(full))


def test_ids_of_the_caller_are_compared() -> None:
    assert policy.uid(5).admits(caller())
    assert not policy.uid(4).admits(caller())
    assert policy.gid(6).admits(caller())
    assert not policy.gid(7).admits(caller())
    assert policy.gid(7).admits(caller(groups=(8, 7)))
    assert policy.root.admits(caller(uid=0))
    assert not policy.root.admits(caller())
    assert policy.same_user.admits(caller(uid=os.geteuid()))
    assert not policy.same_user.admits(caller(uid=os.geteuid() + 1))
    assert policy.anyone.admits(UNKNOWN)


@pytest.mark.parametrize(
    "gid, groups, verdict",
    [
        (7, None, True),
        (None, (7,), True),
        (6, (5,), False),
        (6, None, None),
        (None, (5,), None),
        (None, None, None),
    ],
)
def test_membership_is_unknown_where_a_part_of_it_is(
    gid: int | None, groups: tuple[int, ...] | None, verdict: Verdict
) -> None:
    assert policy.gid(7).verdict(caller(gid=gid, groups=groups)) is verdict
    assert (~policy.gid(7)).admits(caller(gid=gid, groups=groups)) is (verdict is False)


def test_the_default_is_the_same_user_and_root() -> None:
    assert policy.default.admits(caller(uid=os.geteuid()))
    assert policy.default.admits(caller(uid=0))
    assert not policy.default.admits(caller(uid=OTHER_UID))
    assert not policy.default.admits(UNKNOWN)


@given(uid=st.none() | st.sampled_from([0, os.geteuid(), os.geteuid() + 1, OTHER_UID]) | st.integers(0, 2**32 - 2))
@PROPERTY
def test_the_default_is_in_every_way_what_the_same_user_or_root_is(uid: int | None) -> None:
    spelled_out = policy.same_user | policy.root
    who = caller(uid=uid)
    for rule, same in (
        (policy.default, spelled_out),
        (~policy.default, ~spelled_out),
        (policy.default & policy.gid(6), spelled_out & policy.gid(6)),
        (policy.default | policy.uid(7), spelled_out | policy.uid(7)),
    ):
        assert rule.verdict(who) is same.verdict(who)
        assert rule.admits(who) is same.admits(who)
        assert rule.admits(None) is same.admits(None) is False
        assert repr(rule) == repr(same)


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_the_default_asks_who_this_process_is_each_time() -> None:
    def admitted() -> int:
        callers = [caller(uid=uid) for uid in (OTHER_UID, 0, OTHER_UID + 1)]
        verdicts = [(policy.default.verdict(who), policy.default.admits(who)) for who in callers]
        return int(verdicts == [(True, True), (True, True), (False, False)])

    assert in_child(admitted, uid=OTHER_UID) == 1


def test_a_group_by_name_is_looked_up() -> None:
    entry = grp.getgrgid(0)
    rule = policy.group(entry.gr_name)
    assert rule.admits(caller(gid=0))
    assert rule.admits(caller(groups=(4, 0)))
    assert not rule.admits(caller())


def test_a_group_that_does_not_exist_admits_nobody_nor_does_its_negation(caplog: pytest.LogCaptureFixture) -> None:
    rule = policy.group("a-group-that-no-machine-has")
    assert rule.verdict(caller()) is None
    assert not (~rule).admits(caller())
    assert (rule | policy.uid(5)).admits(caller())
    assert "no group 'a-group-that-no-machine-has'" in caplog.text


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_cannot_be_the_name_of_a_group_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="takes the name of a group"):
        policy.group(name)


@pytest.mark.parametrize("number", [-1, 0xFFFF_FFFF, True, 1.0, "1", None])
def test_what_is_no_id_is_refused_at_once(number: Any) -> None:
    with pytest.raises(ValueError, match=r"uid\(\) takes a number"):
        policy.uid(number)
    with pytest.raises(ValueError, match=r"gid\(\) takes a number"):
        policy.gid(number)


def is_five(who: Credentials) -> bool:
    return who.uid == 5


def test_a_function_of_one_s_own_stands_in_for_a_policy() -> None:
    assert as_policy(is_five).admits(caller())
    assert not as_policy(is_five).admits(caller(uid=6))
    for rule in (is_five & policy.gid(6), policy.gid(6) & is_five):
        assert rule.admits(caller())
        assert not rule.admits(caller(gid=7))
    for rule in (is_five | policy.gid(7), policy.gid(7) | is_five):
        assert rule.admits(caller())
        assert not rule.admits(caller(uid=6))
    assert (~as_policy(is_five)).admits(caller(uid=6))


def raises(who: Credentials) -> bool:
    raise RuntimeError("out of order")


class Panic(BaseException):
    """As those are that code in other languages raises as it panics."""


def panics(who: Credentials) -> bool:
    raise Panic("out of order")


def asks_what_was_cancelled(who: Credentials) -> bool:
    raise asyncio.CancelledError


def answers_a_word(who: Credentials) -> Any:
    return "yes"


def answers_an_awaitable(who: Credentials) -> Any:
    class Later:
        def __await__(self) -> Any:
            yield

    later: Awaitable[bool] = Later()
    return later


def answers_nothing(who: Credentials) -> Any:
    return None


@pytest.mark.parametrize(
    "function",
    [raises, panics, asks_what_was_cancelled, answers_a_word, answers_an_awaitable, answers_nothing],
)
def test_a_function_that_fails_or_gives_no_bool_admits_nobody(function: Any, caplog: pytest.LogCaptureFixture) -> None:
    rule = as_policy(function)
    assert rule.verdict(caller()) is None
    assert not rule.admits(caller())
    assert not (~rule).admits(caller())
    assert (policy.uid(5) | rule).admits(caller())
    assert function.__name__ in caplog.text
    assert "admits nobody" in caplog.text


class Panicking(Policy):
    def verdict(self, caller: Credentials) -> Verdict:
        raise Panic("out of order")


def test_a_policy_of_one_s_own_that_panics_admits_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert not Panicking().admits(caller())
    assert not (~Panicking()).admits(caller())
    assert "failed, which admits nobody" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_policy_may_end_the_program(kind: type[BaseException]) -> None:
    def leaves(who: Credentials) -> bool:
        raise kind

    for rule in (as_policy(leaves), ~as_policy(leaves)):
        with pytest.raises(kind):
            rule.admits(caller())


async def coroutine_function(who: Credentials) -> bool:
    return True


@pytest.mark.parametrize("rule", [True, None, "root", Says, coroutine_function, 5])
def test_what_is_neither_a_policy_nor_a_function_is_a_type_error(rule: Any) -> None:
    with pytest.raises(TypeError, match="plain function of the caller's Credentials"):
        as_policy(rule)
    with pytest.raises(TypeError):
        policy.root | rule


class Vague(Policy):
    def verdict(self, caller: Credentials) -> Any:
        return 1


def test_a_policy_of_one_s_own_that_answers_no_bool_admits_nobody_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not as_policy(Vague()).admits(caller())
    assert "answered 1, not True or False" in caplog.text


def test_an_answer_that_comes_later_is_not_left_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    """What gives a coroutine need not look like it."""
    hidden: Any = lambda who: coroutine_function(who)  # noqa: E731, PLW0108 - that is how it hides
    assert not as_policy(hidden).admits(caller())
    assert "answered <coroutine object" in caplog.text


def test_a_policy_is_itself() -> None:
    assert as_policy(policy.root) is policy.root


def test_rules_print_as_they_are_written() -> None:
    functions: PolicyLike = is_five
    rule = (policy.same_user | policy.group("adm") & ~policy.uid(7)) & policy.anyone | policy.gid(8) | functions
    assert repr(rule) == "((((same_user | (group('adm') & ~uid(7))) & anyone) | gid(8)) | is_five)"


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
@pytest.mark.parametrize("gid, groups, admitted", [(OTHER_GID, (), True), (1, (OTHER_GID,), True), (1, (2,), False)])
def test_groups_of_a_real_process_are_the_kernel_s_word(
    gid: int, groups: Sequence[int], admitted: bool, socket_path: Path
) -> None:
    socket_path.parent.chmod(0o755)

    def connect() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(os.fspath(socket_path))

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(socket_path))
        socket_path.chmod(0o666)
        listener.listen()
        in_child(connect, uid=OTHER_UID, gid=gid, groups=groups)
        sock, _address = listener.accept()
        with sock:
            who = PLATFORM.peer_credentials(sock)
            assert policy.gid(OTHER_GID).admits(who) is admitted
            assert (~policy.gid(OTHER_GID)).admits(who) is not admitted
            assert policy.uid(OTHER_UID).admits(who)
            assert not policy.default.admits(who)


def test_a_group_that_is_missing_is_looked_for_and_told_of_once_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = policy.group("a-group-that-no-machine-has")
    for _ in range(3):
        assert not rule.admits(UNKNOWN)
    assert caplog.text.count("has no group") == 1

    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not rule.admits(UNKNOWN)
    assert caplog.text.count("has no group") == 2


@pytest.mark.parametrize(
    "combine",
    [
        lambda one, other: one and other,
        lambda one, other: one or other,
        lambda one, _other: not one,
    ],
)
def test_and_or_and_not_are_refused_where_they_are_written(combine: Callable[[Policy, Policy], object]) -> None:
    with pytest.raises(TypeError, match=r"combined with &, \| and ~"):
        combine(policy.root, policy.anyone)


@pytest.mark.parametrize(
    "given, told",
    [
        (policy.group, "policy.group is to be called, as in policy.group('adm')"),
        (policy.uid, "policy.uid is to be called, as in policy.uid(1000)"),
        (policy.gid, "policy.gid is to be called, as in policy.gid(1000)"),
        ("root", "write policy.root"),
        ("adm", "write policy.group('adm')"),
        ("uid", "write policy.group('uid')"),
        (1000, "write policy.uid(1000) or policy.gid(1000)"),
        (True, "write policy.anyone, which admits everybody, or ~policy.anyone, which admits nobody"),
    ],
    ids=str,
)
def test_who_gives_something_else_is_told_the_policy_that_was_probably_meant(given: Any, told: str) -> None:
    with pytest.raises(TypeError) as caught:
        as_policy(given)
    expected = "a policy, or a plain function of the caller's Credentials, was expected"
    assert str(caught.value) == f"{expected}, got {given!r}: {told}"


def test_what_is_hidden_admits_whom_its_rule_admits() -> None:
    for verdict in VERDICTS:
        assert policy.hidden(Says(verdict)).verdict(caller()) is verdict
    assert policy.hidden(lambda caller: caller.uid == 5).admits(caller())
    assert repr(policy.hidden(policy.gid(5))) == "hidden(gid(5))"
    with pytest.raises(TypeError, match="got 5"):
        policy.hidden(5)  # type: ignore[arg-type] # no rule
    with pytest.raises(TypeError, match=r"policy\.hidden is to be called"):
        as_policy(policy.hidden)  # type: ignore[arg-type] # it makes rules, and is none


def test_a_rule_that_has_a_hidden_one_in_it_keeps_the_secret() -> None:
    secret, known = policy.hidden(policy.root), policy.anyone
    assert secret.keeps_secret
    assert not known.keeps_secret
    for combined in (secret | known, known & secret, ~secret, policy.hidden(known), ~(known | ~secret)):
        assert combined.keeps_secret
    for combined in (known | policy.root, ~known, as_policy(lambda caller: True)):
        assert not combined.keeps_secret


def _rule(caller: Credentials) -> bool:
    return caller.uid == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: policy.uid(5),
        lambda: policy.gid(5),
        lambda: policy.group("adm"),
        lambda: policy.anyone,
        lambda: policy.default,
        lambda: as_policy(_rule),
        lambda: policy.uid(5) | ~policy.gid(6) & policy.hidden(policy.uid(7)),
    ],
)
def test_the_same_rule_is_known_for_it(make: Callable[[], Policy]) -> None:
    assert rule_key(make()) == rule_key(make())


def test_other_rules_are_told_apart() -> None:
    rules = [
        policy.uid(5),
        policy.uid(6),
        policy.gid(5),
        policy.group("gid(5)"),
        policy.hidden(policy.uid(5)),
        ~policy.uid(5),
        policy.uid(5) | policy.uid(6),
        policy.uid(5) & policy.uid(6),
        policy.uid(6) & policy.uid(5),
        policy.same_user,
        policy.anyone,
        policy.default,
        Says(True),
        Says(False),
        as_policy(_rule),
        as_policy(lambda caller: True),
    ]
    assert len({rule_key(rule) for rule in rules}) == len(rules)
