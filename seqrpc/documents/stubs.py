"""A stub: one Python module, made of a document, that says to callers and type checkers what a server does.

It needs nothing but seqrpc: no code of the server's, and no file beside it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Final

from seqrpc.documents.classes import Classes
from seqrpc.documents.clients import Clients
from seqrpc.documents.layout import docstring
from seqrpc.documents.model import read
from seqrpc.documents.trees import Document
from seqrpc.documents.values import Values
from seqrpc.documents.vocabulary import Vocabulary
from seqrpc.documents.walks import with_names
from seqrpc.text import shown

_HEAD: Final = '# Made by "seqrpc stub" from '

_LONGEST_SOURCE: Final = 80  # characters

_CODING: Final = re.compile("coding([:=])")
"""What Python would take for the encoding of the file (PEP 263), in which docstrings may be code."""


def write_stub(document: Any, source: str) -> str:
    """Return the text of a module that describes the services of a document to their callers.

    Of each service, and of each interface of objects, there is a class for ``connection.proxy(...)`` of a connection
    with an event loop, and one, whose name begins with ``Blocking``, for that of :mod:`seqrpc.blocking`. What cannot be
    written as Python is left out: it can be called by its name.

    Args:
        document: what ``rpc.discover`` answers, or what :func:`seqrpc.documents.read` made of it.
        source: where it is from, for people: an address, a module. It stands in the first line.

    Returns:
        The text, as ``ruff format`` leaves it at 120 characters a line. It defines classes, and does nothing else.

    Raises:
        DocumentError: it is no such document.
    """
    text = "\n".join(_body(with_names(read(document))))
    named = _CODING.sub("coding \\1", shown(source, _LONGEST_SOURCE))
    return f"{_HEAD}{named}; what is changed here is lost when that is done again.\n{text}\n"


def is_current(text: str, document: Any) -> bool:
    """Return whether a stub is what would be made of a document now, wherever that one is from.

    Args:
        text: that of the module.
        document: as it is now.

    Raises:
        DocumentError: it is no such document.
    """
    first, _end, body = text.partition("\n")
    return first.startswith(_HEAD) and body == write_stub(document, "").partition("\n")[2]


def _body(document: Document) -> Iterator[str]:
    vocabulary = Vocabulary(document)
    values = Values(vocabulary)
    classes = Classes(vocabulary, values)
    parts = [*classes.error_lines(), *classes.enum_lines()]
    clients = Clients(vocabulary, values, classes)
    parts += classes.field_class_lines()
    parts += itertools.chain(clients.async_lines(), clients.blocking_lines())
    aliases = [*classes.alias_lines(), *vocabulary.alias_lines()]
    either = [*clients.either_lines()]
    yield from docstring(_title(document), indent=0)
    yield from ("", "from __future__ import annotations", "")
    yield from vocabulary.imports()
    yield from parts
    if aliases:
        yield from ("", "", *aliases)
    yield from ("", *either) if either else ()


def _title(document: Document) -> str:
    version = f", version {document.version}" if document.version not in ("", "0") else ""
    return f"{document.title or 'Services'}{version}, for those who call."
