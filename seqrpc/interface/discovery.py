"""What ``rpc.discover`` answers: what is served, for whoever asks; the document is made once for all who are alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from seqrpc.interface.byclass import ByClass
from seqrpc.interface.contents import shapes_in
from seqrpc.interface.current import answered_call
from seqrpc.interface.description import ServiceDescription, describe
from seqrpc.interface.methods import method
from seqrpc.interface.policy import Policy, Verdict, anyone, rule_key
from seqrpc.interface.service import Service
from seqrpc.interface.shapes import ServiceObject
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import MOST_DOCUMENTS
from seqrpc.protocol.encoded import Encoded


class Documents:
    """The documents of services that are served together, one for each outcome of the policies in them.

    It may be used by several threads: at worst one document is made twice.

    Args:
        classes: of the services.
        policy: who may call where neither class nor method says.
    """

    __slots__ = ("__weakref__", "_askers", "_classes", "_made", "_policy", "_rules")

    def __init__(self, classes: Iterable[type[Service]], policy: Policy) -> None:
        """Begin with none."""
        self._classes = tuple(classes)
        self._policy = policy
        self._askers: tuple[Policy, ...] | None = None
        self._rules: dict[Any, Policy] | None = None
        self._made: dict[tuple[bool, ...], Encoded] = {}

    def admits(self, caller: Credentials | None) -> bool:
        """Return whether a caller may ask: whom the server's policy admits, or that of any method."""
        askers = self._askers
        if askers is None:
            written = (rule for cls in self._classes for rule in _rules_in(describe(cls), self._policy))
            askers = self._askers = tuple(_distinct([self._policy, *written]).values())
        return any(policy.admits(caller) for policy in askers)

    def of(self, caller: Credentials) -> Encoded:
        """Return the document for a caller who may ask."""
        if self._rules is None:
            self._rules = _distinct(_all_rules(self._classes, self._policy))
        outcome = tuple([policy.admits(caller) for policy in self._rules.values()])
        document = self._made.pop(outcome, None)
        if document is None:
            document = self._make(dict(zip(self._rules, outcome, strict=True)))
            for oldest in list(self._made)[: max(0, len(self._made) + 1 - MOST_DOCUMENTS)]:
                self._made.pop(oldest, None)
        self._made[outcome] = document  # behind those that were not asked for so lately
        return document

    def _make(self, verdicts: dict[Any, bool]) -> Encoded:
        # Most programs that serve are never asked.
        from seqrpc.interface.openrpc import document_for  # noqa: PLC0415
        from seqrpc.protocol.encoder import encode_once  # noqa: PLC0415

        return encode_once(document_for(self._classes, self._policy, lambda policy: verdicts[rule_key(policy)]))


def _distinct(policies: Iterable[Policy]) -> dict[Any, Policy]:
    """Return policies, each rule once."""
    found: dict[Any, Policy] = {}
    for policy in policies:
        found.setdefault(rule_key(policy), policy)
    return found


def _rules_in(description: ServiceDescription, policy: Policy | None) -> Iterator[Policy]:
    """Yield who may call each method of a service; ``policy`` holds where neither class nor method says."""
    service = policy if description.policy is None else description.policy
    for one in description.methods.values():
        rule = service if one.allow is None else one.allow
        if rule is not None:
            yield rule


def _all_rules(classes: Iterable[Any], policy: Policy) -> Iterator[Policy]:
    """Yield who may call the methods of services, and of the objects that these take and give."""
    todo: list[tuple[Any, Policy | None]] = [(cls, policy) for cls in classes]
    seen = {cls for cls, _policy in todo}
    for cls, otherwise in todo:  # which grows
        try:
            description = describe(cls)
        except TypeError:  # objects of it cannot be called, as the document says
            continue
        yield from _rules_in(description, otherwise)
        for one in description.methods.values():
            for value in (*one.parameters, one.result):
                for shape in shapes_in(value.shape):
                    if isinstance(shape, ServiceObject) and shape.annotation not in seen:
                        seen.add(shape.annotation)
                        todo.append((shape.annotation, None))


class Askers(Policy):
    """Who may ask what there is: whoever may call something of it.

    Args:
        documents: of what there is.
    """

    __slots__ = ("_documents",)

    def __init__(self, documents: Documents) -> None:
        """Hold the documents."""
        self._documents = documents

    def verdict(self, caller: Credentials) -> Verdict:
        """Return whether a caller may call something."""
        return self._documents.admits(caller)

    def __repr__(self) -> str:
        """Return the rule in words."""
        return "whoever may call something"


class Discovery(Service):
    """Tells what there is: ``await connection.call("rpc.discover")``, of any server and any object.

    Args:
        documents: of what there is.
    """

    def __init__(self, documents: Documents) -> None:
        """Have it told by these."""
        self._documents = documents
        self.askers = Askers(documents)
        """Who may ask."""

    @method(idempotent=True)
    async def discover(self) -> Any:
        """Return what can be called here, as an OpenRPC document, without what the caller may not know of.

        It is encoded already, and not looked at again: so it is annotated as anything.
        """
        call = answered_call()
        assert call is not None
        return self._documents.of(call.caller)


Discovery.service_name = "rpc"


_OF_OBJECTS: Final = ByClass[Discovery](lambda cls: Discovery(Documents((cls,), anyone)))
"""Those of objects that are given away, which are alike for all objects of a class."""


def discovery_of(services: tuple[Service, ...], policy: Policy) -> Discovery:
    """Return what tells of services; of an object that whoever holds it may call it is that of its class."""
    if len(services) == 1 and policy is anyone:
        return _OF_OBJECTS.of(type(services[0]))
    return Discovery(Documents(map(type, services), policy))
