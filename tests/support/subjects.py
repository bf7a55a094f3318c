"""Examples that run, for tests that put the command line to each: a log daemon, netcfg's, and a vault."""

from __future__ import annotations

import contextlib
import grp
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.programs import EXAMPLES, WITHIN, command, wait_for

VAULT = "import vault\n\n\ndef locked() -> vault.Vault:\n    return vault.Vault('1234')\n"


class Subject(NamedTuple):
    """A daemon, and what is known of it."""

    name: str
    address: Path
    services: list[str]
    method: str
    """One of its methods, without the service."""

    signature: str
    call: list[str]
    """A call of it."""

    shown: str
    """What comes of that at a terminal."""

    piped: str
    """The same in a pipe."""

    spec: str
    """``MODULE:CLASS``."""

    program: str
    """``exec:`` and what starts it."""

    directory: Path
    """Where its modules are besides :data:`EXAMPLES`."""

    is_descriptor: bool = False
    """Whether the call gives an open file."""

    @property
    def env(self) -> dict[str, str]:
        """In which its modules are found."""
        paths = [str(EXAMPLES), str(EXAMPLES / "netcfg"), str(self.directory), str(Path(__file__).parents[1])]
        return {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}


def logs(directory: Path) -> tuple[Subject, list[str]]:
    """The log daemon: a method that gives an open file, and streams."""
    kept = directory / "log"
    kept.mkdir()
    (kept / "a.log").write_text("first\nlast\n")
    address = directory / "logs.sock"
    args = ["--directory", str(kept)]
    subject = Subject(
        name="logs",
        address=address,
        services=["Logs"],
        method="open_log",
        signature="open_log(name: str) -> OwnedFd",
        call=["open_log", "a.log"],
        shown="first\nlast\n",
        piped="first\nlast\n",
        spec="logs:Logs",
        program=f"exec:{shlex.join(command('logdaemon.py', '--address', 'fd:3', *args))}",
        directory=directory,
        is_descriptor=True,
    )
    return subject, command("logdaemon.py", "--address", address, *args)


def netcfg(directory: Path) -> tuple[Subject, list[str]]:
    """The daemon of netcfg: a structure, a stream of it, and sockets."""
    config = directory / "netcfg.toml"
    config.write_text('tunnels = ["tun7"]\nprotocols = []\nports = [0]\n')
    address = directory / "netcfg.sock"
    group = grp.getgrgid(os.getgid()).gr_name
    start = command("netcfg/netcfgd.py", "--config", config, "--group", group, "--address", address)
    subject = Subject(
        name="netcfg",
        address=address,
        services=["Settings", "Sockets"],
        method="current",
        signature="current() -> Configuration",
        call=["Settings.current"],
        shown='{\n  "tunnels": [\n    "tun7"\n  ],\n  "protocols": [],\n  "ports": [\n    0\n  ],\n  "version": 1\n}\n',
        piped='{"tunnels":["tun7"],"protocols":[],"ports":[0],"version":1}\n',
        spec="netcfgd_served:both",
        program=f"exec:{shlex.join([sys.executable, '-m', 'seqrpc', 'serve', 'netcfgd_served:both', 'fd:3'])}",
        directory=directory,
    )
    (directory / "netcfgd_served.py").write_text(
        "from pathlib import Path\n\nimport netcfgd\nimport seqrpc\n\n\n"
        "def both() -> list[seqrpc.Service]:\n"
        f"    settings = netcfgd.SettingsService(Path({str(config)!r}))\n"
        "    return [settings, netcfgd.SocketService(settings)]\n"
    )
    return subject, start


def vault(directory: Path) -> tuple[Subject, list[str]]:
    """A vault: an object."""
    (directory / "locked_vault.py").write_text(VAULT)
    address = directory / "vault.sock"
    serve = [sys.executable, "-W", "error", "-m", "seqrpc", "serve", "locked_vault:locked"]
    subject = Subject(
        name="vault",
        address=address,
        services=["Vault"],
        method="unlock",
        signature="unlock(passphrase: str) -> OpenVault",
        call=["unlock", "1234", "--", "put", "door", "1983", "--", "get", "door"],
        shown="1983\n",
        piped='null\n"1983"\n',
        spec="locked_vault:locked",
        program=f"exec:{shlex.join([*serve, 'fd:3'])}",
        directory=directory,
    )
    return subject, [*serve, str(address)]


@contextlib.contextmanager
def running(subject: Subject, argv: list[str]) -> Iterator[Subject]:
    """Run a subject's daemon; it must end well."""
    env = {**os.environ, **subject.env}
    with (
        open(subject.directory / "said", "wb") as said,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env) as process,
    ):
        try:
            wait_for(subject.address, process)
            yield subject
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(WITHIN)
    assert status == 0, (subject.directory / "said").read_text()
