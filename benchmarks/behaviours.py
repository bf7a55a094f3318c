"""How hostile peers behave, by name: what no one of them may do to others, in the tests and in the benchmark.

``tests/adversity/test_hostile_peers.py`` runs each for a moment, ``python -m benchmarks.hostile --only peer-`` measures
what a friendly caller feels of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks import raw
from benchmarks.attacks import ClosingWords, Lingering, Retorts, Unread
from benchmarks.callers import Attack, Flood
from benchmarks.dying import Forks, Killed, Stopped
from benchmarks.holders import (
    Fills,
    Gives,
    Itself,
    Shrinks,
    Takes,
    announced,
    empties,
    files,
    odd_files,
    pipes,
)
from benchmarks.raw import CHANNEL, DESCRIPTOR, STREAM
from benchmarks.rude import (
    ANSWERED,
    DEEP,
    PARKED,
    PROMISES,
    WRONG,
    Cancels,
    Halves,
    Mutates,
    Opens,
    Reuses,
    Script,
    Shuts,
    calls,
    huge_maps,
    in_turn,
    nonsense,
    notifies,
    unknown,
)

_NO_ITEMS = (b"\xc1", raw.pack([0, "no number"]), raw.pack([7]), raw.pack([1, 5]))


def _chosen_keys(_files: raw.Files) -> Callable[[], raw.Body]:
    body = raw.Body(b"\x91" + raw.chosen_for_a_packet())
    return lambda: body


BEHAVIOURS: dict[str, Callable[[str], Attack]] = {
    # Connections
    "opens-connections-without-end": Opens,
    "connects-and-goes": partial(Opens, most=0),
    "calls-and-goes": partial(Opens, most=0, says=raw.pack([0, 1, PARKED, [0]])),
    "connects-and-says-nothing": partial(Opens, most=500),
    "has-odd-names": partial(Opens, most=100, says=raw.pack([0, 1, "Target.refused", [0]]), odd=True),
    "sends-half-of-everything": Halves,
    "shuts-down-one-way": Shuts,
    # Calls
    "never-reads": partial(Script, packets=calls(ANSWERED), reads=False),
    "never-reads-large-answers": Unread,
    "calls-faster-than-handlers-finish": partial(Script, packets=calls(PARKED, 0), window=4_000),
    "calls-from-many-connections": partial(Flood, method=PARKED, bodies=lambda _: lambda: raw.Body(b"\x91\x00"),
                                           window=100, connections=100),
    "takes-all-threads": partial(Script, packets=calls("Target.in_thread"), window=500),
    "cancels-everything": Cancels,
    "has-deadlines-in-the-past": partial(Script, packets=calls(PARKED, 0, deadline=1), window=64),
    "has-deadlines-at-once": partial(Script, packets=calls(PARKED, 0, deadline=0), window=64),
    "has-deadlines-out-of-reach": partial(Script, packets=calls(ANSWERED, deadline=(1 << 64) - 1), window=64),
    "reuses-ids": Reuses,
    "floods-with-notifies": partial(Script, packets=notifies(PARKED)),
    "floods-with-refused-notifies": partial(Script, packets=notifies("Target.refused")),
    "calls-unknown-methods": partial(Script, packets=unknown, window=64),
    "does-not-answer": partial(Flood, method="Target.call_back", window=1_000),
    "answers-with-megabytes": Retorts,
    "says-closing-and-goes-on": partial(ClosingWords, method=ANSWERED),
    # Packets
    "sends-malformed-packets": partial(Script, packets=in_turn(*WRONG), anew=True),
    "sends-mutated-packets": Mutates,
    "sends-nonsense": partial(Script, packets=nonsense),
    "nests-deeply": partial(Script, packets=in_turn(*DEEP)),
    "promises-much": partial(Script, packets=in_turn(*PROMISES)),
    "sends-huge-maps": partial(Script, packets=huge_maps, window=4),
    "sends-colliding-keys": partial(Flood, method="Target.take", bodies=_chosen_keys, window=4),
    "sends-empty-packets": partial(Script, packets=empties),
    "sends-oversized-packets": partial(Script, packets=in_turn(bytes(65_537), raw.pack([0, 1, ANSWERED, []]) * 9_000)),
    # Descriptors
    "sends-253-descriptors": partial(Script, packets=files(253, "Target.take"), window=16),
    "parks-253-descriptors": partial(Script, packets=files(253, PARKED), window=64),
    "sends-253-descriptors-refused": partial(Script, packets=files(253, "Target.refused"), window=16),
    "sends-descriptors-that-nobody-takes": partial(Script, packets=files(8, ANSWERED, params=False)),
    "sends-full-pipes": partial(Script, packets=pipes, window=16),
    "sends-sockets-that-block-on-close": partial(Lingering, method="Target.take"),
    "sends-odd-files": partial(Script, packets=odd_files),
    "sends-its-own-connection": partial(Itself, ext_type=DESCRIPTOR),
    "sends-its-own-connection-as-a-channel": partial(Itself, ext_type=CHANNEL),
    "sends-its-own-connection-as-a-stream": partial(Itself, ext_type=STREAM),
    "shrinks-memory-files": Shrinks,
    "announces-what-does-not-come": partial(Script, packets=announced),
    "fills-the-memory": Fills,
    # Streams and objects
    "reads-no-stream": partial(Takes, method="Target.count"),
    "releases-no-object": partial(Takes, method="Target.thing"),
    "sends-no-item": partial(Gives, method="Target.total", ext_type=STREAM),
    "sends-items-that-are-none": partial(Gives, method="Target.total", ext_type=STREAM, says=_NO_ITEMS),
    "gives-objects-that-do-not-answer": partial(Gives, method="Target.use", ext_type=CHANNEL),
    "gives-objects-that-talk-nonsense": partial(Gives, method="Target.use", ext_type=CHANNEL, says=WRONG[:3]),
    # Processes
    "is-stopped": Stopped,
    "forks-with-its-connection": Forks,
    "is-killed-at-any-moment": Killed,
}  # fmt: skip
