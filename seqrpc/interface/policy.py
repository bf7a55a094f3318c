"""Who may call: rules about the caller's credentials, to be written beside what they guard.

Rules combine: ``policy.same_user | policy.group("adm") & ~policy.uid(1000)``. A rule says yes, no, or
"unknown" where the kernel does not know what it asks for, and unknown stays unknown in ``~``, so a
negation never admits somebody of whom nothing is known. Only a plain yes admits.
"""

from __future__ import annotations

import grp
import inspect
import math
import os
import time
from collections.abc import Callable
from typing import Any

from seqrpc.interface.predicates import answers_later, objection
from seqrpc.kernel.credentials import Credentials
from seqrpc.logs import get_logger
from seqrpc.text import shown

_log = get_logger("seqrpc.policy")

_LOOK_AGAIN = 60.0  # seconds

Verdict = bool | None
"""Yes, no, or unknown."""


class Policy:
    """A rule. Combine with ``|``, ``&`` and ``~``; plain functions of a caller may stand in for one."""

    keeps_secret: bool = False
    """Whether those whom it does not admit may not know of what it guards: :func:`hidden`."""

    def verdict(self, caller: Credentials) -> Verdict:
        """Return whether the rule holds for ``caller``, or None if that cannot be known."""
        raise NotImplementedError

    def admits(self, caller: Credentials | None) -> bool:
        """Return whether ``caller`` is admitted; without credentials, or by a rule that raises, nobody is.

        Raises:
            KeyboardInterrupt, SystemExit: the rule ends the program, or a signal handler does meanwhile.
        """
        if caller is None:
            return False
        try:
            verdict: object = self.verdict(caller)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # as asyncio.CancelledError is, which a future raises that is asked for its result
            _log.exception("! the policy %r failed, which admits nobody", self)
            return False
        if verdict is not None and not isinstance(verdict, bool):
            _tell_no_bool(self, verdict)
        return verdict is True

    def __or__(self, other: PolicyLike) -> Policy:
        """Admit whom either admits."""
        return _Any(self, as_policy(other))

    def __ror__(self, other: PolicyLike) -> Policy:
        """Admit whom either admits."""
        return _Any(as_policy(other), self)

    def __and__(self, other: PolicyLike) -> Policy:
        """Admit whom both admit."""
        return _All(self, as_policy(other))

    def __rand__(self, other: PolicyLike) -> Policy:
        """Admit whom both admit."""
        return _All(as_policy(other), self)

    def __invert__(self) -> Policy:
        """Admit those of whom it is known that this rule does not hold."""
        return _Not(self)

    def __bool__(self) -> bool:
        """Refuse ``and``, ``or`` and ``not``, which would take one of two rules for both.

        Raises:
            TypeError: always.
        """
        raise TypeError("policies are combined with &, | and ~, not with and, or and not")


def rule_key(policy: Policy) -> Any:
    """Return what is equal for policies that are the same rule, as far as that can be told: each is asked once then."""
    if isinstance(policy, _Pair):
        return (type(policy), rule_key(policy._left), rule_key(policy._right))  # noqa: SLF001 - this module's own
    if isinstance(policy, _Not | _Hidden):
        return (type(policy), rule_key(policy._rule))  # noqa: SLF001 - as above
    if type(policy) is _Custom:
        return (_Custom, id(policy._function))  # noqa: SLF001 - as above
    if type(policy) in (_Uid, _Gid, _Group):
        return (type(policy), repr(policy))
    return id(policy)


PolicyLike = Policy | Callable[[Credentials], bool]


def as_policy(rule: PolicyLike) -> Policy:
    """Return ``rule`` as a :class:`Policy`.

    Raises:
        TypeError: it is neither a policy nor a plain function, or one that cannot answer True or False: it is async or
            a generator, cannot be called with one argument, or is annotated otherwise; the message names it.
    """
    if isinstance(rule, Policy):
        if answers_later(rule.verdict):
            raise TypeError(f"{rule!r} is no policy: its verdict comes later, and one is wanted at once")
        return rule
    why = objection(rule)
    if why is not None:
        expected = "a policy, or a plain function of the caller's Credentials, was expected"
        raise TypeError(f"{expected}, got {shown(repr(rule))}: {_meant(rule) or why}")
    return _Custom(rule)


def _meant(rule: object) -> str | None:
    """Return what to write in place of something that is no policy, if that can be guessed."""
    for maker, call in (
        (uid, "uid(1000)"),
        (gid, "gid(1000)"),
        (group, "group('adm')"),
        (hidden, "hidden(policy.root)"),
    ):
        if rule is maker:
            return f"policy.{maker.__name__} is to be called, as in policy.{call}"
    if isinstance(rule, bool):
        return "write policy.anyone, which admits everybody, or ~policy.anyone, which admits nobody"
    if isinstance(rule, int):
        return f"write policy.uid({rule}) or policy.gid({rule})"
    if isinstance(rule, str):
        known = isinstance(globals().get(rule), Policy)
        return f"write policy.{rule}" if known else f"write policy.group({shown(rule)!r})"
    return None


def _tell_no_bool(rule: Policy, answer: object) -> None:
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns, each time, that nobody awaited it
    _log.error("! the policy %r answered %r, not True or False, which admits nobody", rule, answer)


class _Pair(Policy):
    """Two policies, of which one alone may decide; else a verdict takes both, where both have one."""

    _decisive: bool
    _sign: str

    def __init__(self, left: Policy, right: Policy) -> None:
        self._left = left
        self._right = right
        self.keeps_secret = left.keeps_secret or right.keeps_secret

    def verdict(self, caller: Credentials) -> Verdict:
        left = self._left.verdict(caller)
        if left is self._decisive:
            return left
        right = self._right.verdict(caller)
        return right if right is self._decisive or left is not None else None

    def __repr__(self) -> str:
        return f"({self._left!r} {self._sign} {self._right!r})"


