"""Each command at a terminal and through a pipe, on examples with streams, descriptors and objects."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import SEQRPC, Done, Terminal, at_terminal, environment, seqrpc_command, started, terminal
from support.html import tree_of
from support.subjects import VAULT, Subject, logs, netcfg, running, vault
from support.waiting import PATIENCE

SUBJECTS = {"logs": logs, "netcfg": netcfg, "vault": vault}

SSH = '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec sh -c "$1"\n'


@pytest.fixture(scope="module", params=[*SUBJECTS])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Return a daemon that runs."""
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
        made, argv = SUBJECTS[request.param](Path(directory))
        with running(made, argv):
            yield made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH with ``seqrpc``, and with an ``ssh`` that stays on this machine."""
    directory = tmp_path_factory.mktemp("bin")
    for name, text in (("ssh", SSH), ("seqrpc", f'#!/bin/sh\nexec {shlex.join(SEQRPC)} "$@"\n')):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


def shown(subject: Subject, *args: object, more: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command at a terminal."""
    return at_terminal(*args, env={**subject.env, **(more or {})})


def piped(subject: Subject, *args: object, given: bytes = b"", more: dict[str, str] | None = None) -> Done:
    """Run a command with pipes."""
    return seqrpc_command(*args, given=given, env={**subject.env, **(more or {})})


def test_list(subject: Subject) -> None:
    status, text = shown(subject, "list", subject.address)
    heads, row = text.splitlines()
    assert (status, heads.split()[0], row.split()[0]) == (0, "ADDRESS", str(subject.address))
    assert row.endswith(", ".join(subject.services))
    done = piped(subject, "list", subject.address)
    assert (done.status, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["status"], told["services"]) == ("answers", subject.services)
    assert str(subject.address) in [json.loads(line)["address"] for line in piped(subject, "list").out.splitlines()]


def test_describe(subject: Subject) -> None:
    status, text = shown(subject, "describe", subject.address)
    assert status == 0
    for service in subject.services:
        assert service in [line.partition(" ")[0] for line in text.splitlines()]
    assert f"    {subject.signature}\n" in text
    status, text = shown(subject, "describe", subject.address, subject.method)
    assert (status, text.partition("\n")[0]) == (0, subject.signature)
    assert "    you may call it" in text
    done = piped(subject, "describe", subject.address)
    assert (done.status, done.err, done.out.count("\n")) == (0, "", 1)
    document = json.loads(done.out)
    assert [service["name"] for service in document["x-seqrpc"]["services"]] == subject.services
    done = piped(subject, "describe", subject.address, subject.method)
    assert json.loads(done.out)["name"].endswith(f".{subject.method}")
    assert shown(subject, "describe", subject.address, "--json") == (0, compact(document) + "\n")


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_call(subject: Subject) -> None:
    assert shown(subject, "call", subject.address, *subject.call) == (0, subject.shown)
    assert piped(subject, "call", subject.address, *subject.call) == Done(0, subject.piped, "")
    status, text = shown(subject, "call", subject.address, "nothing")
    assert (status, text) == (3, "seqrpc: there is no method 'nothing'\n")
    assert piped(subject, "call", subject.address, "nothing") == Done(3, "", text)


def test_stub(subject: Subject, tmp_path: Path) -> None:
    status, text = shown(subject, "stub", subject.address)
    done = piped(subject, "stub", subject.address)
    assert (status, done.status, done.err) == (0, 0, "")
    assert text == done.out
    compile(done.out, "stub.py", "exec")
    assert f"def {subject.method}(" in done.out
    file = tmp_path / "stub.py"
    assert shown(subject, "stub", subject.address, "-o", file) == (0, "")
    assert file.read_text() == done.out
    assert shown(subject, "stub", subject.address, "--check", file) == (0, "")
    assert piped(subject, "stub", subject.address, "--check", file) == Done(0, "", "")
    file.write_text(done.out.replace(f"def {subject.method}(", "def renamed("))
    status, text = shown(subject, "stub", subject.address, "--check", file)
    *difference, told = text.splitlines(keepends=True)
    assert status == 1
    assert any(line.startswith("-") and "def renamed(" in line for line in difference)
    assert any(line.startswith("+") and f"def {subject.method}(" in line for line in difference)
    assert f"seqrpc stub {subject.address} -o {file}" in told
    assert piped(subject, "stub", subject.address, "--check", file) == Done(1, "".join(difference), told)


