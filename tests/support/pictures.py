"""Pictures of what commands show at a terminal, as SVG that needs nothing from anywhere."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from seqrpc import blocking
from support.desk import Desk
from support.sync import served

TEMPLATE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <!-- rich VERSION -->
    <style>
    .{unique_id}-matrix {{
        font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
    }}
    .{unique_id}-title {{
        font-size: 18px;
        font-weight: bold;
        font-family: sans-serif;
    }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""
"""That of rich, without its fonts, which are elsewhere."""


def picture(name: str, title: str, lines: Sequence[Text], width: int) -> str:
    """Return a picture of a terminal that shows some lines."""
    console = Console(record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", end="\n")
    drawn = console.export_svg(title=title, code_format=TEMPLATE.replace("VERSION", version("rich")), unique_id=name)
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines())


CALLS = """
import os, sys
from itertools import count
from seqrpc import blocking, RpcError
uid, path, *methods = sys.argv[1:]
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
with blocking.connect(path) as connection:
    for number in count():
        for method in methods:
            name, *args = method.split(",")
            try:
                connection.call(name, *[int(arg) / 1000 if name == "Desk.sleep" else int(arg) for arg in args])
            except RpcError:
                pass
"""
"""Calls methods again and again, as a user."""


def recorded(path: Path) -> dict[str, Any]:
    """Return what a daemon told that was called by several users, at two moments two seconds apart. Root has to ask."""
    callers = [
        ("0", "Desk.add,1", "Desk.sleep,1"),
        ("1000", "Desk.sleep,3", "Desk.fail", "Desk.sleep,12"),
        ("1000", "Desk.sleep,60000"),
        ("1001", "Desk.sleep,20", "Desk.secret", "Desk.told"),
    ]
    path.parent.chmod(0o711)
    with ExitStack() as opened:
        opened.enter_context(served(path, Desk(), mode=0o666, allow=lambda _caller: True))
        for uid, *methods in callers:
            process = subprocess.Popen([sys.executable, "-c", CALLS, uid, str(path), *methods])
            opened.callback(process.wait)
            opened.callback(process.kill)
        connection = opened.enter_context(blocking.connect(path))
        streams = [connection.call("Desk.forever") for _ in range(2)]
        boxes = [connection.call("Desk.box", "a") for _ in range(3)]
        for each in (*streams, *boxes):
            opened.enter_context(each)
        time.sleep(3.0)
        before = connection.call("rpc.stats")
        time.sleep(2.0)
        return {"before": before, "now": connection.call("rpc.stats")}
