"""A small prompt for calls: each line is one, and what it gives can have a name."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, Final

from seqrpc.blocking.channels import Channel
from seqrpc.cli.alarms import is_late
from seqrpc.cli.conversation import Conversation, Target
from seqrpc.cli.endings import ABSENT, FAILED, Ending, after_a_call, misused, status_of
from seqrpc.cli.failures import failure
from seqrpc.cli.keyboard import given_back
from seqrpc.cli.learning import found
from seqrpc.cli.results import Writer
from seqrpc.cli.screen import Screen
from seqrpc.errors import ConnectionLost, DeadlineExceeded

_PROMPT: Final = "seqrpc> "

_NAMED: Final = re.compile(r"\s*(?P<name>[^\W\d]\w*)\s+=\s+(?P<call>.*)", re.DOTALL)

_HELP: Final = """\
METHOD ARGS             calls a method: arguments are as in the command line
NAME = METHOD ARGS      keeps the object that it gives
NAME.METHOD ARGS        calls that object
methods, objects        lists what can be called, and what is kept
help, exit              says this, and ends"""


class Shell:
    """Reads calls, and makes them, until the input ends.

    Args:
        conversation: makes the calls.
        screen: where errors go.
        writer: writes results.
    """

    def __init__(self, conversation: Conversation, screen: Screen, writer: Writer) -> None:
        """Keep no objects yet."""
        self._conversation = conversation
        self._screen = screen
        self._writer = writer
        self._objects: dict[str, Target] = {}
        self._status = 0
        self._fitting: list[str] = []
        self._typed_before: Callable[[], str] = lambda: ""

    def run(self) -> None:
        """Read until the end; errors are told, and end nothing but their line, unless nobody is at a keyboard.

        Raises:
            Ending: input that is no terminal had a line that failed.
            ConnectionLost: the other side has gone.
        """
        if sys.stdin is None:  # it was closed before this program began
            raise misused("there is no standard input")
        if not (sys.stdin.isatty() and self._screen.is_terminal):
            self._read(is_prompt=False)
            return
        self._prepare_keys()
        with given_back(sys.stdin.fileno()):
            self._read(is_prompt=True)

    def _read(self, *, is_prompt: bool) -> None:
        while True:
            try:
                line = input(_PROMPT) if is_prompt else sys.stdin.readline()
            except EOFError:
                self._screen.line()
                return
            except KeyboardInterrupt:
                if not is_prompt:
                    raise
                self._screen.line()
                continue
            if not line and not is_prompt:
                return
            if line.strip() in ("exit", "quit"):
                return
            self._line_or_tell(line, is_prompt=is_prompt)

    def _line_or_tell(self, line: str, *, is_prompt: bool) -> None:
        try:
            self.line(line)
            self._screen.flush()
        except ConnectionLost:
            raise
        except KeyboardInterrupt:
            if not is_prompt:
                raise
            self._screen.line()
        except BrokenPipeError:
            raise
        except Exception as exc:
            if isinstance(exc, DeadlineExceeded) and is_late():
                raise  # all of it was to take no longer
            if not is_prompt:
                raise Ending(status_of(exc), failure(exc)) from None
            self._screen.complain(failure(exc))

    def line(self, line: str) -> None:
        """Do what one line says.

        Raises:
            Ending: it cannot be understood.
            RpcError, ...: the call failed.
        """
        named = _NAMED.fullmatch(line.strip())
        try:
            words = shlex.split(line if named is None else named["call"], comments=True)
        except ValueError as exc:
            raise misused(f"{exc}") from None
        if not words:
            return
        if words == ["help"]:
            self._screen.text(_HELP)
        elif words == ["methods"]:
            for name in self._conversation.services.methods or {}:
                self._screen.line(name)
        elif words == ["objects"]:
            for name in self._objects:
                self._tell_object(name)
        else:
            self._call(words, None if named is None else named["name"])

    def _call(self, words: list[str], keep: str | None) -> None:
        name, *rest = words
        target, name = self._target(name)
        if target is self._conversation.services and name in self._objects and not self._is_method(name):
            if rest or keep:
                raise misused(f"{name} is an object: {name}.METHOD calls it")
            self._tell_object(name)
            return
        result, made = self._conversation.call(target, name, rest)
        if isinstance(result, Channel):
            kept = keep or f"object{len(self._objects) + 1}"
            self._objects[kept] = made
            self._tell_object(kept)
        else:
            with after_a_call():
                self._writer.write(result)
            if keep is not None:
                raise Ending(FAILED, f"{name} gave no object that could be called {keep}")

    def _target(self, name: str) -> tuple[Target, str]:
        """Return what a name is called of, and its method."""
        object_name, dot, short = name.partition(".")
        if dot and object_name in self._objects:
            return self._objects[object_name], short
        return self._conversation.services, name

    def _is_method(self, name: str) -> bool:
        try:
            return found(name, self._conversation.services.methods)[1] is not None
        except Ending as exc:
            return exc.status != ABSENT  # there are several

    def _tell_object(self, name: str) -> None:
        self._screen.line(f"{name}: ", ", ".join(self._objects[name].methods or {}) or "an object")

    # Keys

    def _prepare_keys(self) -> None:
        """Have the keyboard complete names, if this Python has readline."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: PLC0415 - only a prompt needs it

            readline.set_completer_delims(" \t\n")
            readline.set_completer(self.completed)
            readline.parse_and_bind("tab: complete")
            self._typed_before = lambda: readline.get_line_buffer()[: readline.get_begidx()]
            if "libedit" not in (readline.__doc__ or ""):  # a mode of the terminal that a signal would leave behind
                readline.parse_and_bind("set enable-bracketed-paste off")

    def completed(self, text: str, number: int) -> Any:
        """Return the name of that number that begins so, for readline."""
        if number == 0:  # the others are asked for right after
            self._fitting = self._completions(text)
        return self._fitting[number] if number < len(self._fitting) else None

    def _completions(self, text: str) -> list[str]:
        from seqrpc.cli.offers import CONTENT, FILE, is_plain, of_methods, of_words, paths  # noqa: PLC0415 - seldom needed

        document = self._conversation.document
        words = self._typed_before().split()
        words = words[2:] if words[1:2] == ["="] else words
        if document is None:
            return []
        if not words:
            offers = of_methods(self._conversation.services.methods or {}, text)
            names = [
                f"{name}.{method.short_name}"
                for name, target in self._objects.items()
                for method in (target.methods or {}).values()
            ]
            return sorted(
                [each.text for each in offers] + [each for each in names if each.startswith(text) and is_plain(each)]
            )
        target, name = self._target(words[0])
        with contextlib.suppress(Ending):
            method = found(name, target.methods)[1]
            offers = [] if method is None else of_words(method, words[1:], text, document)
            before = [(each.text, text.removesuffix(each.text)) for each in offers if each.kind in (CONTENT, FILE)]
            files = [start + path for begun, start in before for path in paths(begun)]
            return [each.text for each in offers if each.kind not in (CONTENT, FILE)] + files
        return []
