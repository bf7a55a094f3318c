"""The reader of documents: from what came, as JSON has it, to what it says.

:func:`read` is for the answer of ``rpc.discover``, and for files with such documents; documents of other OpenRPC
servers are read as far as they mean something here. What is read is in :mod:`seqrpc.documents.trees`; how it is written
for people in :mod:`seqrpc.documents.spellings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from seqrpc.documents.notes import default_of
from seqrpc.documents.raw import (
    LONGEST_TEXT,
    OURS,
    DocumentError,
    Reading,
    flag_of,
    inside,
    is_component_name,
    list_of,
    map_of,
    number_of,
    ours_of,
    text_of,
    texts_of,
)
from seqrpc.documents.schemas import SchemaReader
from seqrpc.documents.spellings import signature, spelled
from seqrpc.documents.trees import (
    AliasOf,
    Coded,
    Constrained,
    Document,
    Failure,
    Interface,
    Method,
    Param,
    Ref,
    Service,
    Type,
    UnionOf,
)

__all__ = (
    "Document",
    "DocumentError",
    "Failure",
    "Interface",
    "Method",
    "Param",
    "Service",
    "read",
    "signature",
    "spelled",
)

_STRUCTURES: Final = ("either", "by-name", "by-position")


def read(document: Any) -> Document:
    """Return what a document says.

    Args:
        document: as it came: maps, lists and values of JSON. It may come from anybody. What was read before is returned
            as it is.

    Raises:
        DocumentError: it is no such document, or it has more in it than 250,000 values, or 60 levels; the message has
            the path to what is wrong, and the reason.
    """
    if isinstance(document, Document):
        return document
    document = map_of(document, "the document")
    version = text_of(document.get("openrpc"), "openrpc")
    if not version.startswith("1."):
        raise DocumentError(f"openrpc: expected version 1, got {version!r:.50}")
    return _Reader(document).read()


class _Reader:
    """Reads one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._reading = Reading()
        self._components = map_of(document.get("components", {}), "components")
        self._raw_schemas = map_of(self._components.get("schemas", {}), "components.schemas")
        self._ours = ours_of(document, "the document")
        self._raw_interfaces = map_of(self._ours.get("interfaces", {}), f"{OURS}.interfaces")
        self._schemas = SchemaReader(self._reading, self._raw_schemas, self._raw_interfaces)

    def read(self) -> Document:
        info = map_of(self._document.get("info", {}), "info")
        methods = self._methods(self._document.get("methods"), "methods")
        schemas = {}
        for name, schema in self._raw_schemas.items():
            if not is_component_name(name):
                raise DocumentError(f"components.schemas: {name!r:.100} is no name of a schema")
            schemas[name] = self._schemas.component(schema, inside("components.schemas", name))
        _check_aliases(schemas)
        interfaces = {
            text_of(key, f"{OURS}.interfaces"): self._interface(one, inside(f"{OURS}.interfaces", key))
            for key, one in self._raw_interfaces.items()
        }
        return Document(
            title=text_of(info.get("title", ""), "info.title"),
            version=text_of(info.get("version", ""), "info.version"),
            description=text_of(info.get("description", ""), "info.description", LONGEST_TEXT),
            services=self._services(methods),
            methods=methods,
            interfaces=interfaces,
            schemas=schemas,
            of_seqrpc=OURS in self._document,
        )

    def _services(self, methods: tuple[Method, ...]) -> tuple[Service, ...]:
        services = {method.service: Service(name=method.service) for method in methods}
        path = f"{OURS}.services"
        for index, one in enumerate(list_of(self._ours.get("services", []), path)):
            where = f"{path}[{index}]"
            self._reading.count(where)
            service = map_of(one, where)
            name = text_of(service.get("name"), inside(where, "name"))
            services[name] = Service(
                name=name,
                description=text_of(service.get("description", ""), inside(where, "description"), LONGEST_TEXT),
                bases=tuple(texts_of(service.get("bases", []), inside(where, "bases"))),
            )
        return tuple(services[name] for name in sorted(services))

    def _interface(self, interface: Any, path: str) -> Interface:
        self._reading.count(path)
        interface = map_of(interface, path)
        return Interface(
            name=text_of(interface.get("name"), inside(path, "name")),
            description=text_of(interface.get("description", ""), inside(path, "description"), LONGEST_TEXT),
            methods=self._methods(interface.get("methods"), inside(path, "methods")),
        )

    def _methods(self, methods: Any, path: str) -> tuple[Method, ...]:
        read: dict[str, Method] = {}
        for index, one in enumerate(list_of(methods, path)):
            method = self._method(one, f"{path}[{index}]")
            if method.name in read:
                raise DocumentError(f"{path}[{index}]: a second method {method.name!r:.100}")
            read[method.name] = method
        return tuple(read[name] for name in sorted(read))

    def _method(self, method: Any, path: str) -> Method:
        self._reading.count(path)
        method = map_of(method, path)
        name = text_of(method.get("name"), inside(path, "name"))
        where = f"{path} ({name!r:.60})"
        ours = ours_of(method, where)
        result = None if ours.get("oneway") is True else self._result(method.get("result"), inside(where, "result"))
        return Method(
            name=name,
            summary=text_of(method.get("summary", ""), inside(where, "summary"), LONGEST_TEXT),
            description=text_of(method.get("description", ""), inside(where, "description"), LONGEST_TEXT),
            params=self._params(method, where),
            result=result,
            errors=self._errors(method.get("errors", []), inside(where, "errors")),
            oneway=result is None,
            idempotent=_flag(ours, "idempotent", where),
            sensitive=_flag(ours, "sensitive", where),
            streams=_flag(ours, "streams", where),
            allowed=_flag(ours, "allowed", where) if "allowed" in ours else None,
            rule=text_of(ours.get("rule", ""), inside(where, "rule"), LONGEST_TEXT),
            param_structure=_structure(method.get("paramStructure"), where),
        )

    def _result(self, result: Any, path: str) -> Type | None:
        if result is None:
            return None
        return self._schemas.read(self._descriptor(result, path).get("schema", {}), path)

    def _params(self, method: Mapping[str, Any], path: str) -> tuple[Param, ...]:
        unannotated = texts_of(ours_of(method, path).get("unannotated", []), inside(path, "unannotated"))
        by_position = method.get("paramStructure") == "by-position" and OURS not in self._document
        params: dict[str, Param] = {}
        for index, one in enumerate(list_of(method.get("params"), inside(path, "params"))):
            where = f"{path}.params[{index}]"
            param = self._descriptor(one, where)
            name = text_of(param.get("name"), inside(where, "name"))
            if name in params:
                raise DocumentError(f"{where}: a second parameter {name!r:.100}")
            where = inside(path, name)
            ours, schema = ours_of(param, where), param.get("schema", {})
            required = flag_of(param.get("required", False), inside(where, "required"))
            params[name] = Param(
                name=name,
                type=self._schemas.read(schema, where),
                required=required,
                positional_only=_flag(ours, "positional_only", where) or by_position,
                keyword_only=_flag(ours, "keyword_only", where),
                default=None if required else default_of(schema, where, self._reading),
                annotated=name not in unannotated,
                schema=schema if isinstance(schema, dict) else {},
            )
        return tuple(params.values())

    def _descriptor(self, descriptor: Any, path: str) -> Mapping[str, Any]:
        """Return what OpenRPC calls a content descriptor: it may stand elsewhere in the document."""
        self._reading.count(path)
        described = map_of(descriptor, path)
        if "$ref" not in described:
            return described
        known = map_of(self._components.get("contentDescriptors", {}), "components.contentDescriptors")
        name = text_of(described["$ref"], inside(path, "$ref")).removeprefix("#/components/contentDescriptors/")
        if name not in known:
            raise DocumentError(f"{path}: the document has no content descriptor {name!r:.100}")
        return map_of(known[name], inside("components.contentDescriptors", name))

    def _errors(self, errors: Any, path: str) -> tuple[Failure, ...]:
        found = []
        for index, one in enumerate(list_of(errors, path)):
            where = f"{path}[{index}]"
            self._reading.count(where)
            error = map_of(one, where)
            if "$ref" in error:
                continue  # of another OpenRPC server
            ours, data = ours_of(error, where), error.get("data", {})
            told = data.get("description", "") if isinstance(data, dict) else ""
            message = text_of(error.get("message", ""), inside(where, "message"), LONGEST_TEXT)
            number = error.get("code")
            found.append(
                Failure(
                    code=text_of(ours.get("code", message), inside(where, "code"), LONGEST_TEXT),
                    number=None if number is None else int(number_of(number, inside(where, "code"))),
                    description=text_of(ours.get("description", told), inside(where, "description"), LONGEST_TEXT),
                )
            )
        return tuple(found)


