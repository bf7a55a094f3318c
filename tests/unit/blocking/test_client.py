from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.dropped import unclosed
from support.sync import LOOPS, NewLoop, Raw, Thread, raw_peer, served

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.client import connected_socket
from seqrpc.errors import AddressError, DeadlineExceeded, NobodyListens, ServerBusy, UntrustedServer
from seqrpc.kernel.addresses import parse_address
from seqrpc.limits import Limits


class S(seqrpc.Service):
    @seqrpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    return LOOPS[request.param]


def test_it_connects_to_addresses(socket_path: Path, new_loop: NewLoop) -> None:
    with served(socket_path, S(), new_loop), blocking.connect(socket_path) as connection:
        assert connection.call("S.add", 2, 3) == 5


def test_it_takes_sockets() -> None:
    with raw_peer() as (connection, raw):
        raw.send(1, 0, None, 7)
        assert connection.call("S.add", 2, 3) == 7


def test_an_inherited_socket_is_an_address() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, blocking.connect(f"fd:{ours.detach()}") as connection:
        Raw(theirs).send(1, 0, None, 7)
        assert connection.call("S.add", 2, 3) == 7


def test_there_must_be_one_of_both(socket_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with pytest.raises(ValueError, match="pass an address, or sock=, and not both"):
            blocking.connect(socket_path, sock=ours)
        with pytest.raises(ValueError, match="pass an address, or sock=, and not both"):
            blocking.connect()


def test_sockets_of_other_kinds_are_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(AddressError, match="SOCK_SEQPACKET was expected"):
        blocking.connect(sock=ours)


def test_nobody_listens(socket_path: Path) -> None:
    with pytest.raises(NobodyListens, match="there is no such file"):
        blocking.connect(socket_path)


@pytest.fixture
def busy(socket_path: Path) -> object:
    """A listener whose backlog is full."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(socket_path))
    listener.listen(0)
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waiting.connect(str(socket_path))
    yield listener
    waiting.close()
    listener.close()


def test_a_full_backlog_is_waited_for(busy: socket.socket, socket_path: Path) -> None:
    connecting = Thread(lambda: blocking.connect(socket_path))
    accepted = [busy.accept()[0] for _ in range(2)]
    connecting.result().close()
    for sock in accepted:
        sock.close()


def test_a_full_backlog_is_not_waited_for_too_long(busy: socket.socket, socket_path: Path) -> None:
    with pytest.raises(ServerBusy, match="its backlog was full for"):
        blocking.connect(socket_path, limits=Limits(connect_timeout=0.01))
    with pytest.raises(DeadlineExceeded, match="the time given by"), seqrpc.timeout(0.01):
        blocking.connect(socket_path)


def test_ctrl_c_ends_the_wait(busy: socket.socket, socket_path: Path) -> None:
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        blocking.connect(socket_path, limits=Limits(connect_timeout=1000))


def test_it_is_checked_who_listens(socket_path: Path) -> None:
    with served(socket_path, S()):
        with blocking.connect(socket_path, server=seqrpc.policy.same_user) as connection:
            assert connection.call("S.add", 2, 3) == 5
        with pytest.raises(UntrustedServer, match="does not admit who listens there"):
            blocking.connect(socket_path, server=~seqrpc.policy.anyone)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with pytest.raises(UntrustedServer, match="sock=: server="):
            blocking.connect(sock=ours, server=~seqrpc.policy.anyone)
        assert ours.fileno() == -1
        assert theirs.recv(10) == b""


def test_services_that_need_a_loop_are_refused() -> None:
    class Living(seqrpc.Service):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with pytest.raises(TypeError, match=r"Living\.lifespan needs an event loop"):
            blocking.connect(sock=ours, services=Living())
        with pytest.raises(TypeError):
            blocking.connect(sock=ours, interceptors=[3])  # type: ignore[list-item]


def test_a_new_socket_is_blocking_and_an_inherited_one_stays_as_it_is(socket_path: Path) -> None:
    with served(socket_path, S()), connected_socket(parse_address(socket_path), 10) as sock:
        assert sock.getblocking()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs, connected_socket(parse_address(f"fd:{ours.detach()}"), 10) as sock:
        assert not os.get_blocking(sock.fileno())


def test_reconnecting_connections_are_made_here_too(socket_path: Path) -> None:
    with served(socket_path, S()):
        connection = blocking.connect(socket_path, reconnect=True)
        with connection:
            assert connection.call("S.add", 2, 3) == 5
            connection.fileno()
        dropped = blocking.connect(socket_path, reconnect=True)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del dropped


def test_one_that_is_dropped_unclosed_is_closed_with_all_that_others_hold_of_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        raw = Raw(theirs)
        connection = blocking.connect(sock=ours, services=S())
        raw.send(0, 1, "S.add", [2, 3])
        raw.send(1, 0, None, 7)
        assert connection.call("S.add", 1, 1) == 7
        received = [raw.receive(), raw.receive()]
        assert [1, 1, None, 5] in received
        with unclosed():
            del connection
        assert raw.receive() is None
