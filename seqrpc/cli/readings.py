"""What ``rpc.stats`` answered, read without trust: whatever came, what is read has the right shape and bounded size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from seqrpc.cli.endings import FAILED, Ending
from seqrpc.interface.stats import MOST_LISTED, CallStats, ConnectionStats, MethodStats, Stats
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.text import shown

LIMITS: Final = dataclasses.replace(DEFAULT_LIMITS, max_message_bytes=16 << 20, max_containers=200_000)
"""Of a connection over which a server is only asked about itself: far more than it tells."""

MOST_METHODS: Final = 4_096
"""The most methods that are read: twice as many as a server counts."""

MOST_NUMBER: Final = 2**63 - 1
"""The largest number that is believed: none that counts something gets there."""

_MOST_SECONDS: Final = 1e15

_MOST_CODES: Final = 100
_MOST_BUCKETS: Final = 64
_MOST_CALLS: Final = 20
_MOST_USERS: Final = 1_000
_MOST_KINDS: Final = 20
_LONGEST_NAME: Final = 200  # characters
_LONGEST_WORD: Final = 100


def stats_in(answer: Any) -> Stats:
    """Return what an answer says, with zeros where it says nothing that can be.

    Numbers are of 0 to :data:`MOST_NUMBER`, never NaN; texts are clean and cut, and tables have their first entries.

    Raises:
        Ending: it is no such answer at all.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("methods"), dict):
        raise Ending(FAILED, "what rpc.stats answered is none: a map with methods is wanted")
    return Stats(
        version=_word(answer.get("version")),
        pid=count_in(answer.get("pid")),
        uptime=seconds_in(answer.get("uptime")),
        is_stopping=answer.get("is_stopping") is True,
        connections_open=count_in(answer.get("connections_open")),
        connections=[_connection(each) for each in _listed(answer.get("connections"), MOST_LISTED)],
        connections_made=count_in(answer.get("connections_made")),
        connections_refused=_counts(answer.get("connections_refused"), _MOST_CODES),
        connections_malformed=count_in(answer.get("connections_malformed")),
        accept_failures=count_in(answer.get("accept_failures")),
        calls_in_flight=count_in(answer.get("calls_in_flight")),
        object_calls=_calls(answer.get("object_calls"), MOST_LISTED),
        methods={name_in(name): _method(each) for name, each in islice(answer["methods"].items(), MOST_METHODS)},
        others=_method(answer.get("others")),
        refusals=_counts(answer.get("refusals"), _MOST_CODES),
        latency_bounds=_bounds(answer.get("latency_bounds")),
        unsent_bytes=count_in(answer.get("unsent_bytes")),
        unsent_packets=count_in(answer.get("unsent_packets")),
        streams=count_in(answer.get("streams")),
        objects=count_in(answer.get("objects")),
        accounts={
            _word(uid): _counts(held, _MOST_KINDS) for uid, held in _entries(answer.get("accounts"), _MOST_USERS)
        },
    )


def _connection(value: Any) -> ConnectionStats:
    known: Mapping[Any, Any] = value if isinstance(value, dict) else {}
    return ConnectionStats(
        pid=id_in(known.get("pid")),
        uid=id_in(known.get("uid")),
        gid=id_in(known.get("gid")),
        age=seconds_in(known.get("age")),
        calls_in_flight=count_in(known.get("calls_in_flight")),
        calls=_calls(known.get("calls"), _MOST_CALLS),
        unsent_bytes=count_in(known.get("unsent_bytes")),
        unsent_packets=count_in(known.get("unsent_packets")),
    )


def _calls(value: Any, most: int) -> list[CallStats]:
    return [
        CallStats(method=name_in(each.get("method")), age=seconds_in(each.get("age")))
        for each in _listed(value, most)
        if isinstance(each, dict)
    ]


def _method(value: Any) -> MethodStats:
    known: Mapping[Any, Any] = value if isinstance(value, dict) else {}
    return MethodStats(
        calls=count_in(known.get("calls")),
        refused=count_in(known.get("refused")),
        errors=_counts(known.get("errors"), _MOST_CODES),
        seconds=seconds_in(known.get("seconds")),
        latency=[count_in(each) for each in _listed(known.get("latency"), _MOST_BUCKETS)],
    )


def _bounds(value: Any) -> list[float]:
    """Return what ends the buckets; nothing, if these do not rise."""
    bounds = [seconds_in(each) for each in _listed(value, _MOST_BUCKETS)]
    rises = all(before < after for before, after in zip([0.0, *bounds], bounds, strict=False))
    return bounds if rises else []


def _counts(value: Any, most: int) -> dict[str, int]:
    return {_word(key): count_in(each) for key, each in _entries(value, most)}


def _entries(value: Any, most: int) -> list[tuple[Any, Any]]:
    return list(islice(value.items(), most)) if isinstance(value, dict) else []


def _listed(value: Any, most: int) -> Sequence[Any]:
    return value[:most] if isinstance(value, list | tuple) else ()


def count_in(value: Any) -> int:
    """Return a number of things, of 0 to :data:`MOST_NUMBER`; 0 for what is none."""
    return min(max(value, 0), MOST_NUMBER) if type(value) is int else 0


def id_in(value: Any) -> int | None:
    """Return the number of a user, a group or a process; None for what is none."""
    return value if type(value) is int and 0 <= value <= MOST_NUMBER else None


def seconds_in(value: Any) -> float:
    """Return a time of not less than 0, never infinite; 0 for what is none."""
    if type(value) is int:
        value = float(count_in(value))
    return min(value, _MOST_SECONDS) if isinstance(value, float) and math.isfinite(value) and value > 0 else 0.0


def name_in(value: Any) -> str:
    """Return the name of a method, clean and cut; ``?`` for what is none."""
    return shown(value, _LONGEST_NAME) if isinstance(value, str) else "?"


def _word(value: Any) -> str:
    return shown(value, _LONGEST_WORD) if isinstance(value, str) else "?"
