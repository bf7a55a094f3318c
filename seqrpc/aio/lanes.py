"""The native lanes of connections, where there is something native (native/lane.c)."""

from __future__ import annotations

import asyncio
import socket
import sys
from _socket import SocketType
from asyncio import Future, Task, _get_running_loop, tasks
from types import FunctionType
from typing import Any, cast

from seqrpc import twin
from seqrpc.aio.accounts import CALLS, Account
from seqrpc.aio.caller import expire
from seqrpc.aio.carrier import Carrier
from seqrpc.aio.current import HandledCall
from seqrpc.aio.intake import LONE_WAKEUPS, Intake
from seqrpc.aio.lane import Lane
from seqrpc.aio.link import Link
from seqrpc.aio.running import NO_PARAMS, RunningCalls
from seqrpc.aio.shares import Share
from seqrpc.aio.starting import Starter, begins_at_once
from seqrpc.aio.transport import carrier_of
from seqrpc.aio.turns import Turns
from seqrpc.interface.alarms import alarms_of
from seqrpc.interface.entries import Entry
from seqrpc.interface.results import ResultCheck
from seqrpc.interface.scope import Scope, scope
from seqrpc.interface.timeouts import cancel_task
from seqrpc.kernel import forks
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import NOWHERE, OwnedFd, ValueSocket, close_all
from seqrpc.kernel.kinds import SMALL_BLOCKS
from seqrpc.limits import LONGEST_TIMER
from seqrpc.protocol.inbox import Inbox
from seqrpc.protocol.messages import NO_OPTIONS, Options, Request, Response
from seqrpc.protocol.session import Session
from seqrpc.text import shown

_SOCKETS = (socket.socket, ValueSocket)
"""The classes whose objects are sent and received on without asking them. Others may do as they like, as in tests."""

_NOTHING = cast("Any", None)

_MAKES_FUTURE = asyncio.BaseEventLoop.create_future


def use_dispatcher(kind: type) -> None:
    """Tell the native lanes what they work with; ``kind`` is the class whose objects answer requests.

    If they cannot work with it, because something keeps its fields otherwise than they know, they are left out.
    """
    if twin.native is None:
        return
    classes = (
        Account, Carrier, Entry, HandledCall, Inbox, Intake, Link, Options, OwnedFd, Request, Response,
        ResultCheck, RunningCalls, Scope, Session, Share, Starter, Turns,
    )  # fmt: skip
    objects = {each.__name__: each for each in classes} | {
        "Dispatcher": kind,
        "Future": Future,
        "Task": Task,
        "Socket": SocketType,
        "alarms_of": alarms_of,
        "begins_tasks": begins_at_once(),
        # Copied, and then filled in, which is quicker than to make one. A list makes the garbage collector know it.
        "blank_call": HandledCall(request=_NOTHING, caller=_NOTHING, connection=None, dispatcher=_NOTHING, entry=[]),
        "blank_scope": Scope(None, None, cast("Any", [])),
        "blank_request": Request(0, "", [], NO_OPTIONS, [], 0, is_plain=True),
        "blank_response": Response(0, None, None, []),
        "calls_kind": CALLS,
        "cancel_task": cancel_task,
        "close_all": close_all,
        "closer": CLOSER,
        "current_task": tasks.current_task,
        "current_tasks": getattr(tasks, "_current_tasks", None),  # to be looked at on 3.11
        "expire": expire,
        "forks": forks,
        "longest_timer": float(LONGEST_TIMER),
        "lone_wakeups": LONE_WAKEUPS,
        "no_params": NO_PARAMS,
        "nowhere": NOWHERE,
        "running_loop": _get_running_loop,
        "scope": scope,
        "small_blocks": SMALL_BLOCKS,
    }
    try:
        twin.native.bind(objects)
    except Exception as exc:  # whatever is amiss, Python can do without it
        twin.leave_out(shown(f"seqrpc._native cannot be used: {type(exc).__name__}: {exc}"))


def _makes_plain_futures(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether what a loop makes as a future is an asyncio.Future, and nothing else happens."""
    maker = type(loop).create_future
    of_uvloop = getattr(getattr(sys.modules.get("uvloop"), "Loop", None), "create_future", None)
    is_of_uvloop = maker is of_uvloop and not isinstance(maker, FunctionType)  # nothing else was put into its place
    is_known = maker is _MAKES_FUTURE or is_of_uvloop
    return is_known and "create_future" not in getattr(loop, "__dict__", {})


def new_lane(link: Link) -> Lane | None:
    """Return the lane of a connection that has been made; None if there is nothing native, or it is no plain one."""
    sock = link.transport.get_extra_info("socket")
    if twin.native is None or type(link) is not Link or type(sock) not in _SOCKETS:
        return None
    carrier = carrier_of(link.transport)
    lane: Lane = twin.native.Lane(link, carrier, _makes_plain_futures(link.loop))
    carrier.intake.use_lane(lane)
    return lane
