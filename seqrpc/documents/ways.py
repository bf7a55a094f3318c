"""Changes between two documents, and in which way values go: who sends what to whom, of which age each is."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from seqrpc.documents.raw import DocumentError
from seqrpc.documents.trees import Type

MOST_COMPARED: Final = 300_000  # pairs of types: some seconds


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something that one document says otherwise than another.

    Old and new callers and servers meet while a system is updated. Two of these four meetings can fail:

    * It **breaks callers** if a caller of the old document may fail at a server of the new one: update callers first,
      or let the server go on serving both.
    * It **breaks servers** if a caller of the new document may fail at a server of the old one: update servers first.

    What breaks neither breaks nobody. "May fail" means that there is a call that was right by the caller's document and
    is refused, or an answer that does not fit the caller's document, or a call that may run twice and must not.
    """

    path: str
    """Where: ``Logs.follow`` is a method, ``Logs.follow(since)`` a parameter, ``Logs.follow -> result[]`` what is in a
    result, ``Entry.text`` the field of a class that may be in several places."""

    text: str
    """What changed, in a sentence without its end."""

    why: str
    """Why that breaks whom it breaks, or nobody, in a sentence without its end."""

    breaks_callers: bool
    breaks_servers: bool

    @property
    def breaks(self) -> str:
        """Whom it breaks: ``callers``, ``servers``, ``callers and servers`` or ``nobody``."""
        broken = [name for name, is_so in (("callers", self.breaks_callers), ("servers", self.breaks_servers)) if is_so]
        return " and ".join(broken) or "nobody"


class Way(NamedTuple):
    """How a value goes.

    Whoever calls a method is its user, whoever runs it its provider. The server provides its services and the objects
    that it gives away, and a caller the objects that it gives to the server.
    """

    server_provides: bool
    user_sends: bool
    """Whether it is an argument, and not a result."""

    @property
    def user(self) -> str:
        """Who calls, in a word."""
        return "caller" if self.server_provides else "server"

    @property
    def provider(self) -> str:
        """Who is called, in a word."""
        return "server" if self.server_provides else "caller"

    @property
    def of_object(self) -> Way:
        """The way of arguments of an object that goes this way itself."""
        return Way(server_provides=self.server_provides != self.user_sends, user_sends=True)

    @property
    def back(self) -> Way:
        """The way of the result of a method whose arguments go this way."""
        return Way(self.server_provides, not self.user_sends)


class _Found:
    """What was found of one change, wherever it is."""

    def __init__(self) -> None:
        self.breaks_callers = False
        self.breaks_servers = False
        self.reasons: dict[str, None] = {}
        """Why it breaks somebody, each once."""
        self.comforts: dict[str, None] = {}
        """Why it breaks nobody."""

    def change(self, path: str, text: str) -> Change:
        """Return it with its reasons, in the same order always: where the class is come to first, is chance."""
        why = ", and ".join(sorted(self.reasons)) or min(self.comforts)
        callers, servers = self.breaks_callers, self.breaks_servers
        return Change(path=path, text=text, why=why, breaks_callers=callers, breaks_servers=servers)


class Findings:
    """The changes that were found, each once, also where a class is in many places."""

    def __init__(self) -> None:
        """Begin with none."""
        self._found: dict[tuple[str, str], _Found] = {}
        self._compared: set[tuple[int, int, Way]] = set()
        self._kept: list[Type] = []  # what is known by its id must not go

    @property
    def changes(self) -> list[Change]:
        """The changes, by their paths."""
        return [found.change(path, text) for (path, text), found in sorted(self._found.items())]

    def is_new(self, old: Type, new: Type, way: Way) -> bool:
        """Note that two types are compared; return whether that is for the first time.

        Raises:
            DocumentError: there are too many of them.
        """
        key = (id(old), id(new), way)
        if key in self._compared:
            return False
        if len(self._compared) >= MOST_COMPARED:
            raise DocumentError(f"there are more than {MOST_COMPARED} pairs of types to compare in these documents")
        self._compared.add(key)
        self._kept += (old, new)
        return True

    def add(self, path: str, text: str, why: str, way: Way, *, users: bool = False, providers: bool = False) -> None:
        """Note a change.

        Args:
            path: where.
            text: what.
            why: the reason.
            way: that of what changed.
            users: whether an old user may fail at a new provider.
            providers: whether a new user may fail at an old provider.
        """
        callers, servers = (users, providers) if way.server_provides else (providers, users)
        found = self._found.setdefault((path, text), _Found())
        found.breaks_callers |= callers
        found.breaks_servers |= servers
        (found.reasons if callers or servers else found.comforts)[why] = None

    def differ(self, path: str, text: str, way: Way, *, old_takes_new: bool, new_takes_old: bool) -> None:
        """Note a change of a type.

        Args:
            path: where.
            text: what.
            way: that of the values.
            old_takes_new: whether whatever fits the new type fits the old one.
            new_takes_old: whether whatever fits the old type fits the new one.
        """
        users, providers = (not new_takes_old, not old_takes_new)
        if not way.user_sends:
            users, providers = providers, users
        sender, taker = (way.user, way.provider) if way.user_sends else (way.provider, way.user)
        reasons = []
        if not new_takes_old:
            reasons.append(f"what an old {sender} sends may not fit a new {taker}")
        if not old_takes_new:
            reasons.append(f"what a new {sender} sends may not fit an old {taker}")
        for why in reasons or [f"whatever a {sender} sends fits the {taker}, be they old or new"]:
            self.add(path, text, why, way, users=users, providers=providers)
