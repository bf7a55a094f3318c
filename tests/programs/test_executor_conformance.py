"""CPython's own tests of executors pass with seqrpc.WorkerExecutor, where this Python was installed with them."""

from __future__ import annotations

import pytest
from support.conformance import CLASSES, LEFT_OUT, NAMES, run_all

pytestmark = pytest.mark.skipif(not CLASSES, reason="this Python was installed without its own tests")

Results = dict[tuple[str, str], tuple[list[str], str | None]]


@pytest.fixture(scope="module")
def results() -> Results:
    """Run the tests, all at once."""
    return run_all()


@pytest.mark.parametrize("kind, name", [each for each in NAMES if each[1] not in LEFT_OUT])
def test_cpython_is_satisfied(results: Results, kind: str, name: str) -> None:
    wrong, skipped = results[kind, name]
    assert not wrong, "\n".join(wrong)
    if skipped is not None:
        pytest.skip(skipped)


@pytest.mark.parametrize("name", sorted({name for _, name in NAMES} & LEFT_OUT.keys()))
def test_the_rest_is_left_out_for_a_reason(name: str) -> None:
    pytest.skip(LEFT_OUT[name])


def test_most_are_run() -> None:
    """A newer Python may have renamed its tests."""
    names = {name for _, name in NAMES}
    assert len(names - LEFT_OUT.keys()) > 30
