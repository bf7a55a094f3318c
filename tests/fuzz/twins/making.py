"""Scripts made from a seed and a number: the same ones in every process."""

from __future__ import annotations

from typing import Any

from fuzz.twins.spelling import Chance, Ext, Raw, mutated, plain_value, rare_value, spell

PROFILES = ("", "plain", "broken", "client")
"""What most of a script may consist of: anything, plain calls, broken packets, or calls of the seqrpc end."""

_KINDS = {
    "": ["R", "R", "R", "O", "P", "C", "C", "L", "L", "B", "B"], "plain": ["R", "R", "P", "L", "B"],
    "broken": ["R", "P", "L", "C"], "client": ["C", "L", "L", "B", "B"],
}  # fmt: skip
"""Connections: a raw end at the server (R), the same of another user (O), at a server on a pair (P); a client with a
raw end on a pair (C), or behind an address (L); both ends seqrpc (B)."""

_WHOLE = [0, 1, 2, 5, 127, 128, 300, -1, -200, 70_000, 2**31, 2**63, 2**64 - 1, True, 1.0, "1", None, 2**32]
_TEXTS = ["", "a", "text", "é" * 20, "x" * 40, "x" * 300, "\x00", b"bytes", 7, None]
_GIVEN = [
    "object", "set", "function", "big", "least", "nan", "surrogate", "bytes", "text", "long", "packet", "over", "level",
    "whole", "tuple", "keys", "bytearray", "view", "moment", "decimal", "point", "error", "zero", "max", "empty",
    "nested",
    "true", "number", "negative", "texts", "frozen", "descriptor", "closed", "loop", "deep",
]  # fmt: skip
_FAILURES = [
    "own", "plain", "reserved", "unavailable", "data", "key", "cancelled", "timeout", "group", "exit", "surrogate",
    "long",
    "stop", "later", "value", "base", "interrupt", "leaves",
]  # fmt: skip
_WRONG = ["text", "true", "float", "none", "level", "whole", "int", "big", "list"]
_ENDING = [("ends", ["drain"]), ("ends", ["close"]), ("ends", ["refuse"])]
_ERRORS: list[Any] = [
    ["fuzz.Failed", "failed", None], ["fuzz.Failed", "failed", {"a": [1]}], ["rpc.Internal", "x", None], [], ["one"],
    ["rpc.Unavailable", "going", None], ["rpc.Overloaded", "", 5], ["rpc.Cancelled", "", None], ["", "", None],
    ["a", "b"],
    ["fuzz.Other", "é" * 200, b"data"], ["a", "b", None, 4], [1, 2, 3], "text", 0, False,
    ["rpc.MethodNotFound", "no", None],
    ["rpc.PermissionDenied", "no", None], ["a", None, None], [None, "a", 1], {}, ["rpc.DeadlineExceeded", "", None],
]  # fmt: skip
_GUARDED = [
    "counted",
    "collecting",
    "denied",
    "raising",
    "odd",
    "hidden",
    "same",
    "of_root",
    "anyones",
    "of_group",
    "everybodys",
]


