"""The floors of the house: a module imports only from its own floor's earlier modules and the floors below."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import seqrpc

PACKAGE = Path(seqrpc.__file__).parent

ORDER = (
    # what all floors stand on
    "text",
    "errors",
    "limits",
    "logs",
    "twin",
    # what the operating system gives
    "kernel",
    "kernel.forks",
    "kernel.kinds",
    "kernel.closing",
    "kernel.interrupts",
    "kernel.descriptors",
    "kernel.credentials",
    "kernel.linux",
    "kernel.freebsd",
    "kernel.platforms",
    "kernel.ancillary",
    "kernel.unread",
    "kernel.addresses",
    "kernel.systemd",
    "kernel.sockets",
    "kernel.listening",
    "kernel.memory",
    "kernel.pieces",
    "kernel.memfd",
    "kernel.buffers",
    "kernel.privileges",
    "kernel.processes",
    "kernel.handover",
    # the wire, without sockets, clocks and loops
    "protocol",
    "protocol.kinds",
    "protocol.codings",
    "protocol.values",
    "protocol.depth",
    "protocol.maps",
    "protocol.longbytes",
    "protocol.culprit",
    "protocol.closed",
    "protocol.flattening",
    "protocol.moments",
    "protocol.lenders",
    "protocol.references",
    "protocol.encoded",
    "protocol.encoder",
    "protocol.decoder",
    "protocol.messages",
    "protocol.heads",
    "protocol.spilled",
    "protocol.items",
    "protocol.admission",
    "protocol.session",
    "protocol.received",
    "protocol.inbox",
    "protocol.outbox",
    # what a service is, without running it
    "interface",
    "interface.predicates",
    "interface.policy",
    "interface.scope",
    "interface.alarms",
    "interface.timeouts",
    "interface.current",
    "interface.functions",
    "interface.service",
    "interface.streams",
    "interface.shapes",
    "interface.contents",
    "interface.wires",
    "interface.spellings",
    "interface.excuses",
    "interface.hints",
    "interface.fields",
    "interface.flags",
    "interface.names",
    "interface.annotations",
    "interface.registering",
    "interface.exhaustion",
    "interface.collisions",
    "interface.sets",
    "interface.standins",
    "interface.planning",
    "interface.byclass",
    "interface.methods",
    "interface.description",
    "interface.arguments",
    "interface.conversion",
    "interface.glances",
    "interface.results",
    "interface.answers",
    "interface.fitting",
    "interface.signature",
    "interface.lending",
    "interface.services",
    "interface.proxies",
    "interface.reconnecting",
    "interface.builtin",
    "interface.defaults",
    "interface.components",
    "interface.schemas",
    "interface.openrpc",
    "interface.offers",
    "interface.tallies",
    "interface.stats",
    "interface.monitor",
    "interface.discovery",
    "interface.entries",
    # what a service says of itself, read at the other side
    "documents.trees",
    "documents.raw",
    "documents.notes",
    "documents.schemas",
    "documents.spellings",
    "documents.model",
    "documents.parts",
    "documents.markup",
    "documents.prose",
    "documents.hypertext",
    "documents.recipes",
    "documents.entries",
    "documents.page",
    "documents.identifiers",
    "documents.layout",
    "documents.walks",
    "documents.ways",
    "documents.fits",
    "documents.typechanges",
    "documents.changes",
    "documents.vocabulary",
    "documents.values",
    "documents.classes",
    "documents.clients",
    "documents.stubs",
    "documents",
    # what holds for calls, with an event loop and without
    "calls",
    "calls.failures",
    "calls.outcomes",
    "calls.sending",
    "calls.records",
    "calls.departures",
    "calls.unclosed",
    "calls.workers",
    "calls.plans",
    # the event loop's side: packets on it
    "aio",
    "aio.blocks",
    "aio.stalls",
    "aio.turns",
    "aio.places",
    "aio.gate",
    "aio.shares",
    "aio.polling",
    "aio.packets",
    "aio.outlet",
    "aio.lane",
    "aio.intake",
    "aio.carrier",
    "aio.transport",
    "aio.listener",
    "aio.endpoints",
    # what callers hold
    "aio.threads",
    "aio.plain",
    "aio.accounts",
    "aio.inflight",
    # calls over it, and answers
    "aio.calls",
    "aio.caller",
    "aio.answers",
    "aio.link",
    "aio.pinned",
    "aio.readers",
    "aio.streams",
    "aio.starting",
    "aio.producers",
    "aio.departures",
    # whom to call
    "aio.proxy",
    "aio.remote",
    "aio.connection",
    # services that are called
    "aio.current",
    "aio.interceptors",
    "aio.registry",
    "aio.running",
    "aio.handlers",
    "aio.lanes",
    "aio.dispatch",
    "aio.outgoing",
    "aio.interception",
    # what others hold
    "aio.held",
    "aio.channels",
    "aio.objects",
    "aio.living",
    # the two ends
    "aio.opening",
    "aio.lifespans",
    "aio.lastreads",
    "aio.stats",
    "aio.watching",
    "aio.hub",
    "aio.conversation",
    "aio.passing",
    "aio.succession",
    "aio.server",
    "aio.watchdog",
    "aio.idleness",
    "aio.run",
    "aio.brought",
    "aio.lobby",
    "aio.renewal",
    "aio.enduring",
    "aio.client",
    # the same without an event loop
    "blocking.blocks",
    "blocking.kept",
    "blocking.waiting",
    "blocking.family",
    "blocking.outlet",
    "blocking.reading",
    "blocking.turns",
    "blocking.room",
    "blocking.sending",
    "blocking.line",
    "blocking.pinned",
    "blocking.timeouts",
    "blocking.marks",
    "blocking.driving",
    "blocking.producers",
    "blocking.readers",
    "blocking.streams",
    "blocking.proxy",
    "blocking.remote",
    "blocking.caller",
    "blocking.watch",
    "blocking.reconnecting",
    "blocking.connection",
    "blocking.current",
    "blocking.interceptors",
    "blocking.interception",
    "blocking.answers",
    "blocking.dispatch",
    "blocking.channels",
    "blocking.objects",
    "blocking.living",
    "blocking.client",
    "blocking.worker",
    "blocking",
    # children on socket pairs
    "workers",
    "workers.output",
    "workers.children",
    "workers.worker",
    "workers.hall",
    "workers.staff",
    "workers.mapping",
    "workers.pool",
    "workers.child",
    "workers.launcher",
    "workers.plain",
    "workers.functions",
    "workers.executor",
    # for those who run daemons
    "oversight.prometheus",
    "oversight.textfile",
    "oversight.accesslog",
    "oversight.slowlog",
    "oversight.telemetry",
    "oversight",
    # the tests of those who use it
    "testing.callers",
    "testing.admission",
    "testing.fits",
    "testing.leaks",
    "testing.sockets",
    "testing.pretending",
    "testing.faults",
    "testing.relays",
    "testing.ways",
    "testing.pairs",
    "testing.memory",
    "testing.threads",
    "testing.fixtures",
    "testing.plugin",
    "testing",
    # the command line
    "cli",
    "cli.program",
    "cli.versions",
    "cli.endings",
    "cli.alarms",
    "cli.options",
    "cli.outputs",
    "cli.saving",
    "cli.screen",
    "cli.clock",
    "cli.identity",
    "cli.frames",
    "cli.room",
    "cli.packets",
    "cli.tunnel",
    "cli.ssh",
    "cli.places",
    "cli.learning",
    "cli.faults",
    "cli.importing",
    "cli.sources",
    "cli.apart",
    "cli.whereabouts",
    "cli.listeners",
    "cli.offers",
    "cli.completers",
    "cli.asking",
    "cli.listing",
    "cli.readings",
    "cli.rates",
    "cli.looks",
    "cli.figures",
    "cli.dashboard",
    "cli.window",
    "cli.live",
    "cli.top",
    "cli.definitions",
    "cli.everywhere",
    "cli.describe",
    "cli.values",
    "cli.feeding",
    "cli.words",
    "cli.progress",
    "cli.recipient",
    "cli.results",
    "cli.failures",
    "cli.events",
    "cli.monitor",
    "cli.conversation",
    "cli.keyboard",
    "cli.shell",
    "cli.call",
    "cli.histogram",
    "cli.bars",
    "cli.outcomes",
    "cli.gauge",
    "cli.pacing",
    "cli.repeating",
    "cli.reaching",
    "cli.measuring",
    "cli.benchreport",
    "cli.bench",
    "cli.stub",
    "cli.diff",
    "cli.reloading",
    "cli.serve",
    "cli.docs",
    "cli.relay",
    "cli.completion",
    "cli.commands",
    "cli.main",
    "__main__",
    # the face
    "",
)
"""Every module, from the ground up; the package itself, with the public names, is on top."""

ONLY_HERE = {
    "msgpack": {
        "protocol.decoder",
        "protocol.depth",
        "protocol.encoder",
        "protocol.flattening",
        "protocol.moments",
        "protocol.heads",
        "protocol.maps",
        "protocol.session",
    },
    "uvloop": {"aio.run", "testing.leaks", "workers.child", "workers.executor", "cli.reaching"},
    "asyncio": {name for name in ORDER if name.partition(".")[0] in ("aio", "workers", "oversight", "testing")}
    | {"interface.methods", "cli.pacing", "cli.reaching", "cli.measuring"},
    "click": {name for name in ORDER if name.startswith("cli.")},
    "rich": {"cli.dashboard", "cli.gauge", "cli.live"},
}
"""Modules that only some of ours may import."""

NOT_HERE = {
    "protocol": {"asyncio", "select", "selectors", "socket", "time"},
    "interface": {"asyncio", "msgpack", "selectors", "socket", "threading"},
    "documents": {"asyncio", "click", "msgpack", "rich", "selectors", "socket", "threading"},
    "blocking": {"asyncio", "concurrent.futures", "uvloop"},
    "calls": {"asyncio", "select", "selectors", "threading"},
    "cli": {"asyncio", "msgpack", "uvloop"},
}
"""Modules that a whole floor does without: it does not run, wait or send."""

EXCEPT = {
    "interface.methods": {"asyncio"},
    "cli.pacing": {"asyncio"},
    "cli.reaching": {"asyncio", "uvloop"},
    "cli.measuring": {"asyncio"},
}
"""What a module has all the same: a plain function that is awaited on the object itself runs in a thread; and calls
that are measured are tasks, for threads would wait for each other and not for the other side. ``bench`` loads these
modules when it runs."""

CALLED_ONLY_HERE = {
    "sendmsg": {"kernel.ancillary", "testing.sockets"},
    "recvmsg": {"kernel.ancillary", "testing.sockets"},
    "recvmsg_into": {"kernel.ancillary", "testing.sockets"},
    "send_fds": set[str](),
    "recv_fds": set[str](),
}
"""Functions that only some of our modules may name; the sockets of tests stand in the way of these calls."""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of all modules that are imported, in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_ours(full) else node.module


def is_ours(full: str) -> bool:
    return full == "seqrpc" or full.removeprefix("seqrpc.") in TREES


def ours(tree: ast.AST) -> Iterator[str]:
    for full in imports(tree):
        if full == "seqrpc" or full.startswith("seqrpc."):
            yield full.removeprefix("seqrpc").removeprefix(".")


def test_every_module_has_its_place() -> None:
    assert sorted(ORDER) == sorted(TREES), "the list of floors is not the house as it stands"


def test_the_list_goes_floor_by_floor() -> None:
    floors = [name.partition(".")[0] for name in ORDER]
    changes = [floor for before, floor in zip(["", *floors], floors, strict=False) if floor != before]
    ground = ["text", "errors", "limits", "logs", "twin"]
    top = ["testing", "cli", "__main__", ""]
    assert changes == [
        *ground,
        "kernel",
        "protocol",
        "interface",
        "documents",
        "calls",
        "aio",
        "blocking",
        "workers",
        "oversight",
        *top,
    ]


@pytest.mark.parametrize("name", [name for name in ORDER if name.startswith("blocking")])
def test_the_side_without_a_loop_does_not_know_the_one_with_it(name: str) -> None:
    assert not [imported for imported in ours(TREES[name]) if imported.startswith("aio")]


@pytest.mark.parametrize("name", [name for name in ORDER if name])
def test_a_module_imports_only_what_lies_below_it(name: str) -> None:
    below = ORDER[: ORDER.index(name)]
    for imported in ours(TREES[name]):
        assert imported != "", f"{name} imports the package root"
        assert imported in below, f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("module", ONLY_HERE)
def test_what_is_kept_to_one_place_is_imported_there_only(module: str) -> None:
    users = {name for name, tree in TREES.items() if module in {full.partition(".")[0] for full in imports(tree)}}
    assert users
    assert users <= ONLY_HERE[module]


@pytest.mark.parametrize("name", [name for name in ORDER if name.partition(".")[0] in NOT_HERE])
def test_a_floor_does_without_what_is_not_its_business(name: str) -> None:
    used = {full.partition(".")[0] for full in imports(TREES[name])}
    assert used & NOT_HERE[name.partition(".")[0]] == EXCEPT.get(name, set())


@pytest.mark.parametrize("function", CALLED_ONLY_HERE)
def test_packets_with_descriptors_are_sent_and_received_in_one_place(function: str) -> None:
    users = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == function)
        or (isinstance(node, ast.Name) and node.id == function)
        or (isinstance(node, ast.alias) and node.name == function)
    }
    assert users <= CALLED_ONLY_HERE[function]


def test_uvloop_is_imported_inside_functions_only() -> None:
    for name, tree in TREES.items():
        inside = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        outside = [node for node in ast.walk(tree) if id(node) not in inside]
        found = {full for node in outside if isinstance(node, ast.Import | ast.ImportFrom) for full in imports(node)}
        assert "uvloop" not in found, f"{name} imports uvloop as it is imported"


def test_the_reading_of_imports_misses_none() -> None:
    tree = ast.parse(
        """
import seqrpc.kernel.linux, os
from seqrpc import policy
from seqrpc.kernel import sockets
from seqrpc.errors import RpcError
if TYPE_CHECKING:
    from seqrpc.aio.server import Server
def function():
    import seqrpc.aio.client as client
"""
    )
    assert sorted(ours(tree)) == ["", "aio.client", "aio.server", "errors", "kernel.linux", "kernel.sockets"]
