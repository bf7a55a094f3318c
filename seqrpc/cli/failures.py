"""Errors as they are told, with what else they carry."""

from __future__ import annotations

from typing import Any

from seqrpc.blocking.streams import Stream
from seqrpc.cli.endings import told
from seqrpc.cli.results import Writer
from seqrpc.cli.screen import Screen, as_json
from seqrpc.errors import RpcError


class _Writer(Writer):
    def _told_stream(self, stream: Stream[Any]) -> Any:  # noqa: ARG002 - to be read, it may take any time
        return {"stream": True}


def failure(error: BaseException) -> str:
    """Return an error on one line, with its data as JSON; files and streams in them are closed."""
    text = told(error)
    if not isinstance(error, RpcError) or error.data is None:
        return text
    try:
        return f"{text}; data: {as_json(_Writer(Screen()).data_of(error.data))}"
    except (OSError, ValueError, TypeError, RecursionError):  # files in it that are closed already
        return text
