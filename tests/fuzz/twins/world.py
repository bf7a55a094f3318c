"""One case, run on one twin: connections with a raw end, clients and a server, driven step by step into a diary.

Everything is in one process and on one loop, so that a step has the same effects in the same order whenever it is run:
the raw ends are plain sockets that are written and read between turns of the loop, and after each step the loop turns
until nothing happens any more.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import os
import socket
import struct
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

from fuzz.twins import services
from fuzz.twins.clock import run_job
from fuzz.twins.ends import (
    Peer,
    as_another,
    close_owned,
    close_received,
    owned,
    queued,
    shut,
    some_descriptors,
    state_of,
    told_packet,
)  # fmt: skip
from fuzz.twins.told import steady, told

import seqrpc
from seqrpc import Interceptor, Limits, policy
from seqrpc.aio.connection import link_of
from seqrpc.aio.link import Link
from seqrpc.aio.server import hub_of
from seqrpc.interface.builtin import everybody
from seqrpc.interface.service import RemoteService
from seqrpc.kernel import memfd
from seqrpc.kernel.closing import CLOSER

QUIET_TURNS = 6
"""Turns of the loop in which nothing happens, after which a step is over."""

_MOST_TURNS = 3000
_PATIENCE = 20.0

_POLICIES = {
    "default": None, "anyone": policy.anyone, "everybody": everybody, "nobody": ~policy.anyone,
    "root": policy.root, "same_user": policy.same_user, "other": policy.uid(4711) | policy.same_user,
}  # fmt: skip


class Sub(str):
    """A text that is none exactly."""

    __slots__ = ()


_NAMES: dict[str, Any] = {
    "nan": float("nan"), "inf": float("inf"), "Point": services.Point, "Level": services.Level, "Whole": services.Whole,
    "Sub": Sub, "object": object, "larger": services.larger, "smaller": services.smaller,
}  # fmt: skip


class _Watcher(Interceptor):
    """Notes what interceptors are told."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    async def handle(self, call: Any, proceed: Any) -> Any:
        self._world.note(self._name, "handle", call.method, services.VAR.get())
        services.VAR.set(self._name)
        try:
            result = await proceed()
        except BaseException as exc:
            self._world.note(self._name, "handled", told(exc))
            raise
        self._world.note(self._name, "handled", told(result))
        return result

    async def request(self, call: Any, proceed: Any) -> Any:
        self._world.note(self._name, "request", told(call))
        return await proceed()


