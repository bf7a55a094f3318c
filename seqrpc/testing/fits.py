"""Whether a class fits an interface, also one that does not derive from it."""

from __future__ import annotations

import typing
from typing import Any

from seqrpc.interface.fitting import misfits
from seqrpc.text import shown


def assert_fits(what: object, interface: Any) -> None:
    """Check that a class takes the calls that an interface declares: ``assert_fits(FakeCalculator, Calculator)``.

    It is what seqrpc checks of a class that derives from the interface, when it is served: each method is there, under
    its name; it takes whatever the declared one takes, by position and by name, and needs nothing besides; its result
    is nothing that the declared one's is not; and it is called in the same way, for one answer or a stream.

    Args:
        what: a class, or an object of one: a service, whose marked methods count, or any other, whose public functions
            do, such as a fake for the tests of a client.
        interface: a service, a Protocol, an abstract class, or any class with annotated methods.

    Raises:
        AssertionError: it does not fit; the message has a line for each method that does not.
        TypeError: one of the two is no class, or declares what cannot be sent.
    """
    cls = what if isinstance(what, type) or typing.get_origin(what) is not None else type(what)
    if not isinstance(typing.get_origin(interface) or interface, type):
        raise TypeError(f"assert_fits takes a class as the interface, got {shown(repr(interface))}")
    wrong = misfits(cls, interface)
    if wrong:
        raise AssertionError("\n".join([f"{_name(cls)} does not fit {_name(interface)}:", *wrong]))


def _name(cls: Any) -> str:
    name: str = getattr(cls, "__qualname__", repr(cls))
    return name
