"""Names in code that is made of a document: what may stand there as it is, and what stands in its place else.

Names of a document may be anything. None of them gets into code that Python would not read as just this name.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Final

LONGEST: Final = 79  # characters of a name in code: lines with longer ones could not be laid out

_LONGEST_WANTED: Final = 60  # characters of a name that is made, before what makes it unique

_NOT_IN_NAMES: Final = re.compile(r"\W+")


def is_identifier(name: str) -> bool:
    """Return whether Python reads a name as it is written: no keyword, and no letters that it takes for others."""
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        and len(name) <= LONGEST
        and unicodedata.normalize("NFKC", name) == name
    )


def is_attribute(name: str) -> bool:
    """Return whether a name may be that of a parameter, or of something in a class.

    Python changes names there that begin with two underscores, and those that end with them, too, mean something to it.
    """
    return is_identifier(name) and not name.startswith("__")


def is_member(name: str) -> bool:
    """Return whether a name may be that of a member of an enum."""
    return is_attribute(name) and not (name.startswith("_") and name.endswith("_")) and name != "mro"


def identifier_like(text: str, otherwise: str) -> str:
    """Return a name that looks like a text, as far as there is one; else ``otherwise``."""
    if is_attribute(text) and len(text) <= _LONGEST_WANTED:
        return text
    name = _NOT_IN_NAMES.sub("_", unicodedata.normalize("NFKC", text)).strip("_")[:_LONGEST_WANTED]
    if name and not name.isidentifier():
        name = f"_{name}"
    if keyword.iskeyword(name):
        name = f"{name}_"
    return name if name and is_attribute(name) else otherwise


def camel_case(*words: str) -> str:
    """Return words as one name, each with a capital: ``follow``, ``since_when`` is ``FollowSinceWhen``."""
    parts = [part for word in words for part in word.split("_") if part]
    return "".join(part[0].upper() + part[1:] for part in parts)


def _is_field(name: str) -> bool:
    # Each class has an ``mro``, so that it would be a default.
    return is_attribute(name) and len(name) <= _LONGEST_WANTED and name != "mro"


class Names:
    """Names of one scope, each for one thing.

    Args:
        taken: those that nothing may have.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Begin with what is taken."""
        self._taken = set(taken)
        self._numbers: dict[str, int] = {}  # the last of each name, so that many alike take no longer than others

    def __contains__(self, name: object) -> bool:
        """Return whether a name is taken."""
        return name in self._taken

    def claim(self, wanted: str) -> str:
        """Take a name and return it; if it is taken already, one with a number."""
        name, number = wanted, self._numbers.get(wanted, 1)
        while name in self._taken:
            number += 1
            name = f"{wanted}{'' if wanted.endswith('_') else '_'}{number}"
        self._taken.add(name)
        self._numbers[wanted] = number
        return name


def attribute_names(names: Iterable[str], otherwise: str) -> dict[str, str]:
    """Return what stands in code for each of some names of a class, in their order: the name itself where it may."""
    return _chosen(names, otherwise, _is_field)


def member_names(names: Iterable[str]) -> dict[str, str]:
    """Return what stands in code for the name of each member of an enum."""
    return _chosen(names, "MEMBER", is_member)


def _chosen(names: Iterable[str], otherwise: str, may_stand: Callable[[str], bool]) -> dict[str, str]:
    listed = list(names)
    own = Names(name for name in listed if may_stand(name))
    chosen = {}
    for name in listed:
        like = identifier_like(name, otherwise)
        chosen[name] = name if may_stand(name) else own.claim(like if may_stand(like) else otherwise)
    return chosen
