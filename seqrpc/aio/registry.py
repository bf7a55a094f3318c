"""The services behind one address, and what their connections share."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Collection, Container, Iterable
from typing import Any, Protocol

from seqrpc.aio.plain import PlainCalls
from seqrpc.interface.builtin import BuiltIn, everybody
from seqrpc.interface.description import describe
from seqrpc.interface.functions import Runs
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.policy import default as default_policy
from seqrpc.interface.results import ResultCheck
from seqrpc.interface.service import Service
from seqrpc.interface.services import check_service
from seqrpc.interface.signature import MethodSpec, spec_of
from seqrpc.limits import DEFAULT_LIMITS, Limits


class Entry:
    """A method of a service object, ready to be called."""

    __slots__ = ("handler", "is_immediate", "is_native", "policy", "result_check", "spec")

    def __init__(self, service: Service, spec: MethodSpec, policy: Policy) -> None:
        """Join what is known of the method."""
        self.handler = spec.function.__get__(service)
        self.spec = spec
        self.policy = policy
        self.is_immediate = isinstance(service, BuiltIn)
        """Whether it is called without arguments, at once, and answered with what it returns."""
        # The readers of streams check the items.
        checked = spec.result.kind is not Any and spec.description.runs is not Runs.GENERATOR
        self.result_check = ResultCheck(spec.wire_name, spec.result) if checked else None
        self.is_native = bool(spec.function.__code__.co_flags & inspect.CO_COROUTINE)
        """Whether calling the handler gives a coroutine and does nothing else, as of an ``async def``."""


def _entries_of(service: Service, policy: Policy) -> dict[str, Entry]:
    """Return the methods of a service by their names on the wire; ``policy`` holds where they do not say."""
    methods = spec_of(type(service)).methods.values()
    allowed = [(method, method.description.allow) for method in methods]
    return {method.wire_name: Entry(service, method, policy if allow is None else allow) for method, allow in allowed}


@functools.cache
def _built_in() -> dict[str, Entry]:
    """Return the methods that every server has, made once: each end of each channel has a registry of its own."""
    return _entries_of(BuiltIn(), everybody)


class Lingering(Protocol):
    """The handlers of a connection that ended, which run on."""

    @property
    def number(self) -> int:
        """How many there are."""
        ...

    def stop_oneway(self) -> None:
        """Cancel them."""
        ...

    async def wait_idle(self, spared: Container[object]) -> None:
        """Wait until only those in ``spared`` run."""
        ...


class Registry:
    """The services behind one address, and what they share.

    Args:
        services: objects of :class:`~seqrpc.Service`; no two with the same name.
        allow: who may call where neither class nor method says; by default :data:`seqrpc.policy.default`.
        limits: ``max_calls_in_flight`` and ``max_threads`` are used.

    Raises:
        TypeError: one is no service, or a method cannot be called from elsewhere.
        ValueError: two have the same name.
    """

    def __init__(
        self, services: Iterable[Service], allow: PolicyLike | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Describe the services."""
        self.policy = default_policy if allow is None else as_policy(allow)
        self.limits = limits
        self.services = tuple(services)
        """The objects, without what is built in."""
        self.entries: dict[str, Entry] = {}
        """The methods by their names on the wire."""
        self.policies: dict[str, Policy] = {}
        """Who may call each of them."""
        self._service_policies: dict[str, Policy] = {}
        self.threads = PlainCalls(limits)
        self._lingering: set[Lingering] = set()
        self._stopping: set[Lingering] = set()
        self._when_quiet: list[Callable[[], object]] = []
        for service in self.services:
            self._add_service(service)
        built_in = _built_in()  # whose name no other can have
        for name, entry in built_in.items():
            self._add(name, entry)
        self.unread: Collection[str] = built_in.keys()
        """The methods that look at nothing that comes with a request."""

    def _add_service(self, service: Service) -> None:
        """Serve one more."""
        check_service(service)
        description = spec_of(type(service)).description
        name, policy = description.name, description.policy
        if name in self._service_policies:
            raise ValueError(f"two services are named {name!r}; give one class another name=")
        self._service_policies[name] = policy = self.policy if policy is None else policy
        for method, entry in _entries_of(service, policy).items():
            self._add(method, entry)

    def _add(self, name: str, entry: Entry) -> None:
        if name not in self.entries:
            self.entries[name] = entry
            self.policies[name] = entry.policy

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
        """Whether an argument of any method may hold descriptors."""
        return any(entry.spec.takes_descriptors for entry in self.entries.values())

    def policy_of_unknown(self, method: str) -> Policy:
        """Return who may learn that there is no such method: the names under ``rpc.`` are nobody's secret."""
        return self._service_policies.get(method.rpartition(".")[0], self.policy)

    def is_unmarked(self, method: str) -> bool:
        """Return whether a service has a function of the name of a method, which is not marked as one."""
        service, _dot, name = method.rpartition(".")
        if method in self.entries or name.startswith("_") or hasattr(Service, name):
            return False
        cls = next((type(each) for each in self.services if type(each).service_name == service), None)
        return inspect.isroutine(inspect.getattr_static(cls, name, None))

    def has_room_to_linger(self, number: int) -> bool:
        """Return whether so many calls more may run on: a peer that reconnects leaves no more behind."""
        running = sum(calls.number for calls in self._lingering)
        return running + number <= self.limits.max_calls_in_flight

    def linger(self, calls: Lingering, ended: asyncio.Future[None]) -> None:
        """Know of calls that run on although their connection ended, until ``ended`` is done."""
        self._lingering.add(calls)
        ended.add_done_callback(lambda _ended: self._left(calls))

    def _left(self, calls: Lingering) -> None:
        self._lingering.discard(calls)
        if not self._lingering:
            waiting, self._when_quiet = self._when_quiet, []
            for function in waiting:
                function()

    def end_soon(self, calls: Lingering, ended: asyncio.Future[None]) -> None:
        """Know of calls that were cancelled, all of them, as their connection ended, until ``ended`` is done."""
        self._stopping.add(calls)
        ended.add_done_callback(lambda _ended: self._stopping.discard(calls))

    def when_quiet(self, function: Callable[[], object]) -> None:
        """Call a function once no calls run on whose connections ended, which may be now."""
        if self._lingering:
            self._when_quiet.append(function)
        else:
            function()

    async def wait_quiet(self, spared: Container[object] = ()) -> None:
        """Wait until no calls but those in ``spared`` run on whose connections ended."""
        waited: set[Lingering] = set()
        while new := self._lingering - waited:
            waited |= new
            for calls in new:
                await calls.wait_idle(spared)

    async def wait_ended(self, spared: Container[object] = ()) -> None:
        """Wait until no calls but those in ``spared`` run whose connections ended, nor any that were cancelled then."""
        await self.wait_quiet(spared)
        for calls in list(self._stopping):
            await calls.wait_idle(spared)

    def stop_lingering(self) -> None:
        """Cancel the calls that run on although their connections ended."""
        for calls in self._lingering:
            calls.stop_oneway()

    def close(self) -> None:
        """Let the threads go; what runs in them is not waited for."""
        self.threads.close()
