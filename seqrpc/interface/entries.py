"""The methods of services that are served together, and who may call each of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

from seqrpc.interface.builtin import BuiltIn, everybody
from seqrpc.interface.description import describe
from seqrpc.interface.discovery import discovery_of
from seqrpc.interface.functions import Runs
from seqrpc.interface.monitor import Begins, Monitor
from seqrpc.interface.offers import OFFERS
from seqrpc.interface.policy import Policy, PolicyLike, as_policy, rule_key
from seqrpc.interface.policy import default as default_policy
from seqrpc.interface.results import ResultCheck
from seqrpc.interface.service import Service, shows_arguments
from seqrpc.interface.services import check_service
from seqrpc.interface.signature import MethodSpec, spec_of
from seqrpc.interface.stats import Statistics, Stats
from seqrpc.interface.tallies import UNSEEN, Tallies, Tally
from seqrpc.kernel.credentials import Credentials
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.dispatch")

_LONGEST_NAME = 200  # characters that are shown of the name of a method that no service has


class Entry:
    """A method of a service object, ready to be called."""

    __slots__ = (
        "exact", "handler", "is_immediate", "is_native", "latency", "policy", "result_check", "shows_arguments", "spec",
        "tally", "untyped",
    )  # fmt: skip

    def __init__(self, service: Service, spec: MethodSpec, policy: Policy, tally: Tally) -> None:
        """Join what is known of the method, and count in ``tally``."""
        self.handler = spec.function.__get__(service)
        self.spec = spec
        self.exact, self.untyped = spec.exact, spec.untyped
        """As :class:`~seqrpc.interface.signature.MethodSpec` has them."""
        self.policy = policy
        self.is_immediate = isinstance(service, BuiltIn)
        """Whether it is called without arguments, at once, and answered with what it returns."""
        # The readers of streams check the items.
        checked = spec.result.kind is not Any and spec.description.runs is not Runs.GENERATOR
        self.result_check = ResultCheck(spec.wire_name, spec.result) if checked else None
        self.is_native = bool(spec.function.__code__.co_flags & inspect.CO_COROUTINE)
        """Whether calling the handler gives a coroutine and does nothing else, as of an ``async def``."""
        self.shows_arguments = shows_arguments(type(service))
        """Whether those who watch calls are told the arguments."""
        self.tally = tally
        """What is counted of it."""
        self.latency = tally.latency
        """The part of it that is counted in each call."""


def _entries_of(service: Service, policy: Policy, tallies: Tallies = UNSEEN) -> dict[str, Entry]:
    """Return the methods of a service by their names on the wire; ``policy`` holds where they do not say."""
    entries: dict[str, Entry] = {}
    for method in spec_of(type(service)).methods.values():
        allow, name = method.description.allow, method.wire_name
        entries[name] = Entry(service, method, policy if allow is None else allow, tallies.of(name))
    return entries


@functools.cache
def _built_in() -> dict[str, Entry]:
    """Return the methods that every server has, made once: each end of each channel has a registry of its own."""
    return _entries_of(BuiltIn(), everybody)


class MethodTable:
    """The methods of services by their names on the wire.

    Args:
        services: objects of :class:`~seqrpc.Service`; no two with the same name.
        allow: who may call where neither class nor method says; by default :data:`seqrpc.policy.default`.
        tallies: where calls are counted.

    Raises:
        TypeError: one is no service, or a method cannot be called from elsewhere.
        ValueError: two have the same name.
    """

    def __init__(self, services: Iterable[Service], allow: PolicyLike | None = None, tallies: Tallies = UNSEEN) -> None:
        """Describe the services."""
        self.tallies = tallies
        """Where calls are counted."""
        self.policy = default_policy if allow is None else as_policy(allow)
        self.services = tuple(services)
        """The objects, without what is built in."""
        self.entries: dict[str, Entry] = {}
        """The methods by their names on the wire."""
        self.policies: dict[str, Policy] = {}
        """Who may call each of them."""
        self._service_policies: dict[str, Policy] = {}
        self._secret_services: dict[str, Collection[Policy]] = {}
        for service in self.services:
            self._add_service(service)
        # No other can have their names.
        built_in = _built_in() if tallies is UNSEEN else _entries_of(BuiltIn(), everybody, tallies)
        for name, entry in built_in.items():
            self._add(name, entry)
        self.unread: Collection[str] = built_in.keys()
        """The methods that look at nothing that comes with a request."""
        if self.services:
            self._add_discovery()

    def _add_discovery(self) -> None:
        """Answer ``rpc.discover``, to whoever may call something."""
        discovery = discovery_of(self.services, self.policy)
        for name, entry in _entries_of(discovery, discovery.askers, self.tallies).items():
            self._add(name, entry)

    def _add_service(self, service: Service) -> None:
        """Serve one more."""
        check_service(service)
        description = spec_of(type(service)).description
        name, policy = description.name, description.policy
        if name in self._service_policies:
            raise ValueError(f"two services are named {name!r}; give one class another name=")
        self._service_policies[name] = policy = self.policy if policy is None else policy
        entries = _entries_of(service, policy, self.tallies)
        for method, entry in entries.items():
            self._add(method, entry)
        rules = [entry.policy for entry in entries.values()]
        if all(rule.keeps_secret for rule in rules):
            self._secret_services[name] = {rule_key(rule): rule for rule in rules}.values()

    def _add(self, name: str, entry: Entry) -> None:
        if name not in self.entries:
            self.entries[name] = entry
            self.policies[name] = entry.policy

    def tell_stats(self, look: Callable[[], Stats]) -> None:
        """Answer ``rpc.stats`` with what ``look`` returns, to the same user and root."""
        for name, entry in _entries_of(Statistics(look), default_policy, self.tallies).items():
            self._add(name, entry)

    def tell_calls(self, begin: Begins) -> None:
        """Answer ``rpc.monitor`` with the watches that ``begin`` begins, to the same user and root."""
        for name, entry in _entries_of(Monitor(begin), default_policy, self.tallies).items():
            self._add(name, entry)

    def answer_as_bases(self, service: Service) -> None:
        """Let a service be called by the names of the services that it is made of, too: it may be known as one."""
        name = type(service).service_name
        for base in type(service).__mro__[1:]:
            if issubclass(base, Service):
                for method in describe(type(service)).methods:
                    if hasattr(base, method):
                        self._add(f"{base.service_name}.{method}", self.entries[f"{name}.{method}"])

    @property
    def takes_descriptors(self) -> bool:
        """Whether an argument of any method may hold descriptors, or be large; those of the protocol need not be."""
        applications = (entry for name, entry in self.entries.items() if not name.startswith("rpc."))
        return any(entry.spec.takes_descriptors for entry in applications)

    def policy_of_unknown(self, method: str) -> Policy:
        """Return who may learn that there is no such method: the names under ``rpc.`` are nobody's secret."""
        return self._service_policies.get(method.rpartition(".")[0], self.policy)

    def _may_learn_of_unknown(self, method: str, caller: Credentials | None) -> bool:
        if method.startswith("rpc."):  # these belong to the protocol
            return True
        secret = self._secret_services.get(method.rpartition(".")[0])
        if secret is not None and not any(policy.admits(caller) for policy in secret):
            return self.policy.admits(caller)  # to this caller it is a name that no service has
        return self.policy_of_unknown(method).admits(caller)

    def is_unmarked(self, method: str) -> bool:
        """Return whether a service has a function of the name of a method, which is not marked as one."""
        service, _dot, name = method.rpartition(".")
        if method in self.entries or name.startswith("_") or hasattr(Service, name):
            return False
        cls = next((type(each) for each in self.services if type(each).service_name == service), None)
        return inspect.isroutine(inspect.getattr_static(cls, name, None))

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for a caller who may not call a method, or not know of it."""
        if self.policies[method].keeps_secret:
            _log.info("! %r kept from %r, whom %r does not admit", method, caller, self.policies[method])
            return self.unknown(method, caller)
        _log.info("! %r refused to %r, whom %r does not admit", method, caller, self.policies[method])
        return "rpc.PermissionDenied", f"{method}: this caller is not admitted"

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for the caller of a method that no service has."""
        if self._may_learn_of_unknown(method, caller):
            if self.is_unmarked(method):
                _log.warning("! %r was called, which is not marked with @seqrpc.method", bounded_name(method))
            offered = OFFERS.offer(method, self.policies, caller)
            return "rpc.MethodNotFound", f"there is no method {bounded_name(method)!r}{offered}"
        return "rpc.PermissionDenied", f"{bounded_name(method)}: this caller is not admitted"


def bounded_name(method: str) -> str:
    """Return a method name that a caller made up, cut to a bounded length."""
    return method if len(method) <= _LONGEST_NAME else f"{method[:_LONGEST_NAME]}…"
