"""The service of an executor's children: it calls functions that it imports by their names."""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
from asyncio import events
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from seqrpc.calls.workers import MAIN, Origin, origin_of
from seqrpc.interface.methods import method
from seqrpc.interface.service import Service
from seqrpc.workers.child import find
from seqrpc.workers.plain import packed, unpacked

_MOST_TOLD: Final = 32_768  # characters of a traceback


def origin_of_function(function: Any) -> Origin:
    """Return where a child finds a function, a class, a method of a class, or a class method.

    Raises:
        TypeError: it is nothing that can be found by its name.
        ValueError: a child cannot import it.
    """
    owner = getattr(function, "__self__", None)
    if not isinstance(owner, type):
        owner = getattr(function, "__objclass__", None)
    name = getattr(function, "__name__", None)
    if isinstance(owner, type) and isinstance(name, str) and getattr(owner, name, None) == function:
        origin = origin_of(owner)
        return msgspec.structs.replace(origin, qualname=f"{origin.qualname}.{name}")
    if not (isinstance(getattr(function, "__module__", None), str) and hasattr(function, "__qualname__")):
        raise TypeError(
            f"{function!r:.200} has no name by which a child could find it: functions at the top of modules have one,"
            " and classes, their class methods, and a functools.partial of those"
        )
    return origin_of(function)


class Failure(msgspec.Struct, frozen=True):
    """An exception that a function raised."""

    module: str
    qualname: str
    args: Any
    """What its class is called with, as :func:`~seqrpc.workers.plain.packed` has it; None if it does not travel."""

    state: list[tuple[str, Any]]
    """Its attributes, as far as they travel; its notes are one of them."""

    text: str
    trace: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of calls: the result of each, or what the first raised that failed."""

    results: list[Any]
    failure: Failure | None = None


class Functions(Service, name="seqrpc.Functions"):
    """Calls functions, one at a time, in the main thread of its process."""

    def __init__(self, initializer: Origin | None = None, arguments: list[Any] | None = None) -> None:
        """Call the initializer, if there is one."""
        self._known: dict[Origin, Callable[..., Any]] = {}
        if initializer is not None:
            with _loop_hidden():
                self._find(initializer)(*map(unpacked, arguments or []))

    @method
    async def call(self, origin: Origin, many: list[list[Any]], kwargs: Any) -> Outcome:
        """Call a function for each of ``many`` lists of arguments, up to the first that fails.

        It runs on the loop: as in a process of concurrent.futures, nothing else is done meanwhile.
        """
        try:
            function, named = self._find(origin), unpacked(kwargs)
            with _loop_hidden():
                results = [_packed_result(function(*map(unpacked, args), **named), origin) for args in many]
        except BaseException as exc:  # as concurrent.futures does
            return Outcome([], _failure(exc))
        return Outcome(results)

    def _find(self, origin: Origin) -> Callable[..., Any]:
        known = self._known.get(origin)
        if known is None:
            known = self._known[origin] = find(origin)
        return known


@contextlib.contextmanager
def _loop_hidden() -> Iterator[None]:
    """Let functions run as if there were no loop: ``asyncio.run`` is theirs to use."""
    loop = events._get_running_loop()  # noqa: SLF001 - documented, as the next one, for those who make loops
    events._set_running_loop(None)  # noqa: SLF001
    try:
        yield
    finally:
        events._set_running_loop(loop)  # noqa: SLF001


def _packed_result(result: Any, origin: Origin) -> Any:
    try:
        return packed(result, f"the result of {origin.qualname}")
    except (TypeError, ValueError) as exc:
        raise exc.with_traceback(None) from None  # where in here says nothing


def _failure(exc: BaseException) -> Failure:
    """Return what travels of an exception: what it is made with when it is copied, else what it was made with."""
    cls, args, state = type(exc), list(exc.args), {}
    with contextlib.suppress(Exception):  # its class has a way of its own
        reduced: Any = exc.__reduce__()
        if reduced[0] is cls:
            args, state = list(reduced[1]), dict(reduced[2] if len(reduced) > 2 else {})
    attributes = []
    for name, value in state.items():
        with contextlib.suppress(TypeError, ValueError):
            attributes.append((name, packed(value, name)))
    try:
        packed_args = packed(args, "args")
    except (TypeError, ValueError):
        packed_args = None
    text = "no text: its __str__ fails"
    with contextlib.suppress(Exception):
        text = str(exc)
    trace = "".join(traceback.format_exception(exc))[-_MOST_TOLD:]
    return Failure(cls.__module__, cls.__qualname__, packed_args, attributes, _sendable(text), _sendable(trace))


def _sendable(text: str) -> str:
    """Return a text with what is not Unicode, such as parts of names of files, shown as it is in Python."""
    return text.encode("utf-8", "backslashreplace").decode()


class RemoteTraceback(Exception):
    """Where an exception was raised in a child: the cause of the one that is raised here.

    Args:
        tb: the traceback, as it was printed there.
    """

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        """Return the traceback as it was there."""
        return f'\n"""\n{self.tb}"""'


def exception_of(failure: Failure, *, is_foreign: bool = False) -> BaseException:
    """Return the exception that a function raised, as far as its class is known here, and imported.

    Args:
        failure: what the child tells of it.
        is_foreign: whether the child is another user: it may say anything, and none of it is to end this process.
    """
    found: Any = sys.modules.get("__main__" if failure.module == MAIN else failure.module)
    cls = functools.reduce(lambda thing, name: getattr(thing, name, None), failure.qualname.split("."), found)
    made: Any = None
    known = Exception if is_foreign else BaseException
    if isinstance(cls, type) and issubclass(cls, known) and failure.args is not None:
        with contextlib.suppress(Exception):  # its class takes others
            made = cls(*unpacked(failure.args))
    exc: BaseException
    if isinstance(made, BaseException):
        exc = made
        for name, value in failure.state:
            if name == "__notes__" or not name.startswith("__"):
                with contextlib.suppress(Exception):  # its class does not let that be set
                    setattr(exc, name, unpacked(value))
    else:
        exc = RuntimeError(f"{failure.module}.{failure.qualname}: {failure.text}")
    exc.__cause__ = RemoteTraceback(failure.trace)
    return exc
