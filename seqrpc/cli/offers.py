"""What may be typed next in a call, by what the other side says of itself: methods, parameters, values and files.

Names and values are the other side's choice: what a shell would obey, and what would stand for a file or an option, is
never among them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from seqrpc.cli.learning import Methods, by_name, choices, found, interface_of
from seqrpc.documents.model import spelled
from seqrpc.documents.trees import Descriptor, Document, EnumOf, LiteralOf, Method, Param, Scalar, Type

PLAIN: Final = "plain"
"""A whole word."""

OPEN: Final = "open"
"""The beginning of a word, after which there is no space."""

FILE: Final = "file"
"""A path, which the shell completes."""

CONTENT: Final = "content"
"""A path after ``@``."""

_PLAIN: Final = re.compile(r"(?!-)[\w.@:/=+,%-]*")
"""What a shell takes for one word, and this program for no option; nothing else is offered, whoever thought of it."""

_MOST_FILES: Final = 500
"""That are offered."""


class Offer(NamedTuple):
    """Something to type.

    Attributes:
        text: the whole word, or its beginning; of files the path as far as it is typed.
        told: what it is.
        kind: one of the constants above.
    """

    text: str
    told: str = ""
    kind: str = PLAIN


def is_plain(text: str) -> bool:
    """Return whether a shell takes a text for one word that does nothing."""
    return _PLAIN.fullmatch(text) is not None and text.isascii()


def of_methods(methods: Methods, begun: str) -> list[Offer]:
    """Return the methods that begin so; without their services, where one only has such a method."""
    offers = [Offer(name, each.summary) for name, each in methods.items() if name.startswith(begun) and is_plain(name)]
    if not begun or "." in begun:
        return offers
    shorts = Counter(each.short_name for each in methods.values())
    return offers + [
        Offer(each.short_name, each.summary)
        for each in methods.values()
        if each.short_name.startswith(begun)
        and each.short_name not in methods
        and is_plain(each.short_name)
        and shorts[each.short_name] == 1
    ]


def of_chain(calls: Sequence[Sequence[str]], begun: str, document: Document) -> list[Offer]:
    """Return what may follow in the last of several calls, of which each is of the object that the one before gives.

    Args:
        calls: the words of each before the one that is typed; those of the last may be none.
        begun: what is typed of that one.
        document: what the other side says of itself.

    Raises:
        Ending: there is no such method.
    """
    methods: Methods | None = by_name(document.methods)
    for name, *_words in calls[:-1]:
        method = found(name, methods)[1]
        if method is None:
            return []
        methods = interface_of(method.result, document) or methods  # what gives no object leaves the one before
    if not calls[-1]:
        return of_methods(methods or {}, begun)
    name, *words = calls[-1]
    method = found(name, methods)[1]
    return [] if method is None else of_words(method, words, begun, document)


def of_words(method: Method, words: Sequence[str], begun: str, document: Document) -> list[Offer]:
    """Return the arguments that begin so, where some are there already."""
    params = {each.name: each for each in method.params}
    name, equals, value = begun.partition("=")
    if equals and name in params:
        return _of_value(params[name], value, f"{name}=", document) or [Offer(value, kind=FILE)]
    if begun.startswith("@"):
        return [] if begun.startswith("@@") else [Offer(begun[1:], kind=CONTENT)]
    names = [word.partition("=")[0] for word in words if "=" in word]
    by_position = [each for each in method.params if not each.keyword_only and each.name not in names]
    number = sum(word.partition("=")[0] not in params or "=" not in word for word in words)
    given = {*names, *(each.name for each in by_position[:number])}
    next_one = by_position[number : number + 1]
    values = [each for param in next_one for each in _of_value(param, begun, "", document) if "=" not in each.text]
    return values + [each for each in of_params(method, begun) if each.text[:-1] not in given]


def of_params(method: Method, begun: str) -> list[Offer]:
    """Return the parameters that begin so."""
    return [
        Offer(f"{each.name}=", spelled(each.type), OPEN)
        for each in method.params
        if each.name.startswith(begun) and each.name.isidentifier() and is_plain(each.name)
    ]


def of_files(method: Method, begun: str, document: Document) -> list[Offer]:
    """Return what may follow after ``--fd``: parameters that take open files, and a path."""
    _name, equals, path = begun.partition("=")
    if equals:
        return [Offer(path, kind=FILE)]
    takers = {
        each.name
        for each in method.params
        if any(isinstance(choice, Descriptor) for choice in choices(each.type, document))
    }
    return [each for each in of_params(method, begun) if each.text[:-1] in takers]


def _of_value(param: Param, begun: str, before: str, document: Document) -> list[Offer]:
    """Return the values that begin so, and a file if that is what was begun."""
    # A text that begins with "@" is written "@@": else the server would choose a file that is read and sent.
    words = [f"@{value}" if value.startswith("@") else value for value in _values(param.type, document) if value != "-"]
    texts = [before + word for word in words if word.startswith(begun)]
    offers = [Offer(text) for text in dict.fromkeys(texts) if is_plain(text)]
    is_file = begun.startswith("@") and not begun.startswith("@@")
    return [*offers, Offer(begun[1:], kind=CONTENT)] if is_file and before else offers


def _values(wanted: Type, document: Document) -> Iterator[str]:
    for choice in choices(wanted, document):
        if isinstance(choice, LiteralOf):
            yield from (str(value) for value in choice.values if isinstance(value, str | int))
        elif isinstance(choice, EnumOf):
            yield from (str(value) for _name, value in choice.members)
        elif isinstance(choice, Scalar) and choice.name == "bool":
            yield from ("true", "false")


def paths(begun: str) -> list[str]:
    """Return paths of this machine that begin so; those of directories end with a slash."""
    directory, name = os.path.split(begun)
    found: list[str] = []
    try:
        with os.scandir(directory or ".") as entries:
            for entry in entries:
                path = os.path.join(directory, entry.name)
                if entry.name.startswith(name) and (name or not entry.name.startswith(".")) and is_plain(f"@{path}"):
                    found.append(f"{path}/" if entry.is_dir() else path)
                if len(found) == _MOST_FILES:
                    break
    except OSError:
        pass
    return sorted(found)
