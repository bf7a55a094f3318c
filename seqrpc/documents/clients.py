"""The classes that callers make proxies of, as code: of each service and interface one for each kind of caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from seqrpc.documents.classes import Classes
from seqrpc.documents.identifiers import identifier_like, is_attribute
from seqrpc.documents.layout import WIDTH, Brackets, Node, assigned, defined, docstring, lines, text_literal
from seqrpc.documents.trees import Document, Method, ObjectOf, Param, StreamOf
from seqrpc.documents.values import Values
from seqrpc.documents.vocabulary import Side, Vocabulary
from seqrpc.documents.walks import bare, types_in
from seqrpc.interface.service import Service

_NOT_METHODS: Final = frozenset(name for name in dir(Service) if not name.startswith("__"))
"""What a class of a service has of its own."""

_RESULT_ROOM: Final = WIDTH - len("    ) -> :")

_PARAM_INDENT: Final = 8


class Client:
    """A service or an interface, of which classes are made.

    Args:
        wire_name: what it is called on the wire.
        description: the docstring.
        methods: its methods.
    """

    def __init__(self, wire_name: str, description: str, methods: Sequence[Method]) -> None:
        """Keep all of it."""
        self.wire_name = wire_name
        self.description = description
        self.methods = methods
        self.keys: list[str] = []
        """Of the interfaces that it is."""


def clients_of(document: Document) -> list[Client]:
    """Return what classes are to be made of: a service whose objects are given away, too, is there once."""
    found = [Client(one.name, one.description, document.methods_of(one.name)) for one in document.services]
    found = [client for client in found if client.methods or is_service_name(client.wire_name)]
    for key, interface in document.interfaces.items():
        for client in found:
            if client.wire_name == interface.name and _same(client.methods, interface.methods):
                break
        else:
            client = Client(interface.name, interface.description, interface.methods)
            found.append(client)
        client.keys.append(key)
    return found


def is_service_name(name: str) -> bool:
    """Return whether a service may have a name."""
    return bool(name) and not name.startswith((".", "rpc.")) and not name.endswith(".") and name != "rpc"


def _same(ones: Sequence[Method], others: Sequence[Method]) -> bool:
    """Return whether methods are the same, whoever may call them."""
    told = [tuple((one.name, one.params, one.result, one.streams) for one in some) for some in (ones, others)]
    return told[0] == told[1]


class Clients:
    """Writes the classes.

    Args:
        vocabulary: the names of the module.
        values: writes the defaults of parameters.
        classes: what was written before: it knows the errors.
    """

    def __init__(self, vocabulary: Vocabulary, values: Values, classes: Classes) -> None:
        """Name the classes."""
        self._vocabulary = vocabulary
        self._values = values
        self._classes = classes
        self._clients = clients_of(vocabulary.document)
        self._names: list[tuple[Client, str, str]] = []
        self._either: dict[str, str] = {}  # what an argument of those who block may be, by the keys of interfaces
        for client in self._clients:
            name = vocabulary.names.claim(identifier_like(client.wire_name.rpartition(".")[2], "Service"))
            blocking = vocabulary.names.claim(f"Blocking{name}")
            self._names.append((client, name, blocking))
            for key in client.keys:
                vocabulary.objects[key, Side.ASYNC] = name
                vocabulary.objects[key, Side.TAKEN] = vocabulary.objects[key, Side.GIVEN] = blocking
        for key in sorted(self._given()):
            name = vocabulary.objects[key, Side.ASYNC]
            vocabulary.objects[key, Side.GIVEN] = self._either[key] = vocabulary.names.claim(f"Any{name}")

    def _given(self) -> set[str]:
        """Return the keys of interfaces whose objects are arguments."""
        params = (param for client in self._clients for method in client.methods for param in method.params)
        parts = (part for param in params for part in types_in(param.type))
        return {part.interface for part in parts if isinstance(part, ObjectOf)}

    def async_lines(self) -> Iterator[str]:
        """Yield the lines of the classes for callers with an event loop."""
        for client, name, _blocking in self._names:
            yield from self._class(client, name, Side.ASYNC)

    def blocking_lines(self) -> Iterator[str]:
        """Yield the lines of the classes for callers without one."""
        for client, _name, blocking in self._names:
            yield from self._class(client, blocking, Side.TAKEN)

    def either_lines(self) -> Iterator[str]:
        """Yield the lines that say what an argument of those who block may be: an object of theirs, or a proxy."""
        for key, name in self._either.items():
            seen = self._vocabulary.seen
            own, other = (seen(self._vocabulary.objects[key, side]) for side in (Side.ASYNC, Side.TAKEN))
            typing = self._vocabulary.module("typing")
            union = Brackets(f"{typing}.Union[", (own, other), "]")
            yield from ("", f"if {typing}.TYPE_CHECKING:")
            yield from assigned(f"{name}: {typing}.TypeAlias", union, indent=4)
            yield "else:"
            yield from assigned(name, own, indent=4)
            yield from assigned(seen(name), name) if seen(name) != name else ()

    def _class(self, client: Client, name: str, side: Side) -> Iterator[str]:
        if not is_service_name(client.wire_name):
            if side is Side.ASYNC:
                yield from ("", "", *(f"# {flat_comment(method)}" for method in client.methods))
            return
        base = f"{self._vocabulary.module('seqrpc')}.Service"
        if side is not Side.ASYNC:
            base = f"{self._vocabulary.module('seqrpc.blocking')}.Interface"
        yield from ("", "")
        yield from lines("class ", Brackets(f"{name}(", (base, f"name={text_literal(client.wire_name)}"), ")"), ":")
        doc = docstring("", client.description, indent=4)
        yield from doc
        body = list(self._body(client, side))
        yield from body if doc else body[1:]
        if not doc and not any(line.startswith("    ") and not line.startswith("    #") for line in body):
            yield "    pass"
        yield from self._vocabulary.also(name)

    def _body(self, client: Client, side: Side) -> Iterator[str]:
        document = self._vocabulary.document
        is_only = [service.name for service in document.services] == [client.wire_name]
        is_free = all(method.short_name != "version" for method in client.methods)
        if is_only and is_free and document.version not in ("", "0"):
            yield from ("", f"    version = {text_literal(document.version)}")
        for method in client.methods:
            yield ""
            if is_attribute(method.short_name) and method.short_name not in _NOT_METHODS and _are_names(method.params):
                yield from self._method(method, side)
            else:
                yield f"    # {flat_comment(method)}"

    def _method(self, method: Method, side: Side) -> Iterator[str]:
        result = bare(method.result) if method.result is not None else None
        streams = isinstance(result, StreamOf) and method.streams
        yield from self._decorator(method, side)
        head = "def" if streams or side is not Side.ASYNC else "async def"
        annotation = "None"
        if method.result is not None:
            annotation = self._vocabulary.annotation(method.result, side, _RESULT_ROOM, method.short_name, "Result")
        params = list(self._params(method, side))
        yield from defined(f"{head} {method.short_name}", params, annotation, indent=4)
        yield from docstring(method.summary, method.description, indent=_PARAM_INDENT)
        yield f"        raise {self._vocabulary.builtin('NotImplementedError')}"

    def _decorator(self, method: Method, side: Side) -> Iterator[str]:
        options: list[Node] = []
        if method.oneway:
            options.append("oneway=True")
        elif method.idempotent:
            options.append("idempotent=True")
        errors = [self._classes.errors[error.code] for error in method.errors if error.code in self._classes.errors]
        if errors and not method.oneway:
            options.append(Brackets("errors=[", tuple(dict.fromkeys(errors)), "]", is_literal=True))
        if side is not Side.ASYNC:
            called = f"@{self._vocabulary.module('seqrpc.blocking')}.method("
            yield from lines("", Brackets(called, tuple(options), ")"), indent=4)
            return
        called = f"@{self._vocabulary.module('seqrpc')}.method"
        yield from lines("", Brackets(f"{called}(", tuple(options), ")") if options else called, indent=4)

    def _params(self, method: Method, side: Side) -> Iterator[tuple[str, Node | None]]:
        yield ("_self" if any(param.name == "self" for param in method.params) else "self", None)
        marked, has_optional = "", False
        for param in method.params:
            has_optional = has_optional or not param.required
            if marked == "/" and not param.positional_only:
                yield "/", None
            by_name = param.keyword_only or marked == "*" or (param.required and has_optional)
            if by_name and marked != "*":
                if marked == "/" and param.positional_only:
                    yield "/", None
                yield "*", None
            marked = "*" if by_name else "/" if param.positional_only and marked != "-" else "-"
            yield self._param(method, param, side)
        if marked == "/":
            yield "/", None

    def _param(self, method: Method, param: Param, side: Side) -> tuple[str, Node | None]:
        side = side if side is Side.ASYNC else Side.GIVEN
        node = None if param.required else self._default(param, side)
        least = 0 if node is None else 3 + len(node if isinstance(node, str) else node.before)
        room = WIDTH - _PARAM_INDENT - len(param.name) - len(": ,") - least
        annotation = self._vocabulary.annotation(param.type, side, room, method.short_name, param.name)
        return f"{param.name}: {annotation}", node

    def _default(self, param: Param, side: Side) -> Node:
        """Return the default of a parameter; what is not given is not sent, so it need not be known."""
        node = self._values.default(param.type, param.default, side)
        if node is not None:
            return node
        typing = self._vocabulary.module("typing")
        return Brackets(f"{typing}.cast(", (f"{typing}.Any", "..."), ")")


def _are_names(params: Sequence[Param]) -> bool:
    return all(is_attribute(param.name) and param.name != "_self" for param in params)


def flat_comment(method: Method) -> str:
    """Return what stands in place of a method that no class can have."""
    return f"Python has no way to write this as a method, so call it by its name: {ascii(method.name)[:200]}"
