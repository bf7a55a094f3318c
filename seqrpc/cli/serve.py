"""The command ``serve``: a class as a daemon."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import re
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from seqrpc.cli import reloading
from seqrpc.cli.endings import FAILED, HELP, Ending, misused, told
from seqrpc.cli.faults import fault_of, located
from seqrpc.cli.importing import named, thing_at
from seqrpc.cli.options import Octal
from seqrpc.cli.screen import Screen
from seqrpc.errors import AddressError, AddressInUse, ListenError
from seqrpc.interface.service import Service
from seqrpc.kernel import sockets
from seqrpc.kernel.addresses import AbstractAddress, PathAddress, parse_address
from seqrpc.kernel.platforms import PLATFORM

_ELSEWHERE: Final = ("exec:", "ssh://")

_LEVELS: Final = ("debug", "info", "warning", "error")

_ARGUMENT: Final = re.compile(r"\b(mode|group)=(?:0o)?([0-7]*)")
"""As the functions of Python that serve have them, which the errors name."""

_STOP_SECONDS: Final = 1.0
"""That running handlers get before a reload: whoever changes a file waits for it."""


@click.command(
    "serve",
    help="""Serve a class at ADDRESS until SIGTERM or Ctrl-C: a path, @name, fd:N or systemd:NAME.

    SERVICE is MODULE:CLASS, which is made without arguments, MODULE:FUNCTION, which returns a service or several, or
    MODULE:OBJECT. Modules are looked for in the working directory, too.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("service")
@click.argument("address")
@click.option("--reload", is_flag=True, help="Begin anew when a file of an imported module changes.")
@click.option("--mode", type=Octal(), help="Permissions of the socket file, in octal (default: 600).")
@click.option("--group", help="Group of the socket file, by its name or number.")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="warning",
    show_default=True,
    help="What is logged on standard error, of seqrpc and of the service: info has who is refused.",
)
def command(service: str, address: str, *, reload: bool, log_level: str, **access: Any) -> int:
    """Serve a class."""
    screen = Screen()
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=log_level.upper())
    where = named(service)
    if address.startswith(_ELSEWHERE):
        raise misused(f"{address} is no place to serve at: a path is one, @name, fd:N, and systemd:NAME")
    if reload and not isinstance(parse_address(address), PathAddress | AbstractAddress):
        raise misused(f"--reload needs an address that can be listened at again, which {address} is not")
    group = access["group"]
    access["group"] = int(group) if group is not None and group.isdecimal() else group
    serving = functools.partial(_serve, where, address, access, screen)
    if reload:
        _serve_and_reload(serving, screen)
    else:
        serving()
    return 0


def services_of(module: str, name: str) -> list[Service]:
    """Return the services that a name in a module stands for.

    Raises:
        Ending: it stands for none.
    """
    found = thing_at(module, name)
    made = found if isinstance(found, Service) or not callable(found) else _made(found, f"{module}:{name}")
    services = [made] if isinstance(made, Service) else [*made] if isinstance(made, list | tuple) else []
    if not services or not all(isinstance(each, Service) for each in services):
        raise misused(f"{module}:{name} is no seqrpc.Service, nor makes any")
    return services


def _made(make: Callable[..., Any], named: str) -> Any:
    """Call what makes a service.

    Raises:
        Ending: it makes something else, or needs arguments.
    """
    if isinstance(make, type) and not issubclass(make, Service):
        raise misused(f"{named} is no seqrpc.Service, nor makes any")
    try:
        inspect.signature(make).bind()
    except TypeError as exc:
        raise misused(f"{named} needs arguments ({exc}): name a function without, which returns it") from None
    except ValueError:
        pass  # it does not tell what it takes
    with located():
        return make()


def _serve(
    where: tuple[str, str],
    address: str,
    access: Mapping[str, Any],
    screen: Screen,
    *,
    on_start: Callable[[Any], object] | None = None,
) -> None:
    from seqrpc.aio.run import run  # noqa: PLC0415 - it loads asyncio, and other commands do without

    services = services_of(*where)
    names = ", ".join(type(service).service_name for service in services)

    def started(server: Any) -> None:
        if on_start is not None:
            on_start(server)
        screen.remark(f"serving {names} at {address}, as process {os.getpid()}")

    stop = None if on_start is None else _STOP_SECONDS
    try:
        run(services, address, on_start=started, drain_timeout=stop, **access)
    except SystemExit as exc:  # with the error that says why the address cannot be served
        raise _in_our_words(exc.__cause__, address) or Ending(FAILED, str(exc)) from None


def _in_our_words(error: BaseException | None, address: str) -> BaseException | None:
    """Return why an address cannot be served, with options for arguments, and with the process that has it."""
    if isinstance(error, AddressInUse):
        return AddressInUse(error.errno, f"{error.strerror}{_holder_of(address)}")
    if isinstance(error, AddressError):
        return AddressError(_ARGUMENT.sub(lambda found: f"--{found[1]} {found[2] or ''}".rstrip(), str(error)))
    return error


def _holder_of(address: str) -> str:
    """Return who listens at an address, as it is put behind what says that it is in use; nothing if nobody tells."""
    with contextlib.suppress(Exception), sockets.connect(parse_address(address)) as sock:
        peer = PLATFORM.peer_credentials(sock)
        if peer is not None and peer.pid:
            return f" (process {peer.pid}, of user {peer.uid})"
    return ""


def _serve_and_reload(serving: Callable[..., None], screen: Screen) -> None:
    """Serve; when a file changes, execute this program anew, in the same process."""
    watch = reloading.Watch()

    def begin(_server: object) -> None:
        watch.begin(lambda: os.kill(os.getpid(), signal.SIGTERM))

    try:
        serving(on_start=begin)
    except (ListenError, AddressError):
        raise
    except Exception as exc:
        files = [*reloading.files_of(exc), *reloading.missed_by(exc)]
        watch.look(files)
        screen.complain(told(exc) if isinstance(exc, Ending) else fault_of(exc))
        screen.remark("waiting for a change")
        watch.changed = watch.changed or reloading.come_back(exc)  # before it was looked at
        if watch.changed is None:
            watch.wait(files)
    if watch.changed is None:
        return
    screen.remark(f"{watch.changed} has changed")
    screen.flush()
    reloading.wait_for_own_files(watch.changed)
    reloading.execute_anew()
