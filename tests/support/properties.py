"""How hypothesis runs, and values for it."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

PROPERTY = settings(
    derandomize=True,  # the same examples on every run: a failure in CI is one on the desk
    deadline=None,  # a busy machine is no failure
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""How property tests run."""


def scalars() -> st.SearchStrategy[Any]:
    """Return values without parts that arrive as they were sent, NaN left out because it equals nothing."""
    return (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
        | st.binary(max_size=40)
    )


def keys() -> st.SearchStrategy[Any]:
    """Return keys of maps that arrive as they were sent."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.integers(-(2**63), 2**64 - 1)


def values(leaves: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Any]:
    """Return values that arrive as they were sent."""
    return st.recursive(
        scalars() if leaves is None else leaves,
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys(), inner, max_size=6),
        max_leaves=20,
    )
