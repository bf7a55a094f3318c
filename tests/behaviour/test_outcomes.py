"""What is the same in both kinds, to the letter: results, and errors with their texts, causes and all that they say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.daemons import daemon, wait_until_it_listens
from support.faces import Alone, Asynchronous, Kind
from support.outcomes import ACTIONS, Various, outcome_of

import seqrpc
from seqrpc.interface.offers import OFFERS

LIMITS = seqrpc.Limits(max_message_bytes=1_000_000)


@pytest.mark.parametrize("name", ACTIONS)
async def test_a_call_ends_alike(name: str, both: tuple[Kind, Kind]) -> None:
    seen = []
    for kind in both:
        OFFERS.__init__()  # type: ignore[misc] # how many are made in a while is bounded
        async with kind.serving(Various(), server_limits=LIMITS, limits=LIMITS) as client:
            seen.append(await outcome_of(client, ACTIONS[name]))
            assert await client.call("Various.add", 1) == 2, "the connection is well after it"
    assert seen[0] == seen[1]


PROGRAM = """
import sys
import seqrpc
from support.outcomes import Various

seqrpc.run(Various(), sys.argv[1], limits=seqrpc.Limits(max_message_bytes=1_000_000))
"""


def test_they_end_alike_in_a_program_of_one_thread(socket_path: Path) -> None:
    async def all_of(kind: Kind) -> dict[str, object]:
        async with kind.connected(socket_path, limits=LIMITS) as client:
            seen = {name: await outcome_of(client, act) for name, act in ACTIONS.items()}
            await client.call("rpc.ping")  # what the other side let go of is closed here, too
            return seen

    search = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
    seen = []
    for kind in (Alone(), Asynchronous()):
        with daemon(search + PROGRAM, socket_path):  # each its own: what it offers to those who mistype is bounded
            wait_until_it_listens(socket_path)
            seen.append(asyncio.run(all_of(kind)))
    assert seen[0] == seen[1]
