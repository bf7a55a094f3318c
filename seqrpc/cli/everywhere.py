"""The methods that every server of seqrpc's has, which no document lists."""

from __future__ import annotations

from typing import Any

from seqrpc.cli.endings import ABSENT, Ending
from seqrpc.text import offered

NAMESPACE = "rpc."
"""How their names begin: no service's do."""


def document_with(name: str) -> dict[str, Any]:
    """Return a document with one of these methods, as it is here: that of a server may be older, or newer.

    Raises:
        Ending: there is none of that name.
    """
    from seqrpc.interface.builtin import BuiltIn  # noqa: PLC0415 - seldom needed, as all of these
    from seqrpc.interface.discovery import Discovery  # noqa: PLC0415
    from seqrpc.interface.monitor import Monitor  # noqa: PLC0415
    from seqrpc.interface.openrpc import document_of  # noqa: PLC0415
    from seqrpc.interface.policy import default as default_policy  # noqa: PLC0415
    from seqrpc.interface.stats import Statistics  # noqa: PLC0415

    documents = [
        document_of(BuiltIn),
        document_of(Discovery),
        document_of(Statistics, allow=default_policy),
        document_of(Monitor, allow=default_policy),
    ]
    names = {method["name"]: document for document in documents for method in document["methods"]}
    if name not in names:
        raise Ending(ABSENT, f"there is no method {name!r}{offered(name, names)}")
    return names[name]
