"""The arguments of a call, from words of a command line: by the types that the other side says, else by their looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, Final

from seqrpc.cli.endings import Ending, misused
from seqrpc.cli.feeding import stream_of
from seqrpc.cli.learning import choices, item_of
from seqrpc.cli.values import ANYTHING, Values, takes_bytes, takes_text
from seqrpc.documents.model import spelled
from seqrpc.documents.trees import Anything, BufferType, Descriptor, Document, Method, Param, Type
from seqrpc.errors import InvalidParams
from seqrpc.text import offered, shown

_EMPTY: Final = Document(title="", version="", services=(), methods=(), interfaces={}, schemas={})


class Words:
    """Makes the arguments of calls, and holds what was opened for them until it is closed.

    Args:
        document: the types that have names.
        standard: returns standard input, which one argument may be.
        lasting: closes what streams come from, which may be read longer than their call takes.
    """

    def __init__(self, document: Document | None, standard: Callable[[], IO[bytes]], lasting: ExitStack) -> None:
        """Open nothing yet."""
        self._document = _EMPTY if document is None else document
        self._standard: Callable[[], IO[bytes]] | None = standard
        self._opened = ExitStack()
        self._lasting = lasting
        self._values = Values(self._document, self._opened)
        self._read = Values(self._document, self._opened, opens=False)
        self.failure: Ending | None = None
        """What was wrong with an item that was to be sent while the call ran."""

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()

    def arguments(
        self, words: Sequence[str], files: Sequence[str], method: Method | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call, by position and by name: one of both is empty.

        Args:
            words: ``value`` or ``name=value`` each.
            files: ``name=path`` each, of descriptors.
            method: what is called, if that is known.

        Raises:
            Ending: they do not fit.
            OSError: a file cannot be opened.
        """
        if method is not None:
            return [], self._described(words, files, method)
        named = [_split(word) for word in words]
        by_name = {name: self.value(text, ANYTHING, name) for name, text in named if name is not None}
        by_name.update(self._files(_paths(files)))
        by_position = [self.value(text, ANYTHING, shown(text, 50)) for name, text in named if name is None]
        if by_name and by_position:
            raise misused("nobody tells what this method takes: give all arguments by name, or all by position")
        return by_position, by_name

    def _described(self, words: Sequence[str], files: Sequence[str], method: Method) -> dict[str, Any]:
        params = {param.name: param for param in method.params}
        given: dict[str, str] = {}
        rest: list[str] = []
        for word in words:
            name, text = _split(word)
            if name is None:
                rest.append(word)
            elif name not in params:
                raise misused(f"{method.name} has no parameter {name!r}{_how(name, word, method)}")
            elif name in given:
                raise misused(f"{method.name}: {name} is given twice")
            else:
                given[name] = text
        opened = _paths(files)
        for name in opened:
            self._check_taker(name, params, method)
            if name in given:
                raise misused(f"{method.name}: {name} is given twice")
        open_params = [name for name, each in params.items() if not each.keyword_only and name not in {*given, *opened}]
        if len(rest) > len(open_params):
            much = shown(rest[len(open_params)], 50)
            raise misused(f"{method.name}: {much!r} is too much: {_takes(method)}")
        given.update(zip(open_params, rest, strict=False))
        missing = [each for each in method.params if each.required and each.name not in {*given, *opened}]
        if missing:
            raise misused(f"{method.name} needs {', '.join(map(_told, missing))}")
        values = {name: self.value(text, params[name].type, name) for name, text in given.items()}
        return {**values, **self._files(opened)}  # at last, for some make files or empty them

    def _check_taker(self, name: str, params: dict[str, Param], method: Method) -> None:
        """Check that a parameter takes an open file.

        Raises:
            Ending: it does not.
        """
        takers = [each for each in params if any(map(_takes_file, choices(params[each].type, self._document)))]
        if name in takers:
            return
        if name in params:
            wrong = f"{_told(params[name])} takes no open file"
        else:
            wrong = f"{method.name} has no parameter {name!r}"
        which = f"; for open files is {shown(', '.join(takers), 100)}" if takers else ""
        raise misused(f"--fd: {wrong}{offered(name, takers) or which}")

    def _files(self, files: dict[str, str]) -> dict[str, Any]:
        return {name: self._input() if path == "-" else self._values.file(path) for name, path in files.items()}

    def _input(self) -> IO[bytes]:
        if self._standard is None:
            raise misused("standard input can be one argument, not two")
        taken, self._standard = self._standard, None
        return taken()

    # One value

    def value(self, word: str, wanted: Type, name: str) -> Any:
        """Return the value for which a word stands: ``@path`` and ``-`` for what is in a file, else what is written.

        Raises:
            Ending: it does not fit the type.
            OSError: the file cannot be read.
        """
        if word == "-":
            return self._content(self._input(), wanted, name)
        if word.startswith("@@") or word == "\\-":
            return self._values.of_word(word[1:], wanted, name)
        if word.startswith("@"):
            file = self._lasting.enter_context(open(word[1:], "rb"))  # noqa: SIM115 - it is closed at the end
            return self._content(file, wanted, name)
        return self._values.of_word(word, wanted, name)

    def _content(self, file: IO[bytes], wanted: Type, name: str) -> Any:
        found = choices(wanted, self._document)
        item = item_of(wanted, self._document)
        if item is not None:
            return stream_of(self._items(file, item, name), self._lasting)
        if any(isinstance(choice, Descriptor) for choice in found):
            return file
        if any(isinstance(choice, BufferType) for choice in found):
            return self._values.buffer(file.read())
        data = file.read()
        if any(map(takes_bytes, found)):
            return data
        try:
            text = data.decode()
        except UnicodeDecodeError:
            if any(isinstance(choice, Anything) for choice in found):
                return data
            raise misused(f"{name}: what is in the file is no text, which {spelled(wanted)} wants") from None
        return text if any(map(takes_text, found)) else self._read.of_word(text.strip(), wanted, name)

    def _items(self, file: IO[bytes], item: Type, name: str) -> Iterator[Any]:
        """Yield an item for each line.

        Raises:
            InvalidParams: one does not fit; the producer of a stream tells the other side so.
        """
        is_bytes = any(map(takes_bytes, choices(item, self._document)))
        for number, line in enumerate(file, 1):
            data = line.removesuffix(b"\n")
            try:
                yield data if is_bytes else self._read.of_word(data.decode(), item, f"{name}, line {number}")
            except UnicodeDecodeError:
                self.failure = misused(f"{name}, line {number}: this is no text")
            except Ending as exc:
                self.failure = exc
            if self.failure is not None:
                raise InvalidParams(str(self.failure))