class _Any(_Pair):
    _decisive = True
    _sign = "|"


class _All(_Pair):
    _decisive = False
    _sign = "&"


class _Not(Policy):
    def __init__(self, rule: Policy) -> None:
        self._rule = rule
        self.keeps_secret = rule.keeps_secret

    def verdict(self, caller: Credentials) -> Verdict:
        verdict = self._rule.verdict(caller)
        return None if verdict is None else not verdict

    def __repr__(self) -> str:
        return f"~{self._rule!r}"


class _Hidden(Policy):
    keeps_secret = True

    def __init__(self, rule: Policy) -> None:
        self._rule = rule

    def verdict(self, caller: Credentials) -> Verdict:
        return self._rule.verdict(caller)

    def __repr__(self) -> str:
        return f"hidden({self._rule!r})"


class _Custom(Policy):
    """A function of one's own; what it raises, or answers besides True and False, admits nobody."""

    def __init__(self, function: Callable[[Credentials], bool]) -> None:
        self._function = function

    def verdict(self, caller: Credentials) -> Verdict:
        try:
            answer: object = self._function(caller)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # whatever it raises, nobody is admitted by it
            _log.exception("! the policy %r failed, which admits nobody", self)
            return None
        if isinstance(answer, bool):
            return answer
        _tell_no_bool(self, answer)
        return None

    def __repr__(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))


class _SameUser(Policy):
    def verdict(self, caller: Credentials) -> Verdict:
        return None if caller.uid is None else caller.uid == os.geteuid()

    def __repr__(self) -> str:
        return "same_user"


class _SameUserOrRoot(_Any):
    """What ``same_user | root`` is, in one step: it is asked at nearly every call."""

    def verdict(self, caller: Credentials) -> Verdict:
        number = caller.uid
        return None if number is None else number == 0 or number == os.geteuid()

    def admits(self, caller: Credentials | None) -> bool:
        if caller is None or caller.uid is None:
            return False
        number = caller.uid
        return number == 0 or number == os.geteuid()


class _Anyone(Policy):
    def verdict(self, caller: Credentials) -> Verdict:  # noqa: ARG002 - whoever it is
        return True

    def __repr__(self) -> str:
        return "anyone"


class _Uid(Policy):
    def __init__(self, number: int) -> None:
        self._number = number

    def verdict(self, caller: Credentials) -> Verdict:
        return None if caller.uid is None else caller.uid == self._number

    def __repr__(self) -> str:
        return f"uid({self._number})"


class _Gid(Policy):
    def __init__(self, number: int) -> None:
        self._number = number

    def verdict(self, caller: Credentials) -> Verdict:
        return _is_member(caller, self._number)

    def __repr__(self) -> str:
        return f"gid({self._number})"


class _Group(Policy):
    """A group by name, looked up once when it is first asked for: client machines need not have it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number: int | None = None
        self._next_look = -math.inf

    def verdict(self, caller: Credentials) -> Verdict:
        if self._number is None:
            self._look_up()
        return None if self._number is None else _is_member(caller, self._number)

    def _look_up(self) -> None:
        """Ask the group database, which may be slow; for a group that is not there, only once in a while."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_AGAIN
        try:
            self._number = grp.getgrnam(self._name).gr_gid
        except KeyError:
            _log.warning("! this machine has no group %r, so %r admits nobody", self._name, self)

    def __repr__(self) -> str:
        return f"group({self._name!r})"


def _is_member(caller: Credentials, number: int) -> Verdict:
    """Return whether a group is the caller's own or one of its supplementary ones, by the kernel's word."""
    if caller.gid == number:
        return True
    groups = caller.groups
    if groups is not None and number in groups:
        return True
    return None if groups is None or caller.gid is None else False


same_user: Policy = _SameUser()
"""The effective user of this process."""

root: Policy = _Uid(0)
"""User 0 of this user namespace."""

anyone: Policy = _Anyone()
"""Whoever the kernel vouches for, by whatever ids; also users that are unknown here."""

default: Policy = _SameUserOrRoot(same_user, root)
"""What holds where nothing else is written."""


def uid(number: int) -> Policy:
    """Admit the user with this id."""
    return _Uid(_checked(number, "uid"))


def gid(number: int) -> Policy:
    """Admit members of the group with this id, primary or supplementary, as they were when they connected.

    On socket pairs the kernel tells only the primary group.
    """
    return _Gid(_checked(number, "gid"))


def group(name: str) -> Policy:
    """Admit members of the group of this name, as :func:`gid` does. A group that does not exist admits nobody."""
    if not isinstance(name, str):
        number = f": write policy.gid({name})" if type(name) is int else ""
        raise TypeError(f"group() takes the name of a group, got {shown(repr(name))}{number}")
    if not name or "\0" in name:
        raise ValueError(f"group() takes the name of a group, got {name!r}")
    return _Group(name)


def hidden(rule: PolicyLike) -> Policy:
    """Admit whom ``rule`` admits, and let nobody else know that there is such a method, or such a service.

    To others it does not exist: calls are answered as those of names that no service has, and it is not in what
    ``rpc.discover`` tells them. A rule that is combined of this and others keeps the secret, too.

    Raises:
        TypeError: it is no rule.
    """
    return _Hidden(as_policy(rule))


def _checked(number: int, name: str) -> int:
    if type(number) is not int or not 0 <= number < 0xFFFF_FFFF:
        raise ValueError(f"{name}() takes a number of 0 to {0xFFFF_FFFE}, got {number!r}")
    return number
