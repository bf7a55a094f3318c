"""What a worker is: looked at as far as that can be done before it is started; with an event loop and without."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from seqrpc.calls.workers import Origin, make_params, origin_of, python_argv
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.interface.services import services_of
from seqrpc.kernel.privileges import Restraints, restraints
from seqrpc.limits import Limits, check_limits
from seqrpc.text import shown

ServiceLike = type[Service] | str
"""A class of a service, or where it is: ``"module:Class"``."""

OutputLike = Literal["inherit", "capture"] | logging.Logger
"""What becomes of what a child writes."""


class Plan(NamedTuple):
    """What a worker is; as many as are wanted can be started by it."""

    name: str
    """What it is called in errors."""

    origin: Origin | None
    """Where the child finds its service, or None: it is another program."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    command: tuple[Any, ...]
    restraints: Restraints
    environment: Mapping[str, str] | None
    output: OutputLike
    services: tuple[Service, ...]
    """What the child may call here."""

    allow: PolicyLike | None
    interceptors: tuple[Any, ...]
    limits: Limits
    grace: float
    """Seconds that a child gets to react to anything."""

    start_timeout: float


def argv_of(plan: Plan) -> list[str]:
    """Return the command line of a child."""
    if plan.origin is not None:
        return python_argv("child")
    told = msgspec.json.encode(plan.restraints).decode()
    *python, path = python_argv("launcher")
    return [*python, told, *map(str, plan.command), path]


def plan_for(
    service: ServiceLike | None,
    args: tuple[Any, ...],
    *,
    kwargs: Mapping[str, Any] | None,
    command: Sequence[str | os.PathLike[str]] | None,
    serve: Service | Iterable[Service],
    allow: PolicyLike | None,
    interceptors: Iterable[Any],
    connection_limits: Limits,
    grace: float,
    start_timeout: float,
    output: OutputLike,
    environment: Mapping[str, str] | None,
    **restrained: Any,
) -> Plan:
    """Return what is to be started, looked at as far as that can be done before."""
    if (service is None) == (command is None):
        raise TypeError("a worker is a class of a service, or command=, and not both")
    if command is not None and (isinstance(command, str) or not command):
        raise TypeError(f"command= takes a program and its arguments, as ['/usr/bin/thing', '-v'], got {command!r}")
    if command is not None and (args or kwargs):
        raise TypeError("command= has its arguments in it")
    named = check_kwargs(kwargs)
    if isinstance(service, type):
        if not issubclass(service, Service):
            raise TypeError(f"{service.__qualname__} is no seqrpc.Service")
        make_params(service, args, named)
    elif service is not None and not isinstance(service, str):
        raise TypeError(f"a worker is made of the class of a service, or of 'module:Class', got {service!r}")
    check_seconds("grace", grace)
    check_seconds("start_timeout", start_timeout)
    check_limits(connection_limits)
    return Plan(
        name=name_of(service, command),
        origin=None if service is None else origin_of(service),
        args=args,
        kwargs=named,
        command=() if command is None else tuple(map(os.fspath, command)),
        restraints=restraints(**restrained),
        environment=None if environment is None else _check_environment(environment),
        output=check_output(output),
        services=tuple(services_of(serve)),
        allow=allow,
        interceptors=tuple(interceptors),
        limits=connection_limits,
        grace=grace,
        start_timeout=start_timeout,
    )


def name_of(service: Any, command: Sequence[Any] | None = None) -> str:
    """Return what a worker is called in errors."""
    if command is not None:
        return shown(os.path.basename(os.fsdecode(command[0])))
    return service.rpartition(":")[2] if isinstance(service, str) else str(service.__qualname__)


def check_kwargs(kwargs: Any) -> dict[str, Any]:
    """Return arguments by name.

    Raises:
        TypeError: they are none.
    """
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TypeError(f"kwargs= takes arguments by name, as {{'size': 3}}, got {kwargs!r}")
    return dict(kwargs)


def check_seconds(what: str, value: Any) -> float:
    """Return a number of seconds.

    Raises:
        ValueError, TypeError: it is none, or not more than 0.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"{what}= takes seconds, got {value!r}")
    if not value > 0:
        raise ValueError(f"{what}= takes seconds, more than 0, got {value!r}")
    return value


def _check_environment(environment: Any) -> dict[str, str]:
    if not isinstance(environment, Mapping) or not all(
        isinstance(text, str) for pair in environment.items() for text in pair
    ):
        raise TypeError(f"environment= takes texts by name, as {{'PATH': '/usr/bin'}}, got {shown(repr(environment))}")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"environment= has {shown(repr(name))}, which cannot be a variable with such a value")
    return dict(environment)


def check_output(output: object) -> OutputLike:
    """Return what is to become of what children write.

    Raises:
        TypeError: it is nothing of that kind.
    """
    if output in ("inherit", "capture") or isinstance(output, logging.Logger):
        return output
    raise TypeError(f"output= is 'inherit', 'capture', or a logger, got {output!r}")
