"""What a parameter or a field is if it is not given, as JSON has it: for documents that describe services."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
import typing
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from seqrpc.interface.service import RemoteService, Service
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.text import shown

_DEEPEST: Final = 16  # levels of a value that is written down

_NUMBERS: Final = range(-(2**63), 2**64)
"""Integers that a message can hold."""

_FACTORIES: Final[dict[Any, list[Any] | dict[str, Any]]] = {list: [], set: [], frozenset: [], tuple: [], dict: {}}

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class NoForm(Exception):
    """A value has no form in JSON."""


def told_default(default: Any, factory: Any, *, sensitive: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a schema says of a default: its own keys, and those of its ``x-seqrpc``; nothing if there is none.

    Args:
        default: the value, or :data:`msgspec.NODEFAULT`.
        factory: what makes one, or :data:`msgspec.NODEFAULT`.
        sensitive: whether such values are secret: then none is told but None.
    """
    if factory is not msgspec.NODEFAULT:
        made = typing.get_origin(factory) or factory  # list[int] makes what list makes
        if isinstance(made, type) and made in _FACTORIES:
            return {"default": _FACTORIES[made].copy()}, {"factory": True}
        return {}, {"default": "..." if sensitive else _call_of(factory)}
    if default is msgspec.NODEFAULT:
        return {}, {}
    if sensitive and default is not None:
        return {}, {"default": "..."}
    try:
        return {"default": json_form(default)}, {}
    except NoForm:
        return {}, {"default": words_for(default)}


def json_form(value: Any, depth: int = 0) -> Any:
    """Return a value as it is on the wire, written as JSON.

    Raises:
        NoForm: it is not, or holds, what JSON has not: bytes, NaN, keys that are no texts, descriptors.
    """
    if depth > _DEEPEST:
        raise NoForm
    if value is None or isinstance(value, bool):
        return value
    if type(value) in (int, float, str):
        return _scalar(value)
    if isinstance(value, list | tuple):
        return [json_form(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        # In which order they are is different in each process, and a document is the same in all.
        return sorted(
            (json_form(item, depth + 1) for item in value), key=lambda item: (type(item).__name__, repr(item))
        )
    if isinstance(value, dict):
        return {_key(json_form(key, depth + 1)): json_form(item, depth + 1) for key, item in value.items()}
    return json_form(_flattened(value), depth + 1)


def _scalar(value: Any) -> Any:
    if isinstance(value, int):
        if value in _NUMBERS:
            return value
    elif isinstance(value, float):
        if math.isfinite(value):
            return value
    elif is_text(value):
        return value
    raise NoForm


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise NoForm
    return key


def is_text(text: str) -> bool:
    """Return whether a text is UTF-8; names of files may be none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def form_of(value: Any) -> Any:
    """Return a value of the source as JSON has it, or else what is written for people."""
    try:
        return json_form(value)
    except NoForm:
        return words_for(value)


def forms_of(values: Iterable[Any]) -> list[Any]:
    """Return those of some values that JSON has."""
    forms = []
    for value in values:
        with contextlib.suppress(NoForm):
            forms.append(json_form(value))
    return forms


def text(written: str) -> str:
    """Return a text of the source so that it can be sent: what is not UTF-8 is escaped."""
    return written if is_text(written) else written.encode("utf-8", "backslashreplace").decode()


def _flattened(value: Any) -> Any:
    """Return what is sent in place of a value that MessagePack does not know."""
    from seqrpc.protocol.flattening import flatten  # noqa: PLC0415 - it needs msgpack, as only senders do

    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(
        value, bytes | bytearray | memoryview | OwnedFd | Buffer | Service | RemoteService | msgspec.UnsetType
    ):
        raise NoForm
    if isinstance(value, int | float | str) and type(value).__module__ != "builtins" and not hasattr(value, "_value_"):
        return next(base(value) for base in (int, float, str) if isinstance(value, base))  # of a subclass
    try:
        flat = flatten(value)
    except Exception as exc:  # a registered class may raise anything as it is encoded
        raise NoForm from exc
    if type(flat) is type(value):
        raise NoForm
    return flat


def words_for(value: object) -> str:
    """Return a value for people: as Python writes it, on one line, without addresses in memory."""
    if value is ...:  # which stands where a default is not known
        return "..."
    try:
        text = repr(value)
    except Exception:  # a class may write itself as it likes
        text = f"<{type(value).__name__}>"
    return shown(_ADDRESS.sub("", text))


def _call_of(factory: Any) -> str:
    """Return what calls something that makes a default; ``...`` of a lambda, which has no name."""
    name = getattr(factory, "__qualname__", None)
    if not isinstance(name, str):
        return f"{words_for(factory)}()"
    return "..." if name.endswith("<lambda>") else f"{shown(name.split('<locals>.')[-1])}()"
