"""Mistakes of those who call."""

from __future__ import annotations

import asyncio
from typing import Any

import seqrpc
from support.mistakes import Machine, Place, Plain, mistake

# Much of this is what type checkers find, too: values are Any where they would.


@mistake(
    "dropped",
    RuntimeWarning,
    "coroutine 'Machine.add' was never awaited",
    names="Machine.add",
    way_out="never awaited",
)
def no_await(place: Place) -> None:
    place.machine.add(2, 3)


@mistake(
    "called",
    AttributeError,
    "Machine.reboot is not marked with @seqrpc.method, so it cannot be called from here",
    names="Machine.reboot",
    way_out="@seqrpc.method",
)
def not_marked(place: Place) -> Any:
    return place.machine.reboot()


@mistake(
    "called",
    AttributeError,
    "Machine has no method 'ad' to call; did you mean 'add'?",
    names="'ad'",
    way_out="did you mean 'add'?",
)
def mistyped(place: Place) -> Any:
    return place.machine.ad(2, 3)


@mistake(
    "answered",
    seqrpc.MethodNotFound,
    "rpc.MethodNotFound: there is no method 'Machine.ad'; did you mean 'Machine.add'?",
    names="'Machine.ad'",
    way_out="did you mean 'Machine.add'?",
)
def mistyped_by_name(place: Place) -> Any:
    return place.connection.call("Machine.ad", 2, 3)


@mistake(
    "answered",
    seqrpc.MethodNotFound,
    "rpc.MethodNotFound: there is no method 'add'; did you mean 'Machine.add'?",
    names="'add'",
    way_out="did you mean 'Machine.add'?",
)
def without_the_service(place: Place) -> Any:
    return place.connection.call("add", 2, 3)


@mistake(
    "answered",
    seqrpc.MethodNotFound,
    "rpc.MethodNotFound: there is no method 'Computer.add'; did you mean 'Machine.add'? (a service is called 'Computer'"
    " if its class has name='Computer')",
    names="'Computer.add'",
    way_out="did you mean 'Machine.add'?",
)
def of_a_service_that_is_not_served(place: Place) -> Any:
    return place.connection.call("Computer.add", 2, 3)


@mistake(
    "called",
    TypeError,
    "a method is called by its name, as 'Service.method', not by <function Machine.add at …>",
    names="<function Machine.add",
    way_out="by its name, as 'Service.method'",
)
def by_the_function(place: Place) -> Any:
    function: Any = Machine.add
    return place.connection.call(function, 2, 3)


@mistake(
    "called",
    TypeError,
    "Machine.add(a, b=...) got an unexpected argument 'c'",
    names="'c'",
    way_out="Machine.add(a, b=...)",
)
def wrong_keyword(place: Place) -> Any:
    return place.machine.add(2, c=3)


@mistake(
    "answered",
    seqrpc.InvalidParams,
    "rpc.InvalidParams: Machine.add(a, b=...) got an unexpected argument 'c'",
    names="'c'",
    way_out="Machine.add(a, b=...)",
)
def wrong_keyword_by_name(place: Place) -> Any:
    return place.connection.call("Machine.add", a=2, c=3)


@mistake(
    "called",
    TypeError,
    "Machine.add(a, b=...) is missing 1 required argument: 'a'",
    names="'a'",
    way_out="is missing 1 required argument",
)
def missing_argument(place: Place) -> Any:
    return place.machine.add(b=3)


@mistake(
    "called",
    TypeError,
    "Machine.add(a, b=...) takes 2 arguments by position, and got 3",
    names="Machine.add",
    way_out="takes 2 arguments by position",
)
def too_many_arguments(place: Place) -> Any:
    return place.machine.add(2, 3, 4)


@mistake(
    "called",
    TypeError,
    "Machine.add(a, b=...) got the argument 'a' twice: by position and by name",
    names="'a'",
    way_out="twice: by position and by name",
)
def argument_twice(place: Place) -> Any:
    return place.machine.add(2, a=3)


@mistake(
    "called",
    TypeError,
    "Machine.add: arguments go by position or by name, not both (a proxy takes both)",
    names="Machine.add",
    way_out="a proxy takes both",
)
def both_ways_by_name(place: Place) -> Any:
    return place.connection.call("Machine.add", 2, b=3)


@mistake(
    "answered",
    seqrpc.InvalidParams,
    "rpc.InvalidParams: Machine.add: Expected `int`, got `str` - at `a`",
    names="at `a`",
    way_out="Expected `int`",
)
def wrong_type(place: Place) -> Any:
    return place.machine.add("2")


@mistake(
    "awaited",
    seqrpc.LocalProtocolError,
    "cannot send params[0]: a value of type Plain cannot be sent; make it a dataclass, or send its parts",
    names="params[0]",
    way_out="make it a dataclass, or send its parts",
)
def what_cannot_be_sent(place: Place) -> Any:
    return place.connection.call("Machine.add", Plain())