class _Ended(Interceptor):
    """Notes how requests end."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ended(self, record: Any) -> None:
        caller = told(record.caller)
        self._world.note("ended", record.method, caller, record.code, record.oneway, told(dict(record.meta)))


class World:
    """A case, as it is run."""

    def __init__(self, script: dict[str, Any], directory: Path) -> None:
        self.script = script
        self.diary: list[list[Any]] = []
        self.kept: list[Any] = []
        self.server: Any = None
        self._path = directory / "s"
        self._raw_path = directory / "r"
        self._listener: socket.socket | None = None
        self._old: list[Any] = []  # servers that stopped, or do
        self._gates: dict[int, asyncio.Event] = {}
        self._peers = [Peer(f"{number}{kind}", kind) for number, kind in enumerate(script["peers"])]
        self._tasks: list[asyncio.Task[Any]] = []
        self._timed: list[asyncio.Task[Any]] = []  # those that wait for time to go on, at most
        self._limits = Limits(**script["limits"])
        self._changes = 0
        self._can_be_others = os.geteuid() == 0

    # What services tell

    def note(self, *what: Any) -> None:
        """Write something into the diary."""
        self._changes += 1
        self.diary.append(list(what))

    def gate(self, number: int) -> asyncio.Event:
        """Return what a later step opens."""
        gate = self._gates.get(number)
        if gate is None:
            gate = self._gates[number] = asyncio.Event()
        return gate

    def name_of(self, link: Link) -> str:
        """Return which connection a link is of."""
        for peer in self._peers:
            if peer.link is link:
                return peer.name
            if peer.client is not None and link_of(peer.client) is link:
                return f"{peer.name} client"
        return "a connection"

    # Opening

    def _options(self) -> dict[str, Any]:
        allow = _POLICIES[self.script["allow"]]
        watchers: list[Interceptor] = [_Watcher(self, f"i{number}") for number in range(self.script["interceptors"])]
        if self.script["ended"]:
            watchers.append(_Ended(self))
        return {"limits": self._limits, "interceptors": watchers, **({} if allow is None else {"allow": allow})}

    async def _serve(self) -> Any:
        if self.server is not None and hub_of(self.server)._draining:
            self._old.append(self.server)
            self.server = None
        if self.server is None:
            senders, descriptors = self.script["senders"], self.script["descriptors"]
            self.server = await seqrpc.serve(
                services.services(self), self._path, mode=0o666, pass_credentials=senders,
                accept_descriptors=descriptors, **self._options()
            )  # fmt: skip
        return self.server

    def _raw_socket(self, end: socket.socket) -> socket.socket:
        end.setblocking(False)
        room = self.script["room"]
        if room:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        return end

    async def open(self, peer: Peer) -> None:
        """Connect it, if it is not, or not any more."""
        try:
            await self._open(peer)
        except (OSError, seqrpc.SeqrpcError) as exc:
            self.note(peer.name, "cannot be opened", type(exc).__name__, steady(str(exc)))
            self._shut(peer)

    async def _open(self, peer: Peer) -> None:
        if not (peer.raw is None and peer.client is None) and not peer.over:
            return
        self._shut(peer)
        peer.deaf = peer.over = False
        peer.asked.clear()
        peer.seen = None
        if peer.kind in ("R", "O"):
            server = await self._serve()
            before = set(hub_of(server).dispatchers)
            peer.raw = self._raw_socket(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            with as_another(self._can_be_others and peer.kind == "O"):
                peer.raw.connect(os.fspath(self._path))
            await self.quiet()
            peer.link = next(iter(set(hub_of(server).dispatchers) - before), None)
        elif peer.kind == "P":
            ours, theirs = seqrpc.socket_pair()
            peer.raw = self._raw_socket(theirs)
            peer.server = await seqrpc.serve(services.services(self), sock=ours, **self._options())
            peer.link = next(iter(hub_of(peer.server).dispatchers), None)
        elif peer.kind == "C":
            ours, theirs = seqrpc.socket_pair()
            peer.raw = self._raw_socket(theirs)
            peer.client = await seqrpc.connect(sock=ours, services=services.services(self), **self._options())
        elif peer.kind == "L":
            if self._listener is None:
                self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._listener.bind(os.fspath(self._raw_path))
                self._listener.listen(8)
            peer.client = await seqrpc.connect(self._raw_path, services=services.services(self), **self._options())
            peer.raw = self._raw_socket(self._listener.accept()[0])
        else:
            server = await self._serve()
            before = set(hub_of(server).dispatchers)
            peer.client = await seqrpc.connect(self._path, services=services.services(self), **self._options())
            await self.quiet()
            peer.link = next(iter(set(hub_of(server).dispatchers) - before), None)
        if self.script["room"] and peer.client is not None:
            sock = link_of(peer.client).transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.script["room"])
        elif self.script["room"] and peer.link is not None:
            sock = peer.link.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.script["room"])
        self.note(peer.name, "open")

    def _shut(self, peer: Peer) -> None:
        """Let go of what is left of a connection that has ended."""
        if peer.raw is not None:
            peer.raw.close()
        for left in (peer.client, peer.server):
            if left is not None:
                self._start(left.close(), f"{peer.name} closes", timed=True)
        peer.raw = peer.client = peer.server = peer.link = None

    # Steps

    async def run(self) -> None:
        """Run the steps, and end everything."""
        services.VAR.set("the program's")
        for number, step in enumerate(self.script["steps"]):
            self.note("step", number)
            for op in step["do"]:
                if op[0] in ("send", "spill", "call", "notify", "watch"):
                    await self.open(self._peers[op[1]])
            for op in step["do"]:
                self._do(*op)
            turns = step.get("turns")
            if turns is None:
                await self.quiet()
                self._look()
            else:
                for _ in range(turns):
                    await asyncio.sleep(0)
        if not self.script.get("ends"):
            await self._end()
        self.note("over")
        self._forget()

    def _do(self, name: str, *args: Any) -> None:
        try:
            getattr(self, f"_do_{name}")(*args)
        except (OSError, seqrpc.SeqrpcError, RuntimeError) as exc:
            self.note(name, "failed", type(exc).__name__, steady(str(exc)))

    def _do_send(self, number: int, packets: list[list[Any]], sender: int | None = None) -> None:
        peer = self._peers[number]
        if peer.raw is None:
            return
        for packet in packets:
            data = bytes.fromhex(packet[0])
            if len(packet) > 2:
                data += peer.answered(packet[2], packet[4]) + bytes.fromhex(packet[3])
            with some_descriptors(packet[1]) as numbers:
                control: list[tuple[int, int, Any]] = []
                if numbers:
                    control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers)))
                if sender is not None and self._can_be_others:
                    control.append(
                        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", os.getpid(), sender, sender))
                    )
                try:
                    peer.raw.sendmsg([data], control, socket.MSG_NOSIGNAL | socket.MSG_EOR)
                except OSError as exc:
                    self.note(peer.name, "not sent", exc.errno)
                    break

    def _do_spill(self, number: int, hexed: str, length: int, call_id: int | None, how: str) -> None:
        peer = self._peers[number]
        if peer.raw is None:
            return
        data = bytes.fromhex(hexed)
        data += b"\xc0" * max(0, length - len(data)) if how == "padded" else b""
        head = b"\x92\x04" if call_id is None else b"\x93\x04"
        packet = (
            head + struct.pack(">BI", 0xCE, len(data)) + (b"" if call_id is None else struct.pack(">BI", 0xCE, call_id))
        )
        file = memfd.create("twins") if how == "unsealed" else memfd.sealed("twins", data)
        try:
            if how != "lost":
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
                peer.raw.sendmsg([packet], control, socket.MSG_NOSIGNAL)
            else:
                peer.raw.send(packet, socket.MSG_NOSIGNAL)
        except OSError as exc:
            self.note(peer.name, "not sent", exc.errno)
        finally:
            file.close()

    def _do_call(self, number: int, method: str, args: str, how: dict[str, Any]) -> None:
        peer = self._peers[number]
        if peer.client is None:
            return
        seconds = how.get("seconds")
        timed = seconds is not None and seconds < 1
        task = self._start(self._call(peer, method, args, how), f"{peer.name} {method}", timed=timed)
        peer.calls.append(task)

    async def _call(self, peer: Peer, method: str, text: str, how: dict[str, Any]) -> Any:
        given = eval(
            f"dict(all=lambda *args, **kwargs: (args, kwargs))['all']({text})", {**_NAMES, "fd": owned, "shut": shut}
        )
        args, kwargs = given
        services.VAR.set(f"caller of {method}")
        service, _dot, short = method.rpartition(".")
        client = peer.client
        cls = getattr(services, service, None)
        if how.get("proxy") and cls is not None and hasattr(cls, short):
            calling: Any = getattr(client.proxy(cls), short)(*args, **kwargs)
        elif how.get("notify"):
            calling = client.notify(method, *args, **kwargs)
        else:
            calling = client.call(method, *args, **kwargs)
        try:
            with contextlib.ExitStack() as stack:
                if how.get("meta"):
                    stack.enter_context(seqrpc.metadata(**how["meta"]))
                if how.get("seconds") is not None:
                    async with seqrpc.timeout(how["seconds"]):
                        return await self._taken(calling)
                return await self._taken(calling)
        finally:
            self.note(peer.name, "sees", services.VAR.get())
            close_owned((args, kwargs))

    async def _taken(self, calling: Any) -> Any:
        result = calling if hasattr(calling, "__aiter__") else await calling
        if hasattr(result, "__aiter__"):
            async with result:
                return [item async for item in result]
        if isinstance(result, seqrpc.Channel | RemoteService):
            return await self._used(result)
        seen = told(result)
        close_owned(result)
        return seen

    async def _used(self, given: Any) -> Any:
        """Call an object that was given away, and let go of it."""
        proxy = given.proxy(services.Counter) if isinstance(given, seqrpc.Channel) else given
        seen: list[Any] = [type(given).__name__, await proxy.add(1)]
        try:
            await proxy.fail()
        except seqrpc.RpcError as exc:
            seen.append(told(exc))
        seen += await asyncio.gather(proxy.add(2), proxy.add(3))
        await given.close()
        return seen

    def _do_notify(self, number: int, method: str, args: str) -> None:
        self._do_call(number, method, args, {"notify": True})

    def _do_watch(self, number: int, methods: str) -> None:
        self._do_call(number, "rpc.monitor", methods, {"seconds": 60})

    def _do_cancel(self, number: int, which: int) -> None:
        calls = [task for task in self._peers[number].calls if not task.done()]
        if calls:
            calls[which % len(calls)].cancel("by the script")

    def _do_gate(self, number: int) -> None:
        gate = self._gates.pop(number, None)
        if gate is not None:
            gate.set()

    def _do_deaf(self, number: int) -> None:
        self._peers[number].deaf = True

    def _do_hear(self, number: int) -> None:
        self._peers[number].deaf = False

    def _do_close(self, number: int) -> None:
        peer = self._peers[number]
        if peer.raw is not None:
            peer.raw.close()
            peer.over = True
        elif peer.client is not None:
            self._start(peer.client.close(), f"{peer.name} closes", timed=True)
            peer.over = True

    def _do_aclose(self, number: int) -> None:
        peer = self._peers[number]
        if peer.client is not None:
            self._start(peer.client.close(), f"{peer.name} closes", timed=True)

    def _do_pass(self, number: int) -> None:
        """Have the server give a connection away, and take it in again."""
        peer = self._peers[number]
        if self.server is None or peer.link is None or peer.kind not in "ROB" or peer.link.closed:
            return
        hub = hub_of(self.server)
        sock = hub.give_away(peer.link)
        self.note(peer.name, "passed", sock is not None)
        if sock is not None:
            peer.link = hub.adopt(sock)

    def _do_half(self, number: int) -> None:
        peer = self._peers[number]
        if peer.raw is not None and not peer.over:
            peer.raw.shutdown(socket.SHUT_WR)

    def _do_gc(self) -> None:
        gc.collect()

    def _do_end(self, how: str) -> None:
        server = self.server
        if server is None:
            return
        if how == "refuse":
            server.refuse_new()
            return
        self._start(server.drain(0.05) if how == "drain" else server.close(), f"server {how}", timed=True)

    def _do_stats(self) -> None:
        if self.server is not None:
            self._note_stats(self.server)

    def _do_doze(self, seconds: float) -> None:
        self._start(asyncio.sleep(seconds), "doze", timed=True)

    def time(self, task: asyncio.Task[Any]) -> None:
        """Let time go on until a task is done."""
        self._timed.append(task)
        self._tasks.append(task)

    def _start(self, work: Awaitable[Any], name: str, *, timed: bool = False) -> asyncio.Task[Any]:
        async def noted() -> Any:
            try:
                result = await work
            except BaseException as exc:
                self.note(name, "raised", told(exc))
                if isinstance(exc, asyncio.CancelledError):
                    raise
                return None
            self.note(name, "returned", result if isinstance(result, str) else told(result))
            return None

        self._changes += 1
        task = asyncio.get_running_loop().create_task(noted(), name=name)
        self._tasks.append(task)
        if timed:
            self._timed.append(task)
        return task

    # Quiet

    async def quiet(self, *, wholly: bool = False) -> None:
        """Let the loop turn until nothing happens any more, and time go on for what waits for nothing else.

        Args:
            wholly: let time go on for everything that may happen soon.
        """
        loop, quiet, last = asyncio.get_running_loop(), 0, None
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            CLOSER.wait_idle(_PATIENCE)  # threads that close sockets
            for peer in self._peers:
                self._hear(peer)
            state = (self._changes, [queued(peer) for peer in self._peers])
            quiet = 0 if state != last else quiet + 1
            last = state
            if quiet < QUIET_TURNS:
                continue
            if run_job() or ((wholly or self._is_timed()) and loop.advance()):  # type: ignore[attr-defined]
                quiet = 0
                continue
            return
        self.note("it never became quiet")

    def _is_timed(self) -> bool:
        """Return whether something waits for time to go on."""
        self._timed = [task for task in self._timed if not task.done()]
        return bool(self._timed)

    def _hear(self, peer: Peer) -> None:
        """Read what a raw end was sent."""
        if peer.raw is None or peer.deaf or peer.over:
            return
        while True:
            try:
                data, control, flags, _address = peer.raw.recvmsg(65_536, 8192, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError as exc:
                self.note(peer.name, "broke", exc.errno)
                if exc.errno != 104:  # after ECONNRESET come the packets that were sent before
                    peer.over = True
                    return
                continue
            came = close_received(control)
            if not data:
                self.note(peer.name, "ended")
                peer.over = True
                return
            peer.asks(data)
            self.note(peer.name, "receives", told_packet(data), came, flags & ~(socket.MSG_EOR | 0x40000000))

    # Looks

    def _look(self) -> None:
        """Write down the state of each connection, if it is another than before."""
        for peer in self._peers:
            seen = [state_of(link) for link in self._links(peer)]
            if seen != peer.seen:
                peer.seen = seen
                self.diary.append([peer.name, "state", seen])

    def _links(self, peer: Peer) -> Iterator[Link]:
        if peer.client is not None:
            yield link_of(peer.client)
        if peer.link is not None:
            yield peer.link

    def _note_stats(self, server: Any) -> None:
        stats = server.stats()
        methods = {
            name: [each.calls, each.refused, each.errors, sum(each.latency), each.stream_errors]
            for name, each in stats.methods.items()
            if each.calls
        }
        others = [stats.others.calls, stats.others.refused, stats.others.errors]
        self.note(
            "stats", methods, others, stats.refusals, stats.connections_malformed, stats.connections_open,
            stats.calls_in_flight, stats.unsent_bytes, stats.unsent_packets, stats.streams, stats.accounts,
            [[each.calls_in_flight, [call.method for call in each.calls]] for each in stats.connections],
        )  # fmt: skip

    # The end

    async def _end(self) -> None:
        for peer in self._peers:
            peer.deaf = False
        if self.server is not None:
            self._do_stats()
        for gate in self._gates.values():
            gate.set()
        await self.quiet()
        self._look()
        self.kept.clear()
        for peer in self._peers:
            self._shut(peer)
        await self.quiet()
        for server in [*self._old, *filter(None, [self.server])]:
            self._start(server.close(), "server close", timed=True)
        await self.quiet(wholly=True)
        for task in self._tasks:
            if not task.done():
                self.note("never ended", task.get_name())
        await self.quiet()
        left = sorted(steady(task.get_name()) for task in asyncio.all_tasks() - {asyncio.current_task()})
        self.note("tasks left", left)

    def _forget(self) -> None:
        """Keep nothing: whatever is still open is dropped."""
        if self._listener is not None:
            self._listener.close()
            self._raw_path.unlink()
        for peer in self._peers:
            if peer.raw is not None:
                peer.raw.close()
        self.server = None
        self._old.clear()
        self._peers.clear()
        self._tasks.clear()
        self._timed.clear()
        self.kept.clear()
        self._gates.clear()