def _paths(files: Sequence[str]) -> dict[str, str]:
    """Return what ``--fd`` says, by the names of parameters."""
    found: dict[str, str] = {}
    for each in files:
        name, equals, path = each.partition("=")
        if not (name and equals and path):
            raise misused(f"--fd takes NAME=PATH, got {each!r}")
        if name in found:
            raise misused(f"--fd: {name} is given twice")
        found[name] = path
    return found


def _takes_file(choice: Type) -> bool:
    return isinstance(choice, Descriptor | Anything)


def _split(word: str) -> tuple[str | None, str]:
    """Return the name and the value of ``name=value``; there is no name if it is something else."""
    name, equals, value = word.partition("=")
    return (name, value) if equals and name.isidentifier() else (None, word)


def _how(name: str, word: str, method: Method) -> str:
    near = offered(name, [param.name for param in method.params])
    if near or not method.params:
        return near
    return f"; a value with '=' in it is written with its parameter: {method.params[0].name}={shown(word, 50)}"


def _told(param: Param) -> str:
    return f"{param.name}: {spelled(param.type)}"


def _takes(method: Method) -> str:
    if not method.params:
        return "it takes nothing"
    by_position = ", ".join(_told(each) for each in method.params if not each.keyword_only)
    by_name = ", ".join(_told(each) for each in method.params if each.keyword_only)
    return f"it takes {shown(by_position, 200)}{f'; by name {shown(by_name, 100)}' if by_name else ''} (quote spaces)"
