"""A call that is made again and again, with arguments that are read once from words."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

from seqrpc.blocking.streams import Stream
from seqrpc.cli.conversation import standard_input
from seqrpc.cli.endings import Ending, misused
from seqrpc.cli.learning import by_name, found, item_of
from seqrpc.cli.words import Words
from seqrpc.documents.trees import Document, Method
from seqrpc.kernel.buffers import Buffer

Params = tuple[Any, ...] | dict[str, Any]
"""By position or by name."""


class Repeated:
    """A method, and what it is called with.

    Open files are opened anew for each call, for whoever reads one leaves it at its end. All else is made once.

    Args:
        document: what the other side says of itself, if it does.
        name: of the method; without its service, if only one has such a method.
        words: the arguments, as ``call`` takes them.
        files: ``name=path`` each, of descriptors.

    Raises:
        Ending: they do not fit, or can be sent once only.
        OSError: a file cannot be opened.
    """

    def __init__(self, document: Document | None, name: str, words: Sequence[str], files: Sequence[str] = ()) -> None:
        """Read them."""
        self._document = document
        self._words = words
        self._files = files
        self._kept = ExitStack()
        self._input: IO[bytes] | None = None
        self.name, self._method = found(name, None if document is None else by_name(document.methods))
        self._check_method(self._method)
        with self._kept:
            self.params: Params = self._made(self._kept, self._method)
            """What it is called with, if that is the same each time."""
            self.is_constant = not _holds(self.params, _is_file)
            """Whether :attr:`params` may be used again and again."""
            self._check()
            if self.is_constant:
                self._kept = self._kept.pop_all()

    @property
    def rule(self) -> str:
        """Who may call it, in words, if that is known."""
        return "" if self._method is None else self._method.rule

    def close(self) -> None:
        """Close what was made for the arguments."""
        self._kept.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Params]:
        """Yield what one call is made with, its files opened for it, and closed after it."""
        with ExitStack() as stack:
            yield self._made(stack, self._method)

    def _made(self, stack: ExitStack, method: Method | None) -> Params:
        words = Words(self._document, self._standard_input, stack)
        stack.callback(words.close)
        by_position, by_word = words.arguments(self._words, self._files, method)
        return _as_typed(by_word, method) if by_word else tuple(by_position)

    def _standard_input(self) -> IO[bytes]:
        self._input = standard_input()
        return self._input

    def _check_method(self, method: Method | None) -> None:
        if method is None or self._document is None:
            return
        if method.oneway:
            raise misused(f"{self.name} is one-way: there is no answer whose time could be measured")
        for param in method.params:
            if param.required and item_of(param.type, self._document) is not None:
                raise self._is_sent_once()

    def _is_sent_once(self) -> Ending:
        return misused(f"{self.name} takes a stream, which can be sent only once: a call of it cannot be repeated")

    def _check(self) -> None:
        if _holds(self.params, _is_stream):
            raise self._is_sent_once()
        if self._input is not None and not self.is_constant:
            raise misused("files are opened anew for each call, and standard input can be read only once")


def _as_typed(by_word: dict[str, Any], method: Method | None) -> Params:
    """Return arguments by position if that can be, as most callers write them; else by name."""
    if method is None or method.param_structure == "by-name":
        return by_word
    params = method.params[: len(by_word)]
    if any(param.keyword_only or param.name not in by_word for param in params):
        return by_word
    return tuple(by_word[param.name] for param in params)


def _holds(value: Any, kind: Callable[[Any], bool]) -> bool:
    """Return whether something of a kind is in a value."""
    if isinstance(value, Mapping):
        return any(_holds(each, kind) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(each, kind) for each in value)
    return kind(value)


def _is_file(value: Any) -> bool:
    return hasattr(value, "fileno") and not isinstance(value, Buffer)


def _is_stream(value: Any) -> bool:
    return isinstance(value, Stream | Iterator) and not isinstance(value, io.IOBase)