@mistake(
    "awaited",
    ValueError,
    "Machine.size: cannot send params[0]: the descriptor is closed; lend it open, until Machine.size returns",
    names="params[0]",
    way_out="lend it open",
)
def closed_descriptor(place: Place) -> Any:
    with seqrpc.OwnedFd.dup(0) as fd:
        pass
    return place.machine.size(fd)


@mistake(
    "awaited",
    ValueError,
    "Machine.brightest: cannot send params[0]: the buffer is closed; lend it open, until Machine.brightest returns",
    names="params[0]",
    way_out="lend it open",
)
def closed_buffer(place: Place) -> Any:
    with seqrpc.Buffer.copy_of(b"pixels") as pixels:
        pass
    return place.machine.brightest(pixels)


@mistake(
    "called",
    TypeError,
    "<Stream unopened> is read by 'async for', not by 'for'",
    names="<Stream",
    way_out="'async for'",
)
def for_without_async(place: Place) -> None:
    for _number in place.machine.count(3):
        pass


@mistake(
    "called",
    TypeError,
    "seqrpc.timeout(5) is entered by 'async with', not by 'with'",
    names="seqrpc.timeout(5)",
    way_out="'async with'",
)
def timeout_without_async(_place: Place) -> None:
    bounded: Any = seqrpc.timeout(5)
    with bounded:
        pass


@mistake(
    "awaited",
    TypeError,
    "seqrpc.metadata(...) is entered by 'with', not by 'async with'",
    names="seqrpc.metadata",
    way_out="by 'with'",
)
async def metadata_with_async(_place: Place) -> None:
    entries: Any = seqrpc.metadata(trace="1")
    async with entries:
        pass


@mistake(
    "called",
    LookupError,
    "current_call() works inside a handler only: take there what is needed elsewhere, and pass it on",
    names="current_call()",
    way_out="pass it on",
)
def current_call_elsewhere(_place: Place) -> Any:
    return seqrpc.current_call()


@mistake(
    "awaited",
    seqrpc.ConnectionLost,
    "the connection was closed on this side: use it within its 'async with', or connect again",
    names="the connection",
    way_out="use it within its 'async with'",
)
async def after_the_block(place: Place) -> None:
    await place.connection.close()
    await place.machine.add(2, 3)


@mistake(
    "awaited",
    seqrpc.WrongLoop,
    "this connection belongs to another event loop: use asyncio.run_coroutine_threadsafe(..., loop) with that one,"
    " or seqrpc.current_call().run(...) in a handler that is a plain function",
    names="this connection",
    way_out="asyncio.run_coroutine_threadsafe",
)
async def on_another_loop(place: Place) -> None:
    machine = place.machine
    await asyncio.to_thread(lambda: asyncio.run(machine.add(2, 3)))


@mistake(
    "awaited",
    TypeError,
    "an object is revoked by its owner, and this is a MachineProxy: write 'await proxy.close()' to let go of it",
    names="a MachineProxy",
    way_out="write 'await proxy.close()'",
)
def revoked_by_the_holder(place: Place) -> Any:
    return seqrpc.revoke(place.machine)


@mistake(
    "awaited",
    TypeError,
    "an object of a seqrpc.Service was expected, got 5, and int is none",
    names="got 5",
    way_out="an object of a seqrpc.Service",
)
def number_revoked(_place: Place) -> Any:
    number: Any = 5
    return seqrpc.revoke(number)


@mistake(
    "awaited",
    TypeError,
    "an object of Machine was expected, got the class: write Machine()",
    names="Machine",
    way_out="write Machine()",
)
def class_revoked(_place: Place) -> Any:
    cls: Any = Machine
    return seqrpc.revoke(cls)


@mistake(
    "answered",
    seqrpc.PermissionDenied,
    "rpc.PermissionDenied: Machine.lock: this caller is not admitted",
    names="Machine.lock",
    way_out="not admitted",
)
def not_admitted(place: Place) -> Any:
    return place.machine.lock()


@mistake(
    "given",
    TypeError,
    "reconnect= takes an object of seqrpc.Reconnect, got the class: write seqrpc.Reconnect()",
    names="reconnect=",
    way_out="write seqrpc.Reconnect()",
)
def class_of_reconnecting(place: Place) -> Any:
    cls: Any = seqrpc.Reconnect
    return seqrpc.connect(place.other_path, reconnect=cls)


@mistake(
    "given",
    ValueError,
    "Reconnect.ready_timeout is more than 0 and at most 2592000.0 seconds, got 0: None waits for ever,"
    " wait_for_ready=False not at all",
    names="Reconnect.ready_timeout",
    way_out="wait_for_ready=False not at all",
)
def no_time_to_wait(_place: Place) -> Any:
    return seqrpc.Reconnect(ready_timeout=0)