class Maker:
    """Makes one script."""

    def __init__(self, number: int, seed: int, profile: str) -> None:
        self.chance = Chance(f"{seed}/{number}/{profile}")
        self.profile = profile or self.chance.choice(["", "", "plain", "broken", "client"])
        self._next_id: dict[int, int] = {}
        self._last = b""
        self._watches = False

    def script(self) -> dict[str, Any]:
        """Return the whole script."""
        chance, often = self.chance, self._often
        kinds = [chance.choice(_KINDS[self.profile]) for _ in range(chance.choice([1, 1, 2, 2, 3, 4]))]
        script: dict[str, Any] = {
            "loop": chance.choice(["asyncio", "uvloop", "eager"]),
            "debug": often(0.06),
            "factory": chance.choice(["own", "raising"]) if often(0.08) else "",
            "peers": kinds,
            "limits": self._limits(),
            "allow": chance.choice(["default"] * 8 + ["anyone", "everybody", "nobody", "root", "same_user", "other"]),
            "interceptors": chance.choice([1, 2]) if often(0.08) else 0,
            "ended": often(0.06),
            "senders": often(0.15),
            "descriptors": chance.choice([None, None, None, False, True]),
            "room": chance.choice([1, 4096, 20_000]) if often(0.12) else 0,
            "collects": often(0.04),
            "traced": often(0.04),
            "ends": chance.choice(["dropped", "torn"]) if often(0.06) else "",
        }
        steps = []
        for _ in range(chance.choice([2, 4, 6, 10, 16, 24])):
            ops: list[list[Any]] = []
            for _ in range(chance.choice([1, 1, 1, 2, 3])):
                number = chance.randrange(len(kinds))
                ops.append(self._op(number, kinds[number]))
            step: dict[str, Any] = {"do": ops}
            if often(0.15):
                step["turns"] = chance.choice([0, 1, 1, 2, 3, 4, 6])
            steps.append(step)
        script["steps"] = steps
        return script

    def _often(self, share: float) -> bool:
        return self.chance.random() < share

    def _limits(self) -> dict[str, Any]:
        chance, often = self.chance, self._often
        limits: dict[str, Any] = {
            "close_timeout": 0.05,
            "drain_timeout": 0.05,
            "lifespan_timeout": 5.0,
            "stall_timeout": 3600.0,
        }
        for share, name, values in (
            (0.2, "max_calls_in_flight", [1, 2, 3, 5]),
            (0.12, "max_total_calls", [1, 2, 4, 8, 9, 16]),
            (0.08, "idle_timeout", [0.5, 1.0]),
            (0.1, "max_depth", [1, 2, 3, 4, 6, 10]),
            (0.1, "max_message_bytes", [65_536, 66_000, 100_000]),
            (0.1, "max_packets_per_wakeup", [1, 2, 3, 5]),
            (0.1, "max_unsent_bytes", [1, 1000, 10_000]),
            (0.1, "high_water_bytes", [100, 1000]),
            (0.05, "max_other_keys", [1, 2]),
            (0.05, "max_containers", [1, 2, 3, 10]),
            (0.05, "max_held_bytes", [1, 5000, 10_000]),
            (0.05, "max_living_values", [1, 2]),
            (0.05, "max_connections", [1, 2, 3]),
        ):
            if often(share):
                limits[name] = chance.choice(values)
        if "high_water_bytes" in limits:
            limits["low_water_bytes"] = limits["high_water_bytes"] // 4
        return limits

    # Steps

    def _op(self, number: int, kind: str) -> list[Any]:
        chance = self.chance
        if kind in "CLB" and (kind == "B" or self._often(0.65)):
            return self._call(number)
        if kind != "B" and self._often(0.85):
            many = chance.choice([1, 1, 1, 1, 2, 2, 3, 4, 6, 10, 20, 70])
            return ["send", number, [self._packet(number, kind) for _ in range(many)], *self._sender(kind)]
        return self._rare(number, kind)

    def _sender(self, kind: str) -> list[int]:
        """Return who says that it sends, now and then."""
        return [self.chance.choice([0, 4711])] if kind in "PR" and self._often(0.05) else []

    def _rare(self, number: int, kind: str) -> list[Any]:
        chance = self.chance
        if kind != "B" and self._often(0.15):
            request = self._request(number)
            data = spell(chance, request[0])
            length = chance.choice([len(data), len(data) + 1, 70_000])
            how = chance.choice(["sound", "sound", "padded", "unsealed", "lost"])
            return ["spill", number, data.hex(), length, chance.choice([None, request[1], 5]), how]
        if self._often(0.06):
            return ["doze", chance.choice([0.001, 0.1, 0.3, 0.6, 2.0])]
        ways: list[list[Any]] = [
            ["gate", chance.randrange(3)], ["gate", chance.randrange(3)], ["gate", chance.randrange(3)], ["gc"],
            ["stats"],
            ["deaf", number], ["hear", number], ["close", number], ["aclose", number], ["half", number],
            ["cancel", number, chance.randrange(5)], ["cancel", number, chance.randrange(5)],
            ["end", chance.choice(["refuse", "drain", "close"])], ["pass", number], ["pass", number],
        ]  # fmt: skip
        return chance.choice(ways)

    # Calls of the seqrpc end

    def _call(self, number: int) -> list[Any]:
        chance = self.chance
        if self._often(0.15):
            return self._rare(number, "B")
        if not self._watches and self._often(0.03):
            self._watches = True  # several end in the order of their addresses
            return ["watch", number, chance.choice(["", "None, None", "['Plain']", "methods=['Plain.add', 'Odd']"])]
        method, args = self._method()
        text = (
            ", ".join(map(self._source, args))
            if isinstance(args, list)
            else self._named(args if isinstance(args, dict) else {})
        )
        if self._often(0.03):
            text = chance.choice(
                ["fd()", "[fd(), fd()]", "Sub('s')", "Whole(3)", "Level.LOW", "object()", "x=1", "(1, 2)"]
            )
        if self._often(0.05):
            method, text = chance.choice(
                [
                    ("Plain.descriptor", "fd()"), ("Plain.descriptor", "shut()"), ("Plain.keeps", "fd()"),
                    ("Plain.takes", "[fd(), [fd()], {'a': fd()}]"), ("Plain.takes", "[fd() for _ in range(8)]"),
                    ("Plain.takes", "[fd() for _ in range(9)]"), ("Plain.takes", "[fd()] * 2"),
                    ("Plain.point", "Point(1)"), ("Plain.point", "Point(2, 2.5)"), ("Odd.point", "Point(3), Level.LOW"),
                    ("Plain.point", "larger()"), ("Plain.point", "smaller()"), ("Plain.echo", "[Point(1), Point(2)]"),
                    ("Plain.point", "Point('x')"), ("Plain.point", "Point(object())"),
                    ("Plain.echo", "fd()"), ("Plain.waits_with", "fd(), 1"), ("Plain.fail_with", "fd(), 'own'"),
                ]
            )  # fmt: skip
        how: dict[str, Any] = {}
        if self._often(0.5):
            how["proxy"] = True
        elif self._often(0.1):
            how["notify"] = True
        if self._often(0.08):
            how["meta"] = {"trace": "1"}
        if self._often(0.08):
            how["seconds"] = chance.choice([0, 0.9, 1e6, 1e6])
        return ["call", number, method, text, how]

    def _named(self, args: dict[str, Any]) -> str:
        named = {name: value for name, value in args.items() if str(name).isidentifier()}
        return ", ".join(f"{name}={self._source(value)}" for name, value in named.items())

    def _source(self, value: Any) -> str:
        if isinstance(value, Ext | Raw):
            return "None"
        if isinstance(value, list):
            return "[" + ", ".join(map(self._source, value)) + "]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self._source(key)}: {self._source(item)}" for key, item in value.items()) + "}"
        return repr(value) if isinstance(value, int | float | str | bytes | bool | None) else "object()"

    # Packets

    def _packet(self, number: int, kind: str) -> list[Any]:
        """Return a packet in hexadecimal digits, and with how many descriptors it goes."""
        chance = self.chance
        chance.shortest = chance.choice([1.0, 1.0, 1.0, 0.9, 0.5])
        broken = 0.2 if self.profile == "broken" else 0.003 if self.profile == "plain" else 0.02
        if self._often(broken):
            data, fds = self._broken(number), 0
        elif kind in "CL" and self._often(0.65):
            return self._response()
        else:
            data, fds = self._sound(number)
        if self._often(0.004):
            fds = chance.choice([0, 1, 2, 3])
        self._last = data[:200]
        return [data.hex(), fds]

    def _sound(self, number: int) -> tuple[bytes, int]:
        """Return a message that a good peer might send."""
        chance, often = self.chance, self._often
        common = self.profile == "plain"
        if often(0.9 if common else 0.75):
            return self._bringing(number) if often(0.1) else (spell(chance, self._request(number)[0]), 0)
        kind = chance.randrange(12)
        if kind < 5:
            return spell(chance, [3, self._some_id(number)]), 0
        if kind < 8:
            method, args = self._method()
            if often(0.6):
                method, args = chance.choice([("Plain.tell", [1]), ("Plain.tell_later", [chance.randrange(3)])])
            options = [] if often(0.9) else [self._options()]
            return spell(chance, [2, method, args, *options]), 0
        if kind == 8:
            return spell(chance, [5, chance.choice(["going", "", "x" * 300])]) if often(0.3) else b"\x92\x06\x01", 0
        if kind == 9:
            return spell(chance, [chance.choice([6, 7, 127, 128, 255, 2**32]), *chance.choice([[], [1], [1, 2, 3]])]), 0
        return self._bringing(number)

    def _bringing(self, number: int) -> tuple[bytes, int]:
        """Return a request that refers to descriptors, nearly always to each of those that it goes with."""
        chance, often = self.chance, self._often
        many = chance.choice([1, 1, 1, 1, 2, 3, 8, 9, 20])
        indexes = list(range(many))
        if often(0.04):
            indexes = chance.choice([indexes[:-1], [*indexes, 0], [*indexes, many], indexes[::-1], [0] * many])
        references = [Ext(1, bytes([each])) for each in indexes]
        method, args = chance.choice(
            [
                ("Plain.takes", [references]), ("Plain.echo", [references]), ("Plain.untyped", [references, 1]),
                ("Plain.echo", references), ("Guarded.denied", [references]), ("Plain.add", references),
                ("Plain.takes", [{"a": references}]), ("Odd.sync", references), ("Plain.nothing", []),
                ("Plain.wait", [0]), ("Plain.keeps", references), ("Plain.fail_with", [*references, "plain"]),
                *[("Plain.descriptor", references)] * 4, *[("Plain.waits_with", [*references, 1])] * 2,
            ]
        )  # fmt: skip
        if often(0.05):
            method, args = self._method()
        message = [0, self._new_id(number), method, args]
        if often(0.15):
            message.append({"deadline": 10**18} if often(0.7) else self._options())
        return spell(chance, message), many

    def _new_id(self, number: int) -> int:
        chance = self.chance
        if self._often(0.03):
            return chance.choice([0, 1, 2**32 - 1, 2**31, 300, 70_000])
        made = self._next_id.get(number, 0)
        self._next_id[number] = made + 1
        return made

    def _some_id(self, number: int) -> int:
        most = self._next_id.get(number, 0)
        return max(0, most - self.chance.choice([0, 1, 1, 1, 2, 2, 3, 5, 9]))

    def _request(self, number: int) -> tuple[list[Any], int]:
        method, args = self._method() if self._often(0.92) else self._long()
        call_id = self._new_id(number)
        message = [0, call_id, method, args]
        if self._often(0.1):
            message.append({"deadline": 10**18} if self._often(0.5) else self._options())
        return message, call_id

    def _long(self) -> tuple[str, Any]:
        """Return a method and arguments of some hundred bytes: more than is read before the caller is admitted."""
        chance, pick = self.chance, self.chance.choice
        text = pick(["x" * 40, "text", "é" * 9]) if self._often(0.3) else "x" * 9
        many = [pick([text, text, plain_value(chance)]) for _ in range(pick([20, 26, 30, 60, 200]))]
        short = ["x" * pick([225, 226, 227, 228, 229, 230, 231, 232, 233, 234, 235, 236, 237, 238, 239])]
        return pick(
            [
                ("Plain.echo", [many]), ("Plain.echo", short), ("Plain.untyped", [many, 1]), ("Plain.text", short),
                ("Guarded.counted", [many]), ("Guarded.denied", [many]), ("Guarded.raising", [many]),
                ("Plain.point", [{"x": 1, "more": many}]), ("Plain.several", [[1] * 300, {"a": 1.0}]),
                ("Plain.several", [[1] * 4060, {}]), ("Plain.mixed", [1, "b" * 250, 0.5, True, b"e" * 200]),
                ("Plain.echo", [{f"key {number}": number for number in range(pick([30, 90]))}]), ("Plain.none", [many]),
                ("Plain.wait", [pick([0, 1, 2]), many]), ("Odd.sync", [many]), ("Plain.echo", [[[[many]]]]),
            ]
        )  # fmt: skip

    def _options(self) -> Any:
        return self.chance.choice(
            [
                {}, {"deadline": 1}, {"deadline": 10**18}, {"deadline": 2**63}, {"meta": {"a": "b"}}, {"meta": {}},
                {"deadline": 10**18, "meta": {"trace": "1", "b": ""}}, {"new": 1}, {"deadline": None}, {"deadline": -1},
                {"deadline": True}, {"deadline": 1.5}, {"meta": {"a": 1}}, {"meta": {1: "a"}}, {"meta": []}, None,
                [], 5,
                {"deadline": "x"}, {1: 2}, {"meta": {"a": "\ud800"}}, Raw(b"\x81\xa8deadline\xcd\x00\x01"),
            ]
        )  # fmt: skip

    def _method(self) -> tuple[str, Any]:
        """Return a method and arguments, which nearly fit."""
        chance, often = self.chance, self._often
        if often(0.05):
            args = chance.choice([[], [1], {"a": 1}, [plain_value(chance)]])
            return chance.choice(
                ["rpc.ping", "rpc.ping", "rpc.stats", "rpc.discover", "rpc.none", "Plain.none", "None.add",
                 "Plain.unmarked", "Plain", "", ".", "x" * 300, "Plain.add\x00", "plain.add", "Plain.__init__",
                 "é" * 40]
            ), args  # fmt: skip
        if often(0.1):
            method = "Guarded." + chance.choice(_GUARDED if often(0.95) else ["ending", "closing"])
            return method, chance.choice([[], [1], [plain_value(chance)], {"value": 1}, {"number": 1}])
        if often(0.08):
            return chance.choice(
                [
                    ("Odd.stream", [chance.choice([0, 1, 3, 30])]), ("Odd.counter", []), ("Odd.wrapped", [1]),
                    ("Odd.returning", [1]),
                    ("Odd.point", [{"x": 1, "y": 2.0}]), ("Odd.point", [{"x": 1}, 1]), ("Odd.wrapped", ["x"]),
                    ("Odd.sync", [chance.choice([1, -1, "x"])]), ("Odd.returning", {"a": 2}),
                ]
            )  # fmt: skip
        method, args = self._plain()
        if often(0.06):  # one too few, one too many, another type
            if isinstance(args, list):
                args = chance.choice([args[:-1], [*args, 1], [plain_value(chance) for _ in args], [*args, *args], {}])
            else:
                others: list[Any] = [{**args, "more": 1}, {}, [*args.values()], {**args, 1: 2}, None, 5, "args"]
                args = chance.choice(others)
        return f"Plain.{method}", args

    def _plain(self) -> tuple[str, Any]:
        chance, pick = self.chance, self.chance.choice
        waits = [("wait", [pick([0, 1, 2])]), ("stubborn", [pick([0, 1, 2])]), ("starts", [pick([0, 1, 2])])]
        often = [
            ("add", [pick(_WHOLE), pick(_WHOLE)]), ("add", [pick([1, 5, 300, -7]), pick([2, 2**40])]),
            ("echo", [plain_value(chance)]), ("echo", [plain_value(chance)]), ("nothing", []), ("text", [pick(_TEXTS)]),
            ("untyped", [plain_value(chance), plain_value(chance)]),
        ]  # fmt: skip
        seldom: list[tuple[str, Any]] = [
            ("mixed", [1, "b", 0.5, True, b"e"]),
            ("mixed", [pick(_WHOLE), pick(_TEXTS), pick([1, 1.5]), pick([0, True]), b""]),
            ("default", pick([[], [4], [4, "y"], {"a": 9}, {"b": "z"}, {"a": 1, "b": "c"}, [None]])),
            ("named", pick([{"a": 1}, {"a": 1, "b": "x"}, {"b": "x"}, {"a": "1"}, [1]])),
            ("point", pick([[{"x": 1}], [{"x": 1, "y": 2}], [{"x": "1"}], [[1, 2.0]], {"point": {"x": 1, "y": 0.5}}])),
            ("several", [pick([[], [1, 2], [1, "x"], [1.0]]), pick([{}, {"a": 1.5}, {"a": 1}, {1: 1.0}])]),
            ("maybe", [pick([None, 1, "x", 1.0, True])]), ("turns", [pick([0, 1, 2, 3, 6])]),
            ("fail", [pick(_FAILURES)]), ("give", [pick(_GIVEN)]), ("wrong", [pick(_WRONG)]),
            ("fail", [pick(_FAILURES)]),
            ("give", [pick(_GIVEN)]), ("cancels", [pick([0, 1, 2])]), ("uncancels", []),
            ("calls_back", [pick(["Plain.echo", "Plain.wait", "rpc.ping", "Plain.none", "Plain.calls_back"]), 1]),
            ("collects", []), ("kept", [plain_value(chance)]), ("changes", [[1, 2]]), ("tell", [1]),
            ("tell_later", [pick([0, 1, 2])]), ("secret", [pick(["word", "fail", 7])]),
            ("level", [pick([1, 2, "1", 1.0])]),
        ]  # fmt: skip
        if self._often(0.02):
            return pick([("closes", {"waits": True}), ("closes", {"waits": False}), *_ENDING])
        return pick([pick(often), pick(often), pick(often), pick(seldom), pick(seldom), pick(waits), pick(waits)])

    def _response(self) -> list[Any]:
        """Return an answer in parts: what precedes the id, descriptors, which call it is for, what follows, a width."""
        chance, fds = self.chance, 0
        error: Any = None
        result: Any = None
        if self._often(0.75):
            result = plain_value(chance)
        elif self._often(0.1):
            result, fds = [Ext(1, b"\0"), Ext(1, b"\1")], 2
        else:
            error, result = chance.choice(_ERRORS), chance.choice([None, None, None, None, 1, []])
            if self._often(0.1):
                error = ["rpc.InvalidParams", "x", rare_value(chance)]
        parts = [spell(chance, part) for part in (1, error, result)]
        which = chance.choice([0, 0, 0, 0, 1, 2, 5, -1, -2]) if self._often(0.9) else chance.choice([10**6, 2**31])
        head = (
            b"\x94"
            if self._often(0.97)
            else chance.choice([b"\xdc\x00\x04", b"\xdd\x00\x00\x00\x04", b"\x95", b"\x93"])
        )
        return [
            (head + parts[0]).hex(),
            fds,
            which,
            (parts[1] + parts[2]).hex(),
            chance.choice([0, 0, 0, 0, 0, 1, 2, 3]),
        ]

    def _broken(self, number: int) -> bytes:  # noqa: PLR0911 - a line or two for each way of being wrong
        """Return a packet with something wrong in it, or nearly."""
        chance = self.chance
        message, _call_id = self._request(number)
        sound = spell(chance, message)
        kind = chance.randrange(10)
        if kind < 3:
            return mutated(chance, sound, self._last)
        if kind == 3:
            return sound[: chance.randrange(1, len(sound))] if len(sound) > 1 else sound
        if kind == 4:
            return sound + chance.choice([b"\0", b"\xc0", b"\xc1", b"\xff" * 5, sound])
        if kind == 5:  # kinds and ids of other types
            place = chance.choice([0, 1, 1, 2, 3])
            other: list[Any] = [
                True, False, 0.0, 1.0, -1, 2**32, 2**32 - 1, 2**63, 2**64 - 1, "0", b"\0", None, [], {}, Ext(1,
                b"\0"), -(2**63),
            ]  # fmt: skip
            message[place] = chance.choice(other)
            return spell(chance, message)
        if kind == 6:
            size = chance.choice([0, 1, 2, 3, 5, 6, 15, 16])
            return spell(chance, [*message, {}, None, 1, *range(20)][:size])
        if kind == 7:
            return spell(
                chance, [chance.choice([1, 1, 2, 3, 4, 5]), *[plain_value(chance) for _ in range(chance.randrange(5))]]
            )
        if kind == 8:
            return spell(chance, plain_value(chance))[:65_536] or b"\xc0"
        return (
            bytes(chance.randrange(256) for _ in range(chance.choice([1, 2, 3, 5, 20])))
            if self._often(0.5)
            else sound[:4]
        )


def make(number: int, seed: int, profile: str = "") -> dict[str, Any]:
    """Return a script that anybody can run again who knows these numbers."""
    return Maker(number, seed, profile).script()