def test_diff(subject: Subject, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    document = json.loads(piped(subject, "describe", subject.address).out)
    document["methods"] = [each for each in document["methods"] if not each["name"].endswith(f".{subject.method}")]
    old.write_text(json.dumps(document))
    for same in ((subject.address, subject.address), (old, old)):
        assert shown(subject, "diff", *same) == (0, "")
        assert piped(subject, "diff", *same) == Done(0, "", "")
    status, text = shown(subject, "diff", subject.address, old)
    assert status == 1
    assert text.splitlines()[0].endswith(f".{subject.method}: the method is gone")
    assert text.splitlines()[1].startswith("    breaks callers: ")
    done = piped(subject, "diff", subject.address, old)
    (change,) = map(json.loads, done.out.splitlines())
    assert (done.status, done.err, change["breaks_callers"], change["breaks_servers"]) == (1, "", True, False)
    assert piped(subject, "diff", "-", old, given=b"{}").status == 2
    (change,) = map(json.loads, piped(subject, "diff", "--breaking", old, subject.address).out.splitlines())
    assert (change["breaks_callers"], change["breaks_servers"]) == (False, True)


def test_docs(subject: Subject, tmp_path: Path) -> None:
    status, text = shown(subject, "docs", subject.address)
    assert (status, text) == (
        2,
        "seqrpc: a page is for a browser: take --open, name a file with -o, or pipe it\n",
    )
    page = tmp_path / "page.html"
    assert shown(subject, "docs", subject.address, "-o", page) == (0, "")
    done = piped(subject, "docs", subject.address)
    assert (done.status, done.err) == (0, "")
    assert page.read_text() == done.out
    anchors = [node.attributes.get("id") or "" for node in tree_of(done.out).every()]
    assert any(each.endswith(f".{subject.method}") for each in anchors)


def test_a_module_is_as_good_as_an_address(subject: Subject) -> None:
    if subject.name != "logs":  # of the example itself there is more than of what its apps are to see
        assert piped(subject, "diff", subject.address, subject.spec) == Done(0, "", "")
    assert shown(subject, "stub", subject.spec)[0] == 0
    assert piped(subject, "docs", subject.spec).status == 0


def test_exec(subject: Subject) -> None:
    status, text = shown(subject, "call", subject.program, *subject.call)
    assert status == 0
    assert subject.shown in text  # its standard error is the terminal, too
    done = piped(subject, "call", subject.program, *subject.call)
    assert (done.status, done.out) == (0, subject.piped)
    done = piped(subject, "describe", subject.program, subject.method)
    assert json.loads(done.out)["name"].endswith(f".{subject.method}")
    for command in ("stub", "docs"):
        assert subject.method in piped(subject, command, subject.program).out


def test_ssh(subject: Subject, path: str) -> None:
    env, address = {"PATH": path}, f"ssh://somebody@host:22{subject.address}"
    status, text = shown(subject, "describe", address, subject.method, more=env)
    assert (status, text.partition("\n")[0]) == (0, subject.signature)
    status, text = shown(subject, "call", address, *subject.call, more=env)
    done = piped(subject, "call", address, *subject.call, more=env)
    if subject.is_descriptor:
        assert (status, done.status, done.out) == (1, 1, "")
        assert text == done.err
        assert text.startswith("seqrpc: rpc.DescriptorsLost: a descriptor cannot cross ssh")
    else:
        assert (status, text) == (0, subject.shown)
        assert done == Done(0, subject.piped, "")
    assert piped(subject, "stub", address, more=env) == piped(subject, "stub", address, more=env)
    done = piped(subject, "call", f"{address}.gone", "x", more=env)
    assert (done.status, done.out) == (3, "")


def test_completion(subject: Subject, path: str) -> None:
    done = piped(subject, "completion", "bash")
    assert (done.status, done.err) == (0, "")
    assert shown(subject, "completion", "bash") == (0, done.out)
    env = {**subject.env, "PATH": path, "PS1": "$ ", "HISTFILE": "", "INPUTRC": "/dev/null", "NO_COLOR": "1"}
    opened = Terminal(["bash", "--norc", "--noprofile", "-i"], env=env)
    try:
        opened.type('eval "$(seqrpc completion bash)"; bind "set enable-bracketed-paste off"; echo $((40 + 2))\n')
        opened.wait_for("$ ", after="\r42\r\n")
        name = f"{subject.services[0]}.{subject.method}"
        opened.type(f"echo seqrpc; seqrpc describe {subject.address} {name[:-2]}\t")
        opened.wait_for(f"{subject.address} {name}")
        opened.type("\n")
        opened.wait_for(subject.signature, after="\r\nseqrpc\r\n")
        opened.type("exit\n")
        assert opened.end() == 0
    finally:
        opened.close()


def test_serve(subject: Subject, socket_path: Path) -> None:
    if subject.name == "logs":
        pytest.skip("the log daemon serves itself, which test_exec and all others here do")
    with terminal("serve", subject.spec, socket_path, env=subject.env) as opened:
        opened.wait_for(f"serving {', '.join(subject.services)} at {socket_path}, as process ")
        assert piped(subject, "call", socket_path, *subject.call) == Done(0, subject.piped, "")
        opened.type("\x03")
        assert opened.end() == 0
        assert opened.after == opened.before
    assert not socket_path.exists()
    with started("serve", subject.spec, socket_path, "--mode", "660", env=subject.env) as process:
        assert process.stderr.readline().startswith(b"serving ")
        assert socket_path.stat().st_mode & 0o777 == 0o660
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not socket_path.exists()


def test_serve_reloads_what_has_changed(socket_path: Path, tmp_path: Path) -> None:
    made, _argv = vault(tmp_path)
    module = tmp_path / "locked_vault.py"

    def reload(wait: Callable[[str], object], passphrase: str) -> None:
        module.write_text(VAULT.replace("1234", passphrase))
        wait(f"{module} has changed")
        wait("serving Vault at ")
        done = piped(made, "call", socket_path, "unlock", passphrase)
        assert json.loads(done.out) == {"object": ["OpenVault.get", "OpenVault.put"]}
        assert piped(made, "call", socket_path, "unlock", "1234").status == 1

    with terminal("serve", "--reload", made.spec, socket_path, env=made.env) as opened:
        opened.wait_for("serving Vault at ")
        before = len(opened.seen)
        reload(lambda text: opened.wait_for(text, after=opened.seen[:before].decode()), "changed")
        opened.type("\x03")
        assert opened.end() == 0
        assert opened.after == opened.before
    module.write_text(VAULT)
    with started("serve", "--reload", made.spec, socket_path, env=made.env) as process:

        def wait(text: str) -> None:
            while not process.stderr.readline().startswith(text.encode()):
                pass

        wait("serving Vault at ")
        reload(wait, "changed again")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_stream_is_followed_at_a_terminal_and_through_a_pipe(subject: Subject) -> None:
    if subject.name == "vault":
        pytest.skip("it has no streams")
    method = ("follow", "a.log", "start=0") if subject.name == "logs" else ("watch",)
    first = "first" if subject.name == "logs" else '{"tunnels":["tun7"]'
    with terminal("call", subject.address, *method, env=subject.env) as opened:
        opened.wait_for(first)
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert opened.after == opened.before
    with started("call", subject.address, *method, env=subject.env) as process:
        line = process.stdout.readline()
        assert compact(json.loads(line)).strip('"').startswith(first)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
        assert process.stderr.read() == b""


def test_a_socket_that_comes_is_told_and_given_to_a_program(subject: Subject) -> None:
    if subject.name != "netcfg":
        pytest.skip("it gives no sockets")
    look = "import socket; print(socket.socket(fileno=0).getsockname()[0])"
    args = ("call", subject.address, "listen", "0", "--exec", shlex.join([sys.executable, "-c", look]))
    assert shown(subject, *args) == (0, "0.0.0.0\n")
    assert piped(subject, *args) == Done(0, "0.0.0.0\n", "")
    done = piped(subject, "call", subject.address, "listen", "1")
    assert (done.status, done.err) == (1, "seqrpc: netcfg.NotConfigured: 1 is not configured; data: [0]\n")
    status, text = shown(subject, "call", subject.address, "listen", "0")
    assert (status, text) == (1, "seqrpc: the socket that came cannot be read: Transport endpoint is not connected\n")


# How they end


STATUSES = [
    (("call", "{desk}", "add", "1"), 0, "2"),
    (("call", "{desk}", "fail"), 1, "seqrpc: desk.Empty: nothing there"),
    (("call", "{desk}", "add", "x"), 2, "seqrpc: a=x: int is wanted"),
    (("call", "{desk}"), 2, "seqrpc: Missing argument 'METHOD'"),
    (("describe",), 2, "seqrpc: Missing argument 'ADDRESS'"),
    (("call", "{desk}", "zzz"), 3, "seqrpc: there is no method 'zzz'"),
    (("call", "{desk}.gone", "add"), 3, "seqrpc: NobodyListens: "),
    (("describe", "{desk}.gone"), 3, "seqrpc: NobodyListens: "),
    (("stub", "{desk}.gone"), 3, "seqrpc: NobodyListens: "),
    (("docs", "{desk}.gone", "-o", "x"), 3, "seqrpc: NobodyListens: "),
    (("diff", "{desk}", "{desk}.gone"), 3, "seqrpc: NobodyListens: "),
    (("call", "{desk}", "secret"), 4, "seqrpc: rpc.PermissionDenied: "),
    (("call", "{desk}", "sleep", "60", "--timeout", "0.2"), 5, "seqrpc: rpc.DeadlineExceeded: "),
    (("describe", "{silent}", "--timeout", "0.2"), 5, "seqrpc: rpc.DeadlineExceeded: "),
    (("stub", "{silent}", "--timeout", "0.2"), 5, "seqrpc: rpc.DeadlineExceeded: "),
    (("diff", "{desk}", "{silent}", "--timeout", "0.2"), 5, "seqrpc: rpc.DeadlineExceeded: "),
    (("docs", "{silent}", "-o", "x", "--timeout", "0.2"), 5, "seqrpc: rpc.DeadlineExceeded: "),
    (("serve", "support.desk:Desk", "{desk}"), 1, "seqrpc: AddressInUse: "),
    (("serve", "support.desk:Nobody", "{desk}"), 2, "seqrpc: support.desk has no 'Nobody'"),
    (("completion", "tcsh"), 2, "seqrpc: Invalid value for "),
]


@pytest.fixture(scope="module")
def desk() -> Iterator[dict[str, str]]:
    """Return where a desk is, and somebody who does not answer."""
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
        address = f"{directory}/desk"
        with (
            started("serve", "support.desk:both", address) as process,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent,
        ):
            silent.bind(f"{directory}/silent")
            silent.listen(100)
            assert process.stderr.readline().startswith(b"serving ")
            yield {"desk": address, "silent": f"{directory}/silent"}


@pytest.mark.parametrize("args, status, text", STATUSES, ids=[" ".join(args) for args, _status, _text in STATUSES])
def test_the_status_tells_the_kind(desk: dict[str, str], args: tuple[str, ...], status: int, text: str) -> None:
    words = [arg.format(**desk) for arg in args]
    done = seqrpc_command(*words)
    assert done.status == status
    assert (done.err or done.out).startswith(text)
    assert (done.out == "") == (status != 0)
    assert (done.err.count("\n"), done.out.count("\n")) == ((1, 0) if status else (0, 1))
    told_status, told = at_terminal(*words)
    assert (told_status, told) == (status, done.err or done.out)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("seqrpc call {desk} forever | head -n 1; echo ${{PIPESTATUS[0]}}", "0\n141\n"),
        ("seqrpc call {desk} forever > /dev/full; echo $?", "seqrpc: ENOSPC: No space left on device\n1\n"),
        ("seqrpc call {desk} add 1 >&-; echo $?", "seqrpc: EBADF: Bad file descriptor\n1\n"),
        ("seqrpc call {desk} add - <&-; echo $?", "seqrpc: there is no standard input\n2\n"),
    ],
)
def test_a_shell_is_told_of_what_happens_to_the_streams(
    desk: dict[str, str], path: str, line: str, expected: str
) -> None:
    argv, env = ["bash", "-c", f"{{ {line.format(**desk)}; }} 2>&1"], environment({"PATH": path})
    opened = Terminal(argv, env=env)
    try:
        assert opened.end() == 0
        assert opened.after == opened.before
        assert opened.text == expected
    finally:
        opened.close()
    done = subprocess.run(argv, env=env, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_shell_is_told_of_signals(desk: dict[str, str], number: int) -> None:
    with started("call", desk["desk"], "forever") as process:
        assert process.stdout.readline() == b"0\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
        assert process.stderr.read() == b""
    with terminal("call", desk["desk"], "forever") as opened:
        opened.wait_for("1\r\n")
        opened.process.send_signal(number)
        assert opened.end() == -number
        assert opened.after == opened.before
