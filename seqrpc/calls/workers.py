"""What a worker is started with, and how its end is told: with an event loop and without."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from seqrpc.errors import InvalidParams, RpcError, WorkerCrashed
from seqrpc.interface.service import Service
from seqrpc.interface.signature import MethodSpec, spec_of
from seqrpc.kernel.privileges import Restraints
from seqrpc.kernel.processes import how_it_ended
from seqrpc.text import shown

MAIN: Final = "__seqrpc_main__"
"""What the program's own module is called in a child, which is to do nothing by itself: ``__name__`` is not
``"__main__"`` there."""

_PACKAGES: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_LAST_LINES: Final = 20

_LONGEST_LINE: Final = 500  # characters

_BOOT: Final = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from seqrpc.workers.{} import main; main()"


class Origin(msgspec.Struct, frozen=True):
    """Where a child finds a class, or a function."""

    module: str
    """Its module, or :data:`MAIN`."""

    qualname: str
    """What it is called there."""

    main_module: str | None = None
    """The program's own module by name (``python -m``), if it is in there."""

    main_path: str | None = None
    """The program's own file, if it is in there."""


class Setup(msgspec.Struct, frozen=True):
    """What a child is told before it begins to work."""

    origin: Origin
    restraints: Restraints
    path: list[str]
    """``sys.path``."""

    argv: list[str]
    """``sys.argv``."""

    limits: dict[str, float]
    """The :class:`seqrpc.Limits` of its side, as far as they are not the default."""


class StartFailed(RpcError, code="seqrpc.StartFailed"):
    """The service could not be imported, or made."""


def origin_of(thing: Any) -> Origin:
    """Return where a child finds a class or a function, or what ``"module:Class"`` says.

    Raises:
        ValueError: a child cannot import it.
    """
    if isinstance(thing, str):
        module, colon, qualname = thing.partition(":")
        if not (module and colon and qualname):
            raise ValueError(f"a class is named as 'module:Class', got {thing!r}")
        return Origin(module, qualname)
    module, qualname = thing.__module__, thing.__qualname__
    if _found(sys.modules.get(module), qualname) is not thing:
        text = f"{module}.{qualname} cannot be imported in a child: put it at the top of a module"
        raise ValueError(text)
    if module != "__main__":
        return Origin(module, qualname)
    return _origin_in_main(qualname)


def _found(module: Any, qualname: str) -> Any:
    try:
        return functools.reduce(getattr, qualname.split("."), module)
    except AttributeError:
        return None


def _origin_in_main(qualname: str) -> Origin:
    main = sys.modules["__main__"]
    spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return Origin(MAIN, qualname, main_module=spec.name)
    if path is None or not os.path.exists(path):
        text = f"{qualname} is defined in a session, where a child cannot import it: put it in a module"
        raise ValueError(text)
    return Origin(MAIN, qualname, main_path=os.path.abspath(path))


def setup_for(origin: Origin, restraints: Restraints, limits: Any) -> Setup:
    """Return what a child is told that finds its class at ``origin``."""
    path = [os.path.abspath(entry) for entry in sys.path]
    changed = {
        name: getattr(limits, name)
        for name in type(limits).__dataclass_fields__
        if getattr(limits, name) != getattr(type(limits)(), name)
    }
    return Setup(origin, restraints, path, [*sys.argv], changed)


def python_argv(module: str, *arguments: str) -> list[str]:
    """Return the command line of a Python that runs ``main`` of a module in ``seqrpc.workers``.

    It has the options of this one, and finds seqrpc where this one did. No directory is put on its path by itself.
    """
    if not sys.executable:
        raise OSError("this program does not know its own Python (sys.executable), with which to start a child")
    path = "\n".join([_PACKAGES, *(os.path.abspath(entry) for entry in sys.path)])
    return [sys.executable, *_interpreter_options(), "-P", "-c", _BOOT.format(module), *arguments, path]


def _interpreter_options() -> list[str]:
    """Return the options that this Python was started with, as far as they mean something to a child."""
    flags = sys.flags
    letters = [
        *(["-" + "O" * flags.optimize] if flags.optimize else []),
        *(["-I"] if flags.isolated else []),
        *(["-E"] if flags.ignore_environment and not flags.isolated else []),
        *(["-s"] if flags.no_user_site and not flags.isolated else []),
        *(["-S"] if flags.no_site else []),
        *(["-B"] if flags.dont_write_bytecode else []),
        *(["-b"] * flags.bytes_warning),
    ]
    extra = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]  # noqa: SLF001
    return [*letters, *extra, *(f"-W{option}" for option in sys.warnoptions)]


@functools.cache
def _maker(cls: type) -> MethodSpec | None:
    """Return what calls of a class are bound by, or None if it takes nothing."""
    init = inspect.getattr_static(cls, "__init__")
    if init is object.__init__ or init is Service.__init__:
        return None
    holder = type(cls.__name__, (), {"made": init, "__module__": cls.__module__})
    return spec_of(holder).methods["made"]


def make_params(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check that a class can be made with so many arguments, and such names.

    Raises:
        TypeError: it cannot, or takes what cannot be sent.
    """
    maker = _maker(cls)
    if maker is not None:
        maker.params(args, kwargs)
    elif args or kwargs:
        raise TypeError(f"{cls.__qualname__}() takes no arguments")


def make(cls: type, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Return an object of a class, made with arguments that came off the wire, by its annotations.

    Raises:
        InvalidParams: they do not fit.
        Exception: what the class raises.
    """
    maker = _maker(cls)
    if maker is None:
        if args or kwargs:
            raise InvalidParams(f"{cls.__name__} takes no arguments")
        return cls()
    if kwargs:
        names = [parameter.name for parameter in maker.description.parameters if parameter.by_position]
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        positional, named = maker.bind(kwargs)
    else:
        positional, named = maker.bind(args)
    return cls(*positional, **named)


class Tail:
    """The last lines of what a process wrote."""

    __slots__ = ("_lines", "_rest")

    def __init__(self) -> None:
        """Begin with none."""
        self._lines: list[str] = []
        self._rest = b""

    def add(self, data: bytes) -> list[str]:
        """Take what was read, and return the lines that are whole now."""
        *whole, rest = (self._rest + data).split(b"\n")
        if len(rest) > 4 * _LONGEST_LINE:  # one that never ends
            whole, rest = [*whole, rest], b""
        self._rest = rest
        lines = [line.decode(errors="backslashreplace").rstrip("\r") for line in whole]
        self._lines = [*self._lines, *lines][-_LAST_LINES:]
        return lines

    def end(self) -> list[str]:
        """Return the line that has no end, if there is one."""
        return self.add(b"\n") if self._rest else []

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, of bounded length each."""
        last = [self._rest.decode(errors="backslashreplace")] if self._rest else []
        return tuple(shown(line, _LONGEST_LINE) for line in [*self._lines, *last])


def crashed(
    name: str, pid: int | None, returncode: int | None, lines: Iterable[str] = (), why: str | None = None
) -> WorkerCrashed:
    """Return what is raised because a worker has ended.

    Args:
        name: what it is called.
        pid: its process.
        returncode: see :class:`~seqrpc.WorkerCrashed`.
        lines: the last of its standard error.
        why: why it was killed, if it was; or why it did not begin.
    """
    last = tuple(lines)
    text = f"the worker {name}{'' if pid is None else f' (process {pid})'} "
    text += how_it_ended(returncode) if why is None else why
    if last:
        text = f"{text}; its last line: {last[-1]}"
    error = WorkerCrashed(text)
    error.returncode, error.last_lines = returncode, last
    return error
