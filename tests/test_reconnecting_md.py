"""docs/reconnecting.md: its client and daemon run as printed, through the end of the daemon, and its other parts do."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from support.daemons import daemon
from support.waiting import PATIENCE

import seqrpc

PAGE = (Path(__file__).parent.parent / "docs" / "reconnecting.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAM, DAEMON, *PARTS = BLOCKS


def test_its_program_goes_on_through_the_end_of_its_daemon(tmp_path: Path, socket_path: Path) -> None:
    file = tmp_path / "client.py"
    file.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, file, socket_path], stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            for _ in range(2):
                with daemon(DAEMON, socket_path) as child:
                    lines = [client.stdout.readline() for _ in range(3)]
                    assert lines[-1] in {"on\n", "off\n"}
                    assert set(lines) <= {"on\n", "off\n", "may have run\n"}
                    child.kill()
                    child.wait(PATIENCE)
        finally:
            client.kill()


async def test_its_other_parts_do_what_it_says(socket_path: Path, capsys: Any) -> None:
    names: dict[str, Any] = {"asyncio": asyncio, "seqrpc": seqrpc, "Protocol": Protocol}
    described = PROGRAM[PROGRAM.index("class Lamp") : PROGRAM.index("async def main")]
    for part in (described, *PARTS):
        exec(part, names)

    class Lamp(seqrpc.Service):
        @seqrpc.method(idempotent=True)
        async def is_on(self) -> bool:
            asked.set()
            return True

        @seqrpc.method
        async def toggle(self) -> bool:
            return False

    asked = asyncio.Event()
    server = await seqrpc.serve(Lamp(), socket_path)
    connection = await names["watched"](socket_path)
    await asyncio.wait_for(asked.wait(), PATIENCE)
    asked.clear()
    assert await names["toggle_surely"](connection.proxy(names["Lamp"])) is False
    await server.close()
    async with seqrpc.serve(Lamp(), socket_path):
        await asyncio.wait_for(asked.wait(), PATIENCE)
        patient = await names["patient"](socket_path)
        await patient.close()
        await connection.call("rpc.ping")
        await connection.close()
    await asyncio.sleep(0)
    assert "it is on" in capsys.readouterr().out


def test_the_table_of_the_policy_has_its_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", PAGE, re.MULTILINE))
    policy = seqrpc.Reconnect()
    assert rows == {name: str(getattr(policy, name)) for name in rows}
    assert rows.keys() == set(seqrpc.Reconnect.__dataclass_fields__)
