"""Calls as they are typed, over one connection: of its services, and of the objects that they give."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from seqrpc.blocking.channels import Channel
from seqrpc.blocking.remote import Remote
from seqrpc.cli.endings import ABSENT, Ending, after_a_call, misused
from seqrpc.cli.learning import Methods, by_name, found, interface_of
from seqrpc.cli.words import Words
from seqrpc.documents.trees import Document
from seqrpc.errors import PermissionDenied


class Target(NamedTuple):
    """Something to call."""

    remote: Remote
    methods: Methods | None


class Conversation:
    """Calls over one connection.

    Args:
        remote: the connection.
        document: what the other side says of itself, if it does.
    """

    def __init__(self, remote: Remote, document: Document | None) -> None:
        """Begin with the services of the connection."""
        self.document = document
        self._lasting = contextlib.ExitStack()
        self._is_begun = False
        self.services = Target(remote, None if document is None else by_name(document.methods))

    def close(self) -> None:
        """Let go of the objects that came, and of what streams that were sent come from."""
        self._lasting.close()

    def check(self, names: Sequence[str]) -> None:
        """Look at the methods of a chain before the first is called, as far as it is known what they give.

        Raises:
            Ending: one is not there.
        """
        methods, before = self.services.methods, ""
        for name in names:
            if methods is None or self.document is None:
                return
            try:
                method = found(name, methods)[1]
            except Ending as exc:
                raise _of_no_object(exc, before) from None
            if method is None:
                return
            made = interface_of(method.result, self.document)
            methods, before = (methods, name) if made is None else (made, "")

    def call(self, target: Target, name: str, words: Sequence[str], files: Sequence[str] = ()) -> tuple[Any, Target]:
        """Call a method; return its result, and what is to be called next: the object that came, else the same.

        Raises:
            Ending: the words do not fit.
            RpcError, ConnectionLost, ...: the call failed.
        """
        wire_name, method = found(name, target.methods)
        made = Words(self.document, standard_input, self._lasting)
        with contextlib.closing(made):
            with after_a_call() if self._is_begun else contextlib.nullcontext():
                by_position, by_word = made.arguments(words, files, method)
            self._is_begun = True
            if method is not None and method.oneway:
                target.remote.notify(wire_name, *by_position, **by_word)
                return None, target
            try:
                result = target.remote.call(wire_name, *by_position, **by_word)
            except PermissionDenied as exc:
                if method is not None and method.rule:
                    exc.message = f"{exc.message} (who may call it: {method.rule})"
                raise
            except Exception:
                if made.failure is not None:
                    raise made.failure from None
                raise
        if isinstance(result, Channel):
            self._lasting.enter_context(result)
            return result, Target(result, interface_of(None if method is None else method.result, self.document))
        return result, target


def _of_no_object(exc: Ending, before: str) -> Ending:
    """Return an error for a method that is not there, which tells, too, what came before it in a chain.

    Args:
        exc: the error.
        before: what was called before, if it gives no object.
    """
    if exc.status != ABSENT or not before:
        return exc
    return Ending(ABSENT, f"{before} gives no object to be called by what follows after --, and {exc}")


def standard_input() -> IO[bytes]:
    """Return what this program reads.

    Raises:
        Ending: it has none.
    """
    if sys.stdin is None:  # it was closed before this program began
        raise misused("there is no standard input")
    try:
        # Not the interpreter's own: that one would fail at its end while a thread still waits for a line.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except io.UnsupportedOperation:
        return sys.stdin.buffer
