"""Which method a caller probably meant by a name that no service has: only what that caller may call is offered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from seqrpc.interface.policy import Policy
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import MOST_OFFERS, OFFERS_WINDOW
from seqrpc.text import nearest

_MOST_ASKED: Final = 3  # policies of likely methods that are asked

_LONGEST_NAME: Final = 48  # characters of a service's name that is repeated


class Offers:
    """Makes offers, a few in a while: names take longer to compare than to send."""

    def __init__(self) -> None:
        """Begin with none made."""
        self._began = float("-inf")
        self._made = 0

    def offer(self, method: str, policies: Mapping[str, Policy], caller: Credentials | None) -> str:
        """Return what the error for an unknown method says at its end, or nothing.

        Args:
            method: the name that was called, of any length.
            policies: who may call, by the names of the methods that there are.
            caller: who called; nothing is offered that this caller may not call.
        """
        if caller is None or not self._may_make_one():  # nobody without a name may call anything
            return ""
        known = {name: rule for name, rule in policies.items() if not rule.keeps_secret or rule.admits(caller)}
        for name in _likely(method, known)[:_MOST_ASKED]:
            if policies[name].admits(caller):
                return f"; did you mean {name!r}?{_how_to_rename(method, name)}"
        return ""

    def _may_make_one(self) -> bool:
        now = time.monotonic()
        if now - self._began >= OFFERS_WINDOW:
            self._began, self._made = now, 0
        self._made += 1
        return self._made <= MOST_OFFERS


OFFERS: Final = Offers()
"""Of this process: objects that are given away are served by registries of their own, as many as somebody likes."""


def _how_to_rename(called: str, meant: str) -> str:
    """Return what is said besides where only the name of the service differs, as from an interface's."""
    service, _dot, name = called.rpartition(".")
    if (
        not meant.endswith(f".{name}")
        or not service
        or len(service) > _LONGEST_NAME
        or f"{service}.".startswith("rpc.")
    ):
        return ""
    return f" (a service is called {service!r} if its class has name={service!r})"


def _likely(method: str, names: Mapping[str, object]) -> list[str]:
    """Return names that may have been meant: of the same service, else of the same method, else the nearest."""
    service, _dot, name = method.rpartition(".")
    prefix, suffix = f"{service}.", f".{name}"
    of_service = [each[len(prefix) :] for each in names if each.startswith(prefix)]
    if of_service:
        return [f"{service}.{each}" for each in nearest(name, of_service)]
    of_method = [each for each in names if each.endswith(suffix)]
    return of_method or nearest(method, names)
