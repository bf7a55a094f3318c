from __future__ import annotations

import sys

import pytest

from seqrpc.kernel.freebsd import FreeBSD
from seqrpc.kernel.linux import Linux
from seqrpc.kernel.platforms import PLATFORM, choose


def test_linux() -> None:
    platform = choose("linux")
    assert isinstance(platform, Linux)
    assert platform.sun_path_bytes == 108
    assert not platform.credentials_come_once


@pytest.mark.parametrize("name", ["freebsd13", "freebsd14", "freebsd15"])
def test_freebsd_of_any_version(name: str) -> None:
    platform = choose(name)
    assert isinstance(platform, FreeBSD)
    assert platform.sun_path_bytes == 104
    assert platform.credentials_come_once


@pytest.mark.parametrize("name", ["darwin", "win32", "cygwin", "netbsd10", ""])
def test_others_are_told_why(name: str) -> None:
    with pytest.raises(ImportError, match=r"SOCK_SEQPACKET.*Linux and FreeBSD"):
        choose(name)


def test_this_machine_has_its_own() -> None:
    assert type(PLATFORM) is type(choose(sys.platform))
