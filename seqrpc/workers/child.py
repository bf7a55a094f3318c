"""What runs in the child of a worker: a service, on the socket that the parent has passed.

The inherited socket is that of a small service, by which the parent says what the child is to be, and passes the end of
another pair: on that one the child serves. So the parent's class, its arguments and its own services travel as in any
call, and nothing is pickled.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import os
import signal
import socket
import sys
import traceback
import types
from importlib.machinery import SourceFileLoader
from typing import Any

import seqrpc.aio  # all that a service may need: after a change of user no file of it may be readable
from seqrpc.aio.server import Server, serve
from seqrpc.calls.workers import MAIN, Origin, Setup, StartFailed, make
from seqrpc.interface.methods import method
from seqrpc.interface.policy import Policy, as_policy
from seqrpc.interface.service import Service
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.privileges import give_up
from seqrpc.limits import Limits

_MOST_TOLD = 16_384  # characters of a traceback

_HINT = 'the worker imports the program, which is to begin its work under `if __name__ == "__main__":` alone'


class Child(Service, name="seqrpc.Child"):
    """What a parent says to its child.

    Args:
        allow: who the parent is.
    """

    def __init__(self, allow: Policy) -> None:
        """Be nothing yet."""
        self._allow = allow
        self._was_started = False
        self._failure: str | None = None
        self._server: Server | None = None

    @method
    async def live(self, setup: Setup, sock: OwnedFd, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Be what ``setup`` says, until the connection at ``sock`` ends; what came along is open until then.

        Raises:
            StartFailed: the service could not be imported, or made.
        """
        if self._was_started:
            raise StartFailed("the child has begun already")
        self._was_started = True
        try:
            service = _service(setup, args, kwargs)
            limits = Limits(**setup.limits)  # type: ignore[arg-type] # msgspec keeps whole numbers
        except Exception as exc:
            traceback.print_exc()
            self._failure = "".join(traceback.format_exception_only(exc)).strip()[-_MOST_TOLD:]
            raise StartFailed(self._failure) from exc
        end = socket.socket(fileno=sock.detach())
        async with serve(service, sock=end, allow=self._allow, limits=limits) as self._server:
            await self._server.wait_closed()

    @method
    async def drain(self) -> None:
        """Take no new calls, and return when those under way have ended, and the streams and objects of the service."""
        if self._server is not None:
            await self._server.drain()

    @method
    async def failure(self) -> str | None:
        """Return why it could not begin, for whoever did not wait for the answer of :meth:`live`."""
        return self._failure


def _service(setup: Setup, args: list[Any], kwargs: dict[str, Any]) -> Service:
    sys.path[:], sys.argv[:] = setup.path, setup.argv
    cls = find(setup.origin)
    if not (isinstance(cls, type) and issubclass(cls, Service)):
        raise TypeError(f"{setup.origin.module}:{setup.origin.qualname} is no class of a service")
    if setup.restraints.uid is not None:
        _load_all()
    give_up(setup.restraints)
    service: Service = make(cls, args, kwargs)
    return service


def find(origin: Origin) -> Any:
    """Return the class or the function at ``origin``; its module is imported.

    Raises:
        Exception: what its module raises.
        AttributeError: there is none.
    """
    module: Any = _main(origin) if origin.module == MAIN else importlib.import_module(origin.module)
    return functools.reduce(getattr, origin.qualname.split("."), module)


def _main(origin: Origin) -> types.ModuleType:
    """Return the program's own module, run once under another name, so that it does nothing by itself."""
    known = sys.modules.get(MAIN)
    if known is not None:
        return known
    place = origin.main_path
    package = None
    if origin.main_module is not None:
        spec = importlib.util.find_spec(origin.main_module)
        place, package = (None, None) if spec is None else (spec.origin, spec.parent)
    made = None
    if place is not None:  # whatever it is called: a program's name has no suffix
        made = importlib.util.spec_from_file_location(MAIN, place, loader=SourceFileLoader(MAIN, place))
    if made is None or made.loader is None:
        raise ImportError(f"the program's own module cannot be imported here: {origin.main_module or place}")
    module = importlib.util.module_from_spec(made)
    if package is not None:
        module.__package__ = package
    sys.modules[MAIN] = sys.modules["__main__"] = module
    try:
        made.loader.exec_module(module)
    except BaseException as exc:
        del sys.modules[MAIN]
        if isinstance(exc, RuntimeError) and "running event loop" in str(exc):
            exc.add_note(_HINT)
        raise
    return module


def _load_all() -> None:
    """Load what is else loaded when it is first asked for."""
    for name in dir(seqrpc):
        getattr(seqrpc, name)


async def _live(sock: socket.socket, parent: int) -> None:
    def is_parent(caller: Credentials | None) -> bool:
        return caller is not None and caller.pid == parent

    allow = as_policy(is_parent)
    async with serve(Child(allow), sock=sock, allow=allow) as server:
        await server.wait_closed()


def main() -> None:
    """Live until the parent closes the connection, or is gone; Ctrl-C is the parent's matter."""
    import uvloop  # noqa: PLC0415 - who only finds functions by this does not need it

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number = int(os.environ.pop("SEQRPC_FD"))
    sock = socket.socket(fileno=number)
    sock.set_inheritable(False)
    # As in seqrpc.run, only the loop is closed: nothing that goes on is waited for without a bound.
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        runner.run(_live(sock, os.getppid()))
    finally:
        runner.get_loop().close()
