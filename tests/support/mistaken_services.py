"""Mistakes of those who connect, serve, and write services."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import seqrpc
from seqrpc import policy
from support.mistakes import Audit, Machine, Place, Plain, mistake

# Much of this is what type checkers find, too: values are Any where they would.


class Unmarked(seqrpc.Service):
    async def add(self, a: int, b: int) -> int:
        return a + b


class Untyped(seqrpc.Service):
    @seqrpc.method
    async def add(self, a, b):  # type: ignore[no-untyped-def]
        return a + b


class Stars(seqrpc.Service):
    @seqrpc.method
    async def add(self, *numbers: int) -> int:
        return sum(numbers)


class Generator(seqrpc.Service):
    @seqrpc.method
    def count(self, to: int) -> Iterator[int]:
        yield from range(to)


class Selfless(seqrpc.Service):
    @seqrpc.method
    async def double(number: int, *, times: int = 1) -> int:  # type: ignore[misc] # noqa: N805 - that is the mistake
        return 2 * number * times


class Living(seqrpc.Service):
    async def lifespan(self) -> AsyncIterator[None]:  # type: ignore[override]
        yield


class Brief(seqrpc.Service):
    @contextlib.asynccontextmanager  # type: ignore[arg-type]
    async def lifespan(self) -> None:
        pass


class Hasty(seqrpc.Service):
    @contextlib.asynccontextmanager  # type: ignore[arg-type]
    def lifespan(self) -> Iterator[None]:
        yield


# Connecting and serving


@mistake(
    "called",
    TypeError,
    "seqrpc.connect(...) is entered by 'async with', not by 'with'",
    names="seqrpc.connect",
    way_out="'async with'",
)
def connect_without_async(place: Place) -> None:
    connecting: Any = seqrpc.connect(place.other_path)
    try:
        with connecting:
            pass
    finally:
        connecting._was_used = True


@mistake(
    "called",
    AttributeError,
    "seqrpc.connect(...) is not open yet, and has no 'proxy': write 'async with' or 'await' before it",
    names="seqrpc.connect",
    way_out="write 'async with' or 'await'",
)
def connect_without_await(place: Place) -> Any:
    connection: Any = seqrpc.connect(place.other_path)
    try:
        return connection.proxy(Machine)
    finally:
        connection._was_used = True


@mistake(
    "dropped",
    RuntimeWarning,
    "seqrpc.serve(...) was never awaited, and nothing was opened: write 'async with' or 'await' before it",
    names="seqrpc.serve",
    way_out="write 'async with' or 'await'",
)
def serve_without_await(place: Place) -> None:
    seqrpc.serve(Machine(), place.other_path)


@mistake(
    "given",
    RuntimeError,
    "seqrpc.run runs an event loop of its own, and one runs here already: write 'async with seqrpc.serve(...)'",
    names="seqrpc.run",
    way_out="write 'async with seqrpc.serve(...)'",
)
def run_in_a_loop(place: Place) -> None:
    seqrpc.run(Machine(), place.other_path)


@mistake(
    "given",
    TypeError,
    "an object of Machine was expected, got the class: write Machine()",
    names="Machine",
    way_out="write Machine()",
)
def class_to_serve(place: Place) -> Any:
    cls: Any = Machine
    return seqrpc.serve(cls, place.other_path)


@mistake(
    "given",
    TypeError,
    "an object of a seqrpc.Service was expected, got <…Plain object at …>, and Plain is none",
    names="Plain",
    way_out="of a seqrpc.Service",
)
def no_service(place: Place) -> Any:
    plain: Any = Plain()
    return seqrpc.connect(place.other_path, services=plain)


@mistake(
    "given",
    TypeError,
    "Unmarked has no method that others may call: mark those that they may @seqrpc.method",
    names="Unmarked",
    way_out="mark those that they may @seqrpc.method",
)
def nothing_marked(place: Place) -> Any:
    return seqrpc.serve(Unmarked(), place.other_path)


@mistake(
    "given",
    UserWarning,
    "Untyped.add takes whatever is sent as 'a', 'b': write the type of each parameter, or typing.Any if that is meant",
    names="Untyped.add takes whatever is sent as 'a', 'b'",
    way_out="write the type of each parameter",
)
def no_annotations(place: Place) -> None:
    serving = seqrpc.serve(type("Untyped", (Untyped,), {})(), place.other_path)  # of each class once
    serving._was_used = True


@mistake(
    "given",
    TypeError,
    "Stars.add: parameters have names on the wire; '*numbers' has none: take a list, or a dict",
    names="'*numbers'",
    way_out="take a list, or a dict",
)
def star_parameters(place: Place) -> Any:
    return seqrpc.serve(Stars(), place.other_path)


@mistake(
    "given",
    TypeError,
    "Generator.count: a generator that streams is written 'async def'",
    names="Generator.count",
    way_out="'async def'",
)
def generator_without_async(place: Place) -> Any:
    return seqrpc.serve(Generator(), place.other_path)


@mistake(
    "given",
    TypeError,
    "Selfless.double: the first parameter of a method is its object, and this is `number`: write double(self,"
    " number, times)",
    names="Selfless.double",
    way_out="write double(self, number, times)",
)
def without_self(place: Place) -> Any:
    return seqrpc.serve(Selfless(), place.other_path)


@mistake(
    "opened",
    TypeError,
    "Living.lifespan: an async context manager was expected (@contextlib.asynccontextmanager)",
    names="Living.lifespan",
    way_out="@contextlib.asynccontextmanager",
)
def lifespan_without_decorator(place: Place) -> Any:
    return seqrpc.serve(Living(), place.other_path)


@mistake(
    "opened",
    TypeError,
    "Brief.lifespan: it is no 'async def' with a 'yield': write one",
    names="Brief.lifespan",
    way_out="with a 'yield'",
)
def lifespan_without_yield(place: Place) -> Any:
    return seqrpc.serve(Brief(), place.other_path)


@mistake(
    "opened",
    TypeError,
    "Hasty.lifespan: it is no 'async def' with a 'yield': write one",
    names="Hasty.lifespan",
    way_out="'async def'",
)
def lifespan_without_async(place: Place) -> Any:
    return seqrpc.serve(Hasty(), place.other_path)


@mistake(
    "opened",
    seqrpc.AddressInUse,
    "…/test.sock is in use: this process serves it",
    names="/test.sock",
    way_out="this process serves it",
)
def served_twice(place: Place) -> Any:
    return seqrpc.serve(Machine(), place.other_path.with_name("test.sock"))


@mistake(
    "opened",
    ValueError,
    "two services are named 'Machine'; give one class another name=",
    names="'Machine'",
    way_out="give one class another name=",
)
def one_name_twice(place: Place) -> Any:
    return seqrpc.serve([Machine(), Machine()], place.other_path)


@mistake(
    "opened",
    TypeError,
    "mode= takes a number, got '660': write mode=0o660",
    names="'660'",
    way_out="write mode=0o660",
)
def mode_as_text(place: Place) -> Any:
    mode: Any = "660"
    return seqrpc.serve(Machine(), place.other_path, mode=mode)


@mistake(
    "opened",
    seqrpc.AddressError,
    "mode= takes permission bits up to 0o777, got 0o1224, which is 660 without its 0o: write mode=0o660",
    names="mode=",
    way_out="write mode=0o660",
)
def mode_without_0o(place: Place) -> Any:
    return seqrpc.serve(Machine(), place.other_path, mode=660)


@mistake(
    "opened",
    seqrpc.AddressError,
    "group= names no group of this machine: 'no-such-group'; 'getent group' lists them",
    names="'no-such-group'",
    way_out="'getent group' lists them",
)
def unknown_group(place: Place) -> Any:
    return seqrpc.serve(Machine(), place.other_path, group="no-such-group")


@mistake(
    "opened",
    seqrpc.AddressError,
    "group= has no effect with mode 0o600, which lets nobody but the owner connect: write mode=0o660, too",
    names="group=",
    way_out="write mode=0o660",
)
def group_without_mode(place: Place) -> Any:
    return seqrpc.serve(Machine(), place.other_path, group=os.getgid())


@mistake(
    "given",
    TypeError,
    "on_start= takes a function of the Server, got 5: write 'def f(server): ...'",
    names="on_start=",
    way_out="write 'def f(server): ...'",
)
def number_as_hook(place: Place) -> None:
    number: Any = 5
    seqrpc.run(Machine(), place.other_path, on_start=number)


@mistake(
    "given",
    TypeError,
    "on_reload= takes a function of the Server, and <function …> cannot be called with it alone: write 'def f(server):"
    " ...'",
    names="on_reload=",
    way_out="write 'def f(server): ...'",
)
def hook_without_a_server(place: Place) -> None:
    hook: Any = lambda: None  # noqa: E731 - as people write it
    seqrpc.run(Machine(), place.other_path, on_reload=hook)


@mistake(
    "given",
    TypeError,
    "limits= takes a seqrpc.Limits, got 5: write seqrpc.Limits(max_threads=8)",
    names="limits=",
    way_out="write seqrpc.Limits(max_threads=8)",
)
def number_as_limits(place: Place) -> Any:
    limits: Any = 5
    return seqrpc.serve(Machine(), place.other_path, limits=limits)


@mistake(
    "opened",
    TypeError,
    "an object of Audit was expected, got the class: write Audit()",
    names="Audit",
    way_out="write Audit()",
)
def class_as_interceptor(place: Place) -> Any:
    interceptors: Any = [Audit]
    return seqrpc.serve(Machine(), place.other_path, interceptors=interceptors)


@mistake(
    "given",
    TypeError,
    "a proxy is made of a class, and this is an object of Machine: write proxy(Machine)",
    names="an object of Machine",
    way_out="write proxy(Machine)",
)
def proxy_of_an_object(place: Place) -> Any:
    machine: Any = Machine()
    return place.connection.proxy(machine)


@mistake(
    "given",
    TypeError,
    "a proxy is made of a class that describes the service, got 'Machine'",
    names="'Machine'",
    way_out="made of a class that describes the service",
)
def proxy_of_a_name(place: Place) -> Any:
    name: Any = "Machine"
    return place.connection.proxy(name)


# Writing services

_POLICY = "a policy, or a plain function of the caller's Credentials, was expected, got"


@mistake(
    "written",
    TypeError,
    f"{_POLICY} <function group at …>: policy.group is to be called, as in policy.group('adm')",
    names="policy.group",
    way_out="as in policy.group('adm')",
)
def group_without_a_call(_place: Place) -> None:
    rule: Any = policy.group
    seqrpc.method(allow=rule)


@mistake(
    "written",
    TypeError,
    "group() takes the name of a group, got 4: write policy.gid(4)",
    names="got 4",
    way_out="write policy.gid(4)",
)
def group_by_number(_place: Place) -> None:
    number: Any = 4
    policy.group(number)


@mistake(
    "written",
    TypeError,
    "@seqrpc.method decorates functions, got uid(0): write @seqrpc.method(allow=...)",
    names="uid(0)",
    way_out="write @seqrpc.method(allow=...)",
)
def rule_without_its_keyword(_place: Place) -> None:
    rule: Any = policy.root
    seqrpc.method(rule)


@mistake(
    "written",
    TypeError,
    "@seqrpc.method takes allow=, oneway=, idempotent= and errors=, not alow=; did you mean 'allow'?",
    names="alow=",
    way_out="did you mean 'allow'?",
)
def keyword_of_method(_place: Place) -> None:
    marking: Any = seqrpc.method
    marking(alow=policy.root)


@mistake(
    "written",
    TypeError,
    "@seqrpc.method: idempotent= is about calls whose answer is lost, and oneway= has no answers: take one",
    names="idempotent=",
    way_out="take one",
)
def idempotent_without_an_answer(_place: Place) -> None:
    seqrpc.method(oneway=True, idempotent=True)


@mistake(
    "written",
    TypeError,
    "…Named: the class of a service takes name=, allow= and show_arguments=, not nmae=; did you mean 'name'?",
    names="nmae=",
    way_out="did you mean 'name'?",
)
def keyword_of_a_class(_place: Place) -> None:
    class Named(seqrpc.Service, nmae="org.example.Named"):
        pass


@mistake(
    "written",
    TypeError,
    f"{_POLICY} <function …<lambda> at …>: it cannot be called with the caller alone, as 'lambda caller: ...' can",
    names="<lambda>",
    way_out="'lambda caller: ...'",
)
def rule_without_a_caller(_place: Place) -> None:
    rule: Any = lambda: True  # noqa: E731 - as people write it
    seqrpc.method(allow=rule)


@mistake(
    "written",
    TypeError,
    f"{_POLICY} 'root': write policy.root",
    names="'root'",
    way_out="write policy.root",
)
def rule_as_text(_place: Place) -> None:
    rule: Any = "root"
    seqrpc.method(allow=rule)


@mistake(
    "written",
    TypeError,
    f"{_POLICY} True: write policy.anyone, which admits everybody, or ~policy.anyone, which admits nobody",
    names="True",
    way_out="write policy.anyone",
)
def rule_as_bool(_place: Place) -> None:
    rule: Any = True
    seqrpc.method(allow=rule)


@mistake(
    "written",
    TypeError,
    "policies are combined with &, | and ~, not with and, or and not",
    names="policies",
    way_out="combined with &, | and ~",
)
def rules_with_and(_place: Place) -> None:
    seqrpc.method(allow=policy.root and policy.group("adm"))


@mistake(
    "written",
    ValueError,
    "…: not a service name: 'org.example.'; it neither begins nor ends with a dot, is not empty, and not under 'rpc',"
    " which is reserved",
    names="'org.example.'",
    way_out="neither begins nor ends with a dot",
)
def name_with_a_dot(_place: Place) -> None:
    class Dotted(seqrpc.Service, name="org.example."):
        pass


@mistake(
    "written",
    TypeError,
    "Limits has no bound 'max_call_in_flight'; did you mean 'max_calls_in_flight'?",
    names="'max_call_in_flight'",
    way_out="did you mean 'max_calls_in_flight'?",
)
def unknown_bound(_place: Place) -> None:
    limits: Any = seqrpc.Limits
    limits(max_call_in_flight=5)


@mistake(
    "written",
    ValueError,
    "limits.max_threads must be positive, got -1",
    names="limits.max_threads",
    way_out="must be positive",
)
def negative_bound(_place: Place) -> None:
    seqrpc.Limits(max_threads=-1)


@mistake(
    "called",
    TypeError,
    "OwnedFd takes a descriptor's number, got <…>: write OwnedFd.dup(file)",
    names="OwnedFd",
    way_out="write OwnedFd.dup(file)",
)
def owner_of_a_file(_place: Place) -> None:
    with tempfile.TemporaryFile() as file:
        owner: Any = seqrpc.OwnedFd
        owner(file)


@mistake(
    "called",
    TypeError,
    "OwnedFd takes a descriptor's number, got 'a.txt': open the file first, as in OwnedFd(os.open(...))",
    names="'a.txt'",
    way_out="open the file first",
)
def owner_of_a_name(_place: Place) -> None:
    owner: Any = seqrpc.OwnedFd
    owner("a.txt")


@mistake(
    "logged",
    ValueError,
    "the result: the descriptor is closed; what a handler returns is given away: return it open, and not out of its"
    " 'with' block",
    names="the result",
    way_out="return it open",
)
def returned_out_of_with(place: Place) -> Any:
    return place.machine.release()


@mistake(
    "logged",
    ValueError,
    "the descriptor is closed",
    names="the descriptor",
    way_out="is closed",
)
async def kept_as_it_came(place: Place) -> None:
    with seqrpc.OwnedFd.dup(0) as fd:
        await place.machine.keep(fd)
    await place.machine.size_of_kept()


@mistake(
    "logged",
    ValueError,
    "the item: the descriptor is closed; what is yielded is given away: yield it open, and leave it open",
    names="the item",
    way_out="yield it open",
)
async def yielded_closed(place: Place) -> None:
    async for _file in place.machine.files():
        pass


@mistake(
    "logged",
    seqrpc.InvalidResult,
    "Machine.name returned what does not fit its annotation: Expected `str`, got `int`",
    names="Machine.name",
    way_out="Expected `str`",
)
def wrong_result(place: Place) -> Any:
    return place.machine.name()


@mistake(
    "answered",
    seqrpc.Internal,
    "rpc.Internal: incident …; the log of the other side has more",
    names="incident",
    way_out="the log of the other side has more",
)
def plain_exception(place: Place) -> Any:
    return place.machine.load()
