"""Where a description comes from: a server that is asked, a class that is imported, or a file that was saved."""

from __future__ import annotations

import json
import os
import stat
import sys
import typing
from typing import IO, Any, Final, NamedTuple

from seqrpc.cli.endings import misused
from seqrpc.cli.faults import located
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.importing import is_named, named, thing_at
from seqrpc.cli.places import Elsewhere, Program, bounded, connected, place_of
from seqrpc.documents.model import read
from seqrpc.documents.raw import DocumentError
from seqrpc.documents.trees import Document
from seqrpc.text import shown

HELP: Final = (
    "ADDRESS is where a server listens, MODULE:CLASS a service, a file with a document, or - for standard input."
)

MOST_BYTES: Final = 64 << 20
"""Of a saved document: as much as a message may have by default."""


class Described(NamedTuple):
    """A document and where it is from."""

    document: Any
    """As it came: nothing in it is trusted."""

    address: str | None = None
    """Where the services are, as ``seqrpc.connect`` takes it; None where nobody says."""


def description_from(source: str, *, seconds: float | None, as_user: str | None = None) -> Described:
    """Return a document.

    Args:
        source: an address, ``MODULE:CLASS``, the path of a file, or ``-``.
        seconds: how long a server may take.
        as_user: whom a server is to see, if that is not who runs this.

    Raises:
        Ending: there is no such class, or what is in the file is no JSON.
        OSError: the file cannot be read.
        RpcError, ConnectionLost, ConnectError: the server does not answer, or not with a document.
    """
    if source == "-":
        return Described(_parsed(sys.stdin.buffer, "standard input"))
    if _is_file(source):
        with open(source, "rb") as file:
            return Described(_parsed(file, source))
    if is_named(source):
        return Described(_described(source, thing_at(*named(source))))
    place = place_of(source)
    if as_user is not None:
        become(identity_of(as_user))
    with bounded(seconds), connected(place) as connection:
        document = connection.call("rpc.discover")
    return Described(document, None if isinstance(place, Program | Elsewhere) else source)


def is_module(source: str) -> bool:
    """Return whether a source is ``MODULE:CLASS``."""
    return source != "-" and not _is_file(source) and is_named(source)


def _is_file(source: str) -> bool:
    """Return whether a regular file has this name; sockets have some, too."""
    try:
        return stat.S_ISREG(os.stat(source).st_mode)
    except (OSError, ValueError):
        return False


def _parsed(file: IO[bytes], where: str) -> Any:
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise misused(f"{where}: a document has at most {MOST_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise misused(f"{where}: this is no JSON: {shown(exc)}") from None


def _described(name: str, thing: Any) -> Any:
    from seqrpc.interface.openrpc import document_of  # noqa: PLC0415 - servers are asked without

    is_factory = callable(thing) and not isinstance(typing.get_origin(thing) or thing, type)
    if is_factory:
        with located():
            thing = thing()
    document = document_of(thing)
    classes = thing if isinstance(thing, list | tuple) else (thing,)
    for cls in classes:
        if not _is_service(cls) and not document_of(cls)["methods"]:
            raise misused(f"{name} is no seqrpc.Service, nor makes any, and has no methods that can be called")
    return document


def _is_service(thing: Any) -> bool:
    from seqrpc.interface.service import Service  # noqa: PLC0415 - as above

    cls = typing.get_origin(thing) or thing
    return isinstance(thing, Service) or (isinstance(cls, type) and issubclass(cls, Service))


def document_from(source: str, seconds: float | None) -> Document:
    """Return what the document of a source says; the rest is as for :func:`description_from`.

    Raises:
        Ending: likewise, or it is no document: then the status is the same as where a file is no JSON.
    """
    try:
        return read(description_from(source, seconds=seconds).document)
    except DocumentError as exc:
        raise misused(f"{source}: this is no description of a service: {exc}") from None
