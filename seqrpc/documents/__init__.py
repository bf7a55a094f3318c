"""The document that a server answers ``rpc.discover`` with: read, compared with another, turned into code or a page.

A document comes from elsewhere, so nothing in it is trusted: :func:`read` says what is no such document, and everything
here takes what it returns as well as what came. ``docs/stubs.md`` and ``docs/page.md`` show how this is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqrpc.documents.changes import compare
    from seqrpc.documents.model import read
    from seqrpc.documents.page import render
    from seqrpc.documents.raw import DocumentError
    from seqrpc.documents.stubs import is_current, write_stub
    from seqrpc.documents.trees import Document
    from seqrpc.documents.ways import Change
    from seqrpc.interface.openrpc import document_of

__all__ = (
    "Change",
    "Document",
    "DocumentError",
    "compare",
    "document_of",
    "is_current",
    "read",
    "render",
    "write_stub",
)

_WHERE = {
    "Change": "seqrpc.documents.ways",
    "Document": "seqrpc.documents.trees",
    "DocumentError": "seqrpc.documents.raw",
    "compare": "seqrpc.documents.changes",
    "document_of": "seqrpc.interface.openrpc",
    "is_current": "seqrpc.documents.stubs",
    "read": "seqrpc.documents.model",
    "render": "seqrpc.documents.page",
    "write_stub": "seqrpc.documents.stubs",
}
"""Where the names are. They are loaded as they are first asked for: who compares writes no page."""

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what is asked for."""
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return value

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *_WHERE})
