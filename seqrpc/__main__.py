"""``python -m seqrpc``: the command line, as ``seqrpc`` is."""

from __future__ import annotations

from seqrpc.cli.main import main

if __name__ == "__main__":
    main()
