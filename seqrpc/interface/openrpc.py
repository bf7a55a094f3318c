"""What services are, as a document that programs and people read: OpenRPC, with what it has no word for beside.

``docs/discovery.md`` says what stands where. The document is made of descriptions alone: nothing is served for it, and
nobody is called. Whoever asks may be left out; with a caller it is what that caller may know.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final

from seqrpc.errors import RpcError
from seqrpc.interface.components import Names
from seqrpc.interface.defaults import text, words_for
from seqrpc.interface.description import MethodDescription, Parameter, ServiceDescription, describe
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.schemas import OURS, Schemas, beside, defaulted, doc_of
from seqrpc.interface.service import Service
from seqrpc.kernel.credentials import Credentials
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.dispatch")

OPENRPC: Final = "1.3.2"
"""The version of OpenRPC that documents are of."""

_FIRST_CODE: Final = -32000
"""The number of the first error in alphabetical order: OpenRPC wants numbers, where seqrpc has names."""

Admits = Callable[[Policy], bool]
"""Says whether a policy admits whoever asks."""


def document_of(
    services: Any, *, title: str | None = None, allow: PolicyLike | None = None, caller: Credentials | None = None
) -> dict[str, Any]:
    """Return the OpenRPC document of services, as ``rpc.discover`` answers it.

    Args:
        services: classes of services, or interfaces, or objects of services; one may be given by itself.
        title: that of the document; by default the names of the services.
        allow: who may call where neither class nor method says; by default nothing is said of such methods.
        caller: who asks: what may not be known to them is left out, and of each method it is said whether they may call
            it. By default nobody in particular asks: everything is there, and nothing is said of who may call but the
            rules.

    Returns:
        Maps with strings for keys, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: something is no service, or a method cannot be called from elsewhere.
        ValueError: two have the same name.
    """
    is_many = isinstance(services, Iterable) and not isinstance(services, Service | type | str)
    classes = [type(one) if isinstance(one, Service) else one for one in (services if is_many else (services,))]
    for cls in classes:
        if not isinstance(typing.get_origin(cls) or cls, type):
            raise TypeError(f"a service or a class was expected, got {words_for(cls)}")
    policy = None if allow is None else as_policy(allow)
    return document_for(classes, policy, None if caller is None else lambda rule: rule.admits(caller), title)


def document_for(
    classes: Iterable[Any], policy: Policy | None, admits: Admits | None, title: str | None = None
) -> dict[str, Any]:
    """Return the document of services for those whom some policies admit, and others do not.

    Args:
        classes: of the services.
        policy: who may call where neither class nor method says, or None: nothing is said of it.
        admits: says of each policy whether it admits whoever asks; None: nobody in particular does.
        title: that of the document; by default the names of the services.

    Raises:
        TypeError: a method cannot be called from elsewhere.
        ValueError: two services have the same name.
    """
    return _Writer(admits).document(list(classes), policy, title)


class _Writer:
    """Writes one document."""

    def __init__(self, admits: Admits | None) -> None:
        """Begin with nothing."""
        self._admits = admits
        self._schemas = Schemas(self._interface_of)
        self._names = Names()
        self._unwritten: list[tuple[str, Any]] = []  # interfaces, each of which may lead to others
        self._errors: dict[str, list[dict[str, Any]]] = {}  # the entries of each code, which wait for their number

    def document(self, classes: list[Any], policy: Policy | None, title: str | None) -> dict[str, Any]:
        """Return the document."""
        methods: list[dict[str, Any]] = []
        told: list[tuple[type, ServiceDescription]] = []
        secret: set[str] = set()
        for cls, description in _by_name(classes):
            written = self._methods(description, _first(description.policy, policy))
            if written or not description.methods:
                told.append((cls, description))
                methods += written
            else:  # a service whose methods may not be known is not known itself
                secret.add(description.name)
        interfaces = self._interfaces()
        self._number_errors()
        return {
            "openrpc": OPENRPC,
            "info": _info(told, title),
            "methods": sorted(methods, key=lambda method: str(method["name"])),
            "components": {"schemas": self._schemas.components},
            OURS: {"services": [self._service(*one, secret) for one in told], "interfaces": interfaces},
        }

    def _interface_of(self, annotation: Any) -> str:
        """Return the name of the interface of objects of a class; it is written later."""
        cls = typing.get_origin(annotation) or annotation
        if annotation in self._names:
            return self._names[annotation]
        name = self._names.of(annotation, text(cls.service_name))
        self._unwritten.append((name, annotation))
        return name

    def _interfaces(self) -> dict[str, dict[str, Any]]:
        written: dict[str, dict[str, Any]] = {}
        for name, annotation in self._unwritten:  # which grows
            cls = typing.get_origin(annotation) or annotation
            doc, methods = doc_of(cls), self._methods_of_objects(name, annotation)
            described = {} if doc is None or methods is None else {"description": doc}
            written[name] = {"name": text(cls.service_name), **described, "methods": methods or []}
        return dict(sorted(written.items()))

    def _methods_of_objects(self, name: str, annotation: Any) -> list[dict[str, Any]] | None:
        """Return the methods of an interface; None if it has some, and none of them may be known."""
        try:
            description = describe(annotation)
        except TypeError as exc:  # whoever is given such an object learns it then
            _log.warning("! objects of %s cannot be called: %s", name, exc)
            return []
        methods = self._methods(description, description.policy)
        return methods if methods or not description.methods else None

    def _service(self, cls: type, description: ServiceDescription, secret: set[str]) -> dict[str, Any]:
        """Return what is told of a service; ``secret`` are the names of those that may not be known."""
        doc = doc_of(cls)
        described = {} if doc is None else {"description": doc}
        services = [base for base in cls.__mro__ if issubclass(base, Service)]
        secret = secret | {base.service_name for base in services if not self._may_be_known(base.service_policy)}
        named = [base.service_name for base in services if base is not cls and not _is_of_seqrpc(base)]
        bases = [text(base) for base in named if base not in secret]
        return {"name": text(description.name), **described, "bases": bases}

    def _methods(self, description: ServiceDescription, policy: Policy | None) -> list[dict[str, Any]]:
        """Return the methods of a service that may be known, in alphabetical order."""
        methods = sorted(description.methods.values(), key=lambda method: method.wire_name)
        rules = ((method, _first(method.allow, policy)) for method in methods)
        return [self._method(method, rule) for method, rule in rules if self._may_be_known(rule)]

    def _may_be_known(self, rule: Policy | None) -> bool:
        return rule is None or self._admits is None or not rule.keeps_secret or self._admits(rule)

    def _method(self, method: MethodDescription, rule: Policy | None) -> dict[str, Any]:
        made: dict[str, Any] = {"name": text(method.wire_name)}
        summary, _blank, rest = method.doc.strip().partition("\n\n")
        if summary:
            made["summary"] = text(" ".join(summary.split()))
        if rest.strip():
            made["description"] = text(rest.strip())
        structure = _structure(method.parameters)
        if structure != "either":  # which is OpenRPC's default; a document is to be short
            made["paramStructure"] = structure
        made["params"] = [self._parameter(parameter) for parameter in method.parameters]
        if not method.oneway:
            made["result"] = {"name": "result", "schema": self._schemas.of(method.result.shape)}
        if method.errors:
            made["errors"] = [self._error(error) for error in method.errors]
        made[OURS] = self._marks(method, rule)
        return made

    def _parameter(self, parameter: Parameter) -> dict[str, Any]:
        schema = defaulted(self._schemas.of(parameter.shape), parameter.shape, parameter.default)
        required = {"required": True} if parameter.is_required else {}  # OpenRPC's default is false
        made = {"name": text(parameter.name), **required, "schema": schema}
        if parameter.by_name and parameter.by_position:
            return made
        return beside(made, {}, {"keyword_only": True} if parameter.by_name else {"positional_only": True})

    def _error(self, error: type[RpcError]) -> dict[str, Any]:
        doc, code = doc_of(error), text(error.code)
        entry = {"code": 0, "message": code, **({} if doc is None else {"data": {"description": doc}})}
        self._errors.setdefault(code, []).append(entry)
        return entry

    def _number_errors(self) -> None:
        for number, code in enumerate(sorted(self._errors)):
            for entry in self._errors[code]:
                entry["code"] = _FIRST_CODE - number

    def _marks(self, method: MethodDescription, rule: Policy | None) -> dict[str, Any]:
        """Return what OpenRPC has no word for."""
        flags = {
            "oneway": method.oneway,
            "idempotent": method.idempotent,
            "sensitive": method.is_sensitive,
            "streams": method.streams,
        }
        marks: dict[str, Any] = {name: True for name, holds in flags.items() if holds}
        if rule is not None:
            if self._admits is not None:
                marks["allowed"] = self._admits(rule)
            marks["rule"] = text(words_for(rule))
        unannotated = [text(parameter.name) for parameter in method.parameters if not parameter.is_annotated]
        unannotated += [] if method.result.is_annotated else ["return"]
        return {**marks, "unannotated": unannotated} if unannotated else marks


def _by_name(classes: list[Any]) -> list[tuple[type, ServiceDescription]]:
    """Return classes without what they are bound to, and their descriptions, in alphabetical order of services."""
    found: dict[str, tuple[type, ServiceDescription]] = {}
    for cls in classes:
        description = describe(cls)
        if description.name in found:
            raise ValueError(f"two services are named {description.name!r}; give one class another name=")
        found[description.name] = typing.get_origin(cls) or cls, description
    return [one for _name, one in sorted(found.items())]


def _is_of_seqrpc(base: type[Service]) -> bool:
    """Return whether a class is one that services and interfaces are only made with."""
    return base.__module__.partition(".")[0] == "seqrpc"


def _first(rule: Policy | None, otherwise: Policy | None) -> Policy | None:
    return otherwise if rule is None else rule


def _structure(parameters: tuple[Parameter, ...]) -> str:
    if not all(parameter.by_position for parameter in parameters):
        return "by-name"
    return "either" if all(parameter.by_name for parameter in parameters) else "by-position"


def _info(told: list[tuple[type, ServiceDescription]], title: str | None) -> dict[str, Any]:
    names = [description.name for _cls, description in told]
    docs = [doc for cls, _description in told if (doc := doc_of(cls)) is not None]
    versions = [version for cls, _description in told if isinstance(version := _version(cls), str)]
    info = {"title": text(", ".join(names) if title is None else title)}
    info["version"] = text(", ".join(dict.fromkeys(versions))) or "0"
    return {**info, "description": "\n\n".join(docs)} if docs else info


def _version(cls: type) -> object:
    """Return what the class says is its version; a method may be called so, too."""
    return inspect.getattr_static(cls, "version", None)
