"""What says that a message asks for more than is made of one."""

from __future__ import annotations


class Exhausted(Exception):
    """A message asks for more than is made of one.

    It is no error of a value, so that no other choice of a union is tried after it, and msgspec lets it pass.
    """
