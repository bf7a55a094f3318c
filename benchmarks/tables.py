"""Tables of a page from reports as JSON: ``python -m benchmarks.tables docs/results/*.json --into docs/benchmarks.md``.

Each report is of another Python, and has a section of its own, ``### Python 3.11``, with what all peers have in common;
``### What only seqrpc has`` has the rest of all of them, side by side, and of both twins where both were measured. The
page has to have these headings; what stands below them, up to the next heading, is replaced. Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.registry import MODULES, OURS, PURE

CALLS = {
    "lone": "lone, µs",
    "in-flight": "64 in flight, /s",
    "connections-64": "64 connections, /s",
    "connections-1000": "1,000 connections, /s",
    "record": "record, µs",
    "descriptors": "descriptors, /s",
    "stream": "stream, items/s",
}
"""The rows of a report that are the columns of the first table of a Python, with what stands above them."""

SIZES = {
    "upload-1m": "1 MiB, GB/s",
    "upload-64m": "64 MiB, GB/s",
    "memory/idle": "idle connection, KiB",
    "memory/in-flight": "call in flight, KiB",
    "import": "import, ms",
}
"""Those of the second one."""

OWN = {
    "record-untyped": "the record untyped, µs",
    "buffer-1m": "`Buffer` of 1 MiB made and sent, GB/s",
    "buffer-1m-again": "the same sent again, GB/s",
    "buffer-64m": "`Buffer` of 64 MiB made and sent, GB/s",
    "buffer-64m-again": "the same sent again, GB/s",
    "buffer-unread/1m": "1 MiB sent again and not read, µs",
    "buffer-unread/1g": "1 GiB sent again and not read, µs",
    "stream-lone/item": "a lone item, µs",
    "stream-lone/answer": "a lone answer, µs",
    "features/off": "a lone call, `Any`, `anyone`, no deadline, µs",
    "features/validation": "with checked parameters, µs",
    "features/policy": "with a policy of three rules, µs",
    "features/deadline": "with a deadline, µs",
    "features/on": "with all of them, µs",
}
"""What only seqrpc has."""

OWN_HEADING = "### What only seqrpc has"

Report = Mapping[str, Any]


def python_of(report: Report) -> str:
    """Return of which Python a report is, without the last number."""
    return ".".join(str(report["python"]).split(".")[:2])


def median(report: Report, row: str, peer: str) -> str:
    """Return a figure with three digits, or two behind the point; "" if there is none."""
    found = report["workloads"].get(row, {}).get("peers", {}).get(peer)
    if found is None:
        return ""
    value = float(found["median"])
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown, whose first column is of names and whose others are of numbers."""
    names = list(head)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    text = "".join("|" + "".join(f" {cell} |" for cell in line) + "\n" for line in lines)
    return text.replace("|  |", "| |", 1)  # above the names stands nothing


def of_peers(report: Report, columns: Mapping[str, str]) -> str:
    """Return the table of those columns, with a line for each peer that has any of them."""
    lines = {peer: [median(report, row, peer) for row in columns] for peer in MODULES}
    return table(["", *columns.values()], ([f"`{peer}`", *line] for peer, line in lines.items() if any(line)))


def own(reports: Sequence[Report]) -> str:
    """Return the table of what only seqrpc has."""
    peers = [(report, peer) for report in reports for peer in (OURS, PURE) if median(report, "features/off", peer)]
    head = [python_of(report) if peer == OURS else f"{python_of(report)}, pure" for report, peer in peers]
    lines = ([what, *(median(report, row, peer) for report, peer in peers)] for row, what in OWN.items())
    return table(["", *head], lines)


def sections(reports: Sequence[Report]) -> dict[str, str]:
    """Return what stands below which heading."""
    told = {
        f"### Python {python_of(report)}": f"{of_peers(report, CALLS)}\n{of_peers(report, SIZES)}" for report in reports
    }
    return {**told, OWN_HEADING: own(reports)}


def put_into(page: str, reports: Sequence[Report]) -> str:
    """Return a page with the tables of these reports.

    Raises:
        ValueError: it has not each of the headings, once.
    """
    for heading, text in sections(reports).items():
        found = list(re.finditer(rf"^{re.escape(heading)}\n.*?(?=^#|\Z)", page, re.MULTILINE | re.DOTALL))
        if len(found) != 1:
            raise ValueError(f"the page has not one heading {heading!r}")
        page = f"{page[: found[0].start()]}{heading}\n\n{text}\n{page[found[0].end() :]}"
    return page


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", metavar="JSON", nargs="+", type=Path, help="what python -m benchmarks --json wrote")
    parser.add_argument("--into", metavar="PAGE", type=Path, help="put them there, instead of printing them")
    args = parser.parse_args()
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in args.reports]
    if args.into is None:
        print("\n".join(f"{heading}\n\n{text}" for heading, text in sections(reports).items()), end="")
        return
    try:
        page = put_into(args.into.read_text(encoding="utf-8"), reports)
    except ValueError as exc:
        sys.exit(f"{args.into}: {exc}")
    args.into.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
