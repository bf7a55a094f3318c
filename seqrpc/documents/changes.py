"""Two documents of the same services, compared: what changed, and whom that breaks while a system is updated.

:class:`seqrpc.documents.ways.Change` says what it means that a change breaks callers, servers, or nobody. Docstrings,
and who may call, are not compared: whoever asks has a document of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqrpc.documents.fits import Fits
from seqrpc.documents.model import read
from seqrpc.documents.spellings import default_text
from seqrpc.documents.trees import Document, Method, Param, Scalar
from seqrpc.documents.typechanges import TypeChanges
from seqrpc.documents.ways import Change, Findings, Way
from seqrpc.text import shown

__all__ = ("Change", "compare")

_CALLS = Way(server_provides=True, user_sends=True)

_NOTHING = Scalar("None")


def compare(old: Any, new: Any) -> list[Change]:
    """Return what changed from one document to another, in the order of the paths.

    Args:
        old: the document of what is installed, such as a release: what ``rpc.discover`` answers, or what
            :func:`seqrpc.documents.read` made of it.
        new: that of what is to be.

    Returns:
        The changes; nothing if both describe the same interface. A change of a class is there once, wherever it is
        used, and breaks whom it breaks in any of these places. Objects that are given away are compared as services
        are, where they are given in something that both documents have.

    Raises:
        DocumentError: something is no such document, or there is more to compare than 300,000 pairs of types.
    """
    return _Comparison(read(old), read(new)).changes()


class _Comparison:
    """Compares two documents."""

    def __init__(self, old: Document, new: Document) -> None:
        self._old = old
        self._new = new
        self._findings = Findings()
        self._types = TypeChanges(old.schemas, new.schemas, self._findings, self._objects)
        self._known: set[tuple[str, str, Way]] = set()  # interfaces that are compared
        self._waiting: list[tuple[str, str, Way]] = []
        self._old_takes = Fits(old.schemas, new.schemas)
        self._new_takes = Fits(new.schemas, old.schemas)

    def changes(self) -> list[Change]:
        self._services()
        for old_key, new_key, way in self._waiting:  # which grows
            was, now = self._old.interfaces[old_key], self._new.interfaces[new_key]
            if was.name != now.name:
                why = "each method is called by the name of its interface"
                text = f"it was called {shown(was.name)}, and is called {shown(now.name)}"
                self._findings.add(shown(old_key), text, why, way, users=True, providers=True)
            self._methods(was.methods, now.methods, shown(old_key), way)
        return self._findings.changes

    def _objects(self, old: str, new: str, way: Way) -> None:
        if (old, new, way) not in self._known:
            self._known.add((old, new, way))
            self._waiting.append((old, new, way))

    def _services(self) -> None:
        olds = {method.service for method in self._old.methods}
        news = {method.service for method in self._new.methods}
        for service in sorted(olds | news):
            where = shown(service) or "methods without a service"
            if service not in news:
                why = "old callers call what a new server does not have"
                self._findings.add(where, "the service is gone", why, _CALLS, users=True)
            elif service not in olds:
                why = "new callers call what an old server does not have"
                self._findings.add(where, "the service is new", why, _CALLS, providers=True)
            else:
                methods = self._old.methods_of(service), self._new.methods_of(service)
                self._methods(*methods, shown(service), _CALLS)

    def _methods(self, olds: Sequence[Method], news: Sequence[Method], path: str, way: Way) -> None:
        was = {method.short_name: method for method in olds}
        now = {method.short_name: method for method in news}
        for name in sorted(was.keys() | now.keys()):
            where = f"{path}.{shown(name)}" if path else shown(name)
            if name not in now:
                why = f"an old {way.user} calls what a new {way.provider} does not have"
                self._findings.add(where, "the method is gone", why, way, users=True)
            elif name not in was:
                why = f"a new {way.user} calls what an old {way.provider} does not have"
                self._findings.add(where, "the method is new", why, way, providers=True)
            else:
                self._method(was[name], now[name], where, way)

    def _method(self, old: Method, new: Method, path: str, way: Way) -> None:
        self._params(old, new, path, way)
        self._result(old, new, path, way)
        if old.idempotent != new.idempotent and not (old.oneway or new.oneway):
            text = "it may be called twice" if new.idempotent else "it must not be called twice any more"
            why = f"{'a new' if new.idempotent else 'an old'} {way.user} that reconnects may call it again"
            self._findings.add(path, text, why, way, users=old.idempotent, providers=new.idempotent)
        for code in sorted({one.code for one in new.errors} ^ {one.code for one in old.errors}):
            is_new = any(one.code == code for one in new.errors)
            text = f"the error {shown(code, 100)} is {'declared' if is_new else 'no longer declared'}"
            self._findings.add(path, text, "any method may fail with any error", way)

    def _result(self, old: Method, new: Method, path: str, way: Way) -> None:
        where = f"{path} -> result"
        if old.result is None or new.result is None:
            if old.oneway == new.oneway:
                return
            fits = self._new_takes if new.result is not None else self._old_takes
            awaited = new.result if new.result is not None else old.result
            assert awaited is not None
            takes_nothing = fits.takes(awaited, _NOTHING)
            text = "it is answered" if new.result is not None else "it is one-way"
            age = ("a new", "an old") if new.result is not None else ("an old", "a new")
            why = f"{age[0]} {way.user} that waits for an answer of {age[1]} {way.provider} gets None"
            why = "whoever waits for an answer gets None, as is expected" if takes_nothing else why
            users, providers = new.oneway and not takes_nothing, old.oneway and not takes_nothing
            self._findings.add(path, text, why, way, users=users, providers=providers)
            return
        if old.streams != new.streams:
            text = "it streams by itself" if new.streams else "it is awaited for its stream"
            self._findings.add(path, text, "the call is the same; whoever makes a new stub writes it otherwise", way)
        self._types.compare(old.result, new.result, where, way.back)

    # Parameters

    def _params(self, old: Method, new: Method, path: str, way: Way) -> None:
        was = {param.name: param for param in old.params}
        now = {param.name: param for param in new.params}
        renamed = self._renamed(old, new)
        for name, param in was.items():
            where = f"{path}({shown(name)})"
            if name in renamed:
                other = now[renamed[name]]
                by_name = not (param.positional_only and other.positional_only)
                why = "a call by name has the name of one document" if by_name else "it is never called by its name"
                text = f"it is called {shown(other.name)}"
                self._findings.add(where, text, why, way, users=by_name, providers=by_name)
                self._param(param, other, where, way)
            elif name not in now:
                why = "what is called has no such parameter" if not param.required else "one gives it, and one lacks it"
                self._findings.add(where, "it is gone", why, way, users=True, providers=param.required)
            else:
                self._param(param, now[name], where, way)
                self._place(old, new, name, where, way)
        for name, param in now.items():
            if name not in was and name not in renamed.values():
                text = "it is new, and has to be given" if param.required else "it is new, and may be left out"
                why = (
                    "what is called may have no such parameter"
                    if not param.required
                    else "one gives it, and one lacks it"
                )
                self._findings.add(f"{path}({shown(name)})", text, why, way, users=param.required, providers=True)

    def _renamed(self, old: Method, new: Method) -> dict[str, str]:
        """Return the new names of parameters that stand where others stood, and are of the same type."""
        was, now = {param.name for param in old.params}, {param.name for param in new.params}
        pairs = zip(old.params, new.params, strict=False)
        return {
            one.name: other.name
            for one, other in pairs
            if one.name not in now
            and other.name not in was
            and one.keyword_only == other.keyword_only
            and one.required == other.required
            and one.type == other.type
        }

    def _param(self, old: Param, new: Param, path: str, way: Way) -> None:
        if old.required != new.required:
            text = "it has to be given" if new.required else "it may be left out"
            age = ("an old", "a new") if new.required else ("a new", "an old")
            why = f"{age[0]} {way.user} may leave it out, and {age[1]} {way.provider} wants it"
            self._findings.add(path, text, why, way, users=new.required, providers=old.required)
        elif old.default != new.default:
            text = f"its default was {default_text(old.default)}, and is {default_text(new.default)}"
            self._findings.add(path, text, "what is left out is not sent: it is what the other side says", way)
        self._types.compare(old.type, new.type, path, way)

    def _place(self, old: Method, new: Method, name: str, path: str, way: Way) -> None:
        """Note how a parameter is given otherwise: by its place, or by its name."""
        was, now = _places(old.params), _places(new.params)
        if name in was and name not in now:
            why = f"an old {way.user} may give it by its place"
            self._findings.add(path, "it is given by name only", why, way, users=True)
        elif name in now and name not in was:
            why = f"a new {way.user} may give it by its place"
            self._findings.add(path, "it may be given by its place", why, way, providers=True)
        elif was.get(name) != now.get(name):
            text = f"it was number {was[name] + 1} by its place, and is number {now[name] + 1}"
            why = "arguments are given by their places, which are other ones"
            self._findings.add(path, text, why, way, users=True, providers=True)


def _places(params: Sequence[Param]) -> Mapping[str, int]:
    return {param.name: index for index, param in enumerate(params) if not param.keyword_only}