def _flag(ours: Mapping[str, Any], key: str, path: str) -> bool:
    return flag_of(ours.get(key, False), inside(path, key))


def _structure(value: Any, path: str) -> Any:
    if value is None:
        return "either"
    if value not in _STRUCTURES:
        raise DocumentError(f"{path}: expected one of {', '.join(_STRUCTURES)} for paramStructure, got {value!r:.100}")
    return value


def _check_aliases(schemas: Mapping[str, Type]) -> None:
    """Check that no name stands for itself, with nothing around it.

    Raises:
        DocumentError: one does.
    """
    ended: set[str] = set()
    for name in schemas:
        open_names: dict[str, list[str]] = {}
        todo = [name]
        while todo:
            current = todo[-1]
            if current not in open_names and current not in ended:
                open_names[current] = list(_names_for(schemas[current]))
            unseen = open_names.get(current, [])
            if not unseen:
                open_names.pop(current, None)
                ended.add(todo.pop())
                continue
            inner = unseen.pop()
            if inner in open_names:
                raise DocumentError(f"components.schemas.{inner}: it stands for itself")
            if inner not in ended:
                todo.append(inner)


def _names_for(found: Type) -> list[str]:
    """Return the names that stand in a type with nothing around them that makes it another value."""
    names = []
    todo = [found]
    while todo:
        part = todo.pop()
        if isinstance(part, Ref):
            names.append(part.name)
        elif isinstance(part, AliasOf | UnionOf | Constrained | Coded):
            todo += part.parts
    return names
