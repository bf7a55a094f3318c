"""However a peer of another user behaves, a friendly caller's calls go on, and the daemon is well afterwards.

All behaviours meet one daemon after the other, so that what one leaves would be seen at the next. How long a friendly
call takes meanwhile is measured by ``python -m benchmarks.hostile --only peer-``: no time is asserted here.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

import pytest
from support import hostile
from support.daemons import needs_root
from support.hostile import Scene, behave, killed_at, peer

from benchmarks.behaviours import BEHAVIOURS

pytestmark = needs_root

_ON_ASYNCIO_TOO = (
    "opens-connections-without-end", "sends-mutated-packets", "parks-253-descriptors", "never-reads", "is-stopped",
)  # fmt: skip
_CASES = [("uvloop", name) for name in BEHAVIOURS] + [("asyncio", name) for name in _ON_ASYNCIO_TOO]

_DEADLY = {"socket": 1, "connect": 1, "sendmsg": 5, "recvmsg": 2, "socketpair": 1, "memfd_create": 1, "shutdown": 1}
"""System calls of a peer, and how often it makes each."""


@pytest.fixture(scope="module")
def scenes() -> Iterator[dict[str, Scene]]:
    """Return a scene on each loop."""
    with hostile.scene("uvloop") as uvloop, hostile.scene("asyncio") as asyncio:
        yield {"uvloop": uvloop, "asyncio": asyncio}


@pytest.mark.parametrize("loop, name", _CASES)
def test_a_friendly_caller_is_served_whatever_a_peer_does(scenes: dict[str, Scene], loop: str, name: str) -> None:
    scene = scenes[loop]
    with scene.friendly_calls(), peer(behave(name, scene.address)):
        pass
    scene.is_well()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is what kills")
def test_a_friendly_caller_is_served_while_peers_are_killed_at_each_system_call(scenes: dict[str, Scene]) -> None:
    scene = scenes["uvloop"]
    for call, times in _DEADLY.items():
        for number in range(1, times + 1):
            with scene.friendly_calls(0.05):
                assert killed_at(scene.address, call, number) == -signal.SIGKILL, (call, number)
    scene.is_well()


def test_there_are_at_least_thirty_behaviours() -> None:
    assert len(BEHAVIOURS) >= 30
