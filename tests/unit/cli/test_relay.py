"""The other end of ``ssh``."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.commands import SEQRPC, environment
from support.waiting import PATIENCE

from seqrpc.cli.frames import Frame, Kind, framed, packed, read_frame, unpacked


def relayed(path: object, given: bytes) -> tuple[int, bytes, bytes]:
    argv = [*SEQRPC, "relay", str(path)]
    done = subprocess.run(argv, input=given, capture_output=True, timeout=PATIENCE, check=False, env=environment())
    return done.returncode, done.stdout, done.stderr


def test_packets_go_to_and_fro(desk: Path) -> None:
    with subprocess.Popen(
        [*SEQRPC, "relay", str(desk)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        first = read_frame(relay.stdout.read)
        assert first is not None
        assert first.kind is Kind.READY
        relay.stdin.write(framed(Kind.PACKET, 0, packed(b"\x94\x00\x01\xa8rpc.ping\x90", [])))
        relay.stdin.flush()
        frames = [read_frame(relay.stdout.read), read_frame(relay.stdout.read)]
        packets = [unpacked(frame.content) for frame in frames if frame is not None and frame.kind is Kind.PACKET]
        assert packets == [(b"\x94\x01\x01\xc0\xc0", [])]
        relay.stdin.close()
        assert relay.wait(PATIENCE) == 0


def test_a_refusal_has_the_status_and_the_reason() -> None:
    status, out, err = relayed("/nothing/here", b"")
    assert (status, err) == (3, b"")
    frame = Frame(Kind.REFUSED, 0, out[9:])
    assert out == framed(*frame)
    assert out[9:].startswith(b"\x03NobodyListens: cannot connect to /nothing/here: ")


def test_the_end_of_the_input_is_the_end(desk: Path) -> None:
    status, out, err = relayed(desk, b"")
    assert (status, err) == (0, b"")
    assert out[0] == Kind.READY
