"""Listening sockets and their files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

from seqrpc.errors import AddressError, AddressInUse, ListenError
from seqrpc.kernel import forks, sockets
from seqrpc.kernel.addresses import AbstractAddress, Address, FdAddress, PathAddress, SystemdAddress
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.kernel.unread import close_listening
from seqrpc.text import shown

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel caps it at ``net.core.somaxconn``."""

_NAME_BYTES = 255  # NAME_MAX
_PERMISSION_BITS = 0o777
_OCTAL = re.compile("[0-7]{3}")  # how people write them
_DEFAULT_MODE = 0o600

_REASONS = {
    errno.ENOENT: "there is no directory {directory}; make it first (in a systemd unit: RuntimeDirectory=)",
    errno.ENOTDIR: "{directory} is no directory",
    errno.EACCES: "permission denied: this user may not make files in {directory}",
    errno.EPERM: "the system does not permit it; a file's group may be one of its owner's only, unless root sets it",
    errno.EROFS: "{directory} is in a file system that is read-only",
}
_OWNER_BITS = 0o700
_GROUP_BITS = 0o060
_ALL_BUT_OWNER = 0o022  # connecting takes the right to write; 0o602 keeps a group out
_NO_GROUP = 0xFFFF_FFFF  # (gid_t) -1


class ListeningSocket:
    """A socket that listens, with its file if it has one. Closing removes the file if it is still ours.

    A lock on a file beside the path (``x.sock.lock``) claims it as long as the socket listens: if two
    servers start at once, one of them gets :class:`~seqrpc.errors.AddressInUse`. A socket file whose
    server died is replaced; one that answers, and any other file, is never touched.
    In a forked child the socket is closed, and the files stay.
    """

    def __init__(self, sock: socket.socket, address: Address | None) -> None:
        """Own the socket."""
        self.sock = sock
        self.address = address
        self._claim: _Claim | None = None
        self._access: tuple[int, int | None] = (_OWNER_BITS, None)  # mode and group that the file is to have
        self.is_anothers = False
        """Whether another process serves here by copies of the socket and the lock: closing then lets go of ours."""
        self.takes_descriptors = True
        """Whether clients may send descriptors, where the socket is inherited: :meth:`renew` lets the kernel know."""
        forks.register(self, ListeningSocket.forked)

    def claim(self, path: str, mode: int, group: int | None) -> None:
        """Claim ``path``, to bind to it with exactly this mode and group.

        Raises:
            AddressInUse: somebody has it.
            OSError: there is no such directory, or it is not writable.
        """
        self._claim = _Claim(path)
        self._claim.remove_stale()
        self._access = mode, group

    def offer(self) -> tuple[Offer, list[int]]:
        """Return what another process needs to serve here: what it is, and its descriptors, lent (:func:`inherit`)."""
        mode, gid = self._access
        by_packet = PLATFORM.asks_for_senders(self.sock)
        if self._claim is None:
            return Offer(_name_of(self.address), by_packet, mode, gid, (0, 0)), [self.sock.fileno()]
        offer = Offer(_name_of(self.address), by_packet, mode, gid, self._claim.file)
        return offer, [self.sock.fileno(), self._claim.fileno()]

    def inherit_claim(self, path: str, lock: OwnedFd, file: tuple[int, int], access: tuple[int, int | None]) -> None:
        """Have the right to ``path`` from a process whose lock this is; it is this object's, or closed.

        Raises:
            AddressInUse: the lock is not that of the path, or not held.
            OSError: there is no such directory.
        """
        try:
            self._claim = _Claim(path, lock, file)
        except BaseException:
            lock.close()
            raise
        self._access = access

    def renew(self, backlog: int) -> None:
        """Own what was inherited. Those who connect see from now on that this process listens.

        ``SO_PEERCRED`` at their end has who called ``listen`` last. A service manager's socket stays its own.
        """
        self.is_anothers = False
        self.renew_descriptors(self.sock)
        if isinstance(self.address, PathAddress | AbstractAddress):
            with contextlib.suppress(OSError):  # it listens in any case
                self.sock.listen(backlog)

    def renew_descriptors(self, sock: socket.socket) -> None:
        """Let a socket that was inherited take descriptors or refuse them, as this process wants it."""
        if self.takes_descriptors:
            PLATFORM.accept_descriptors(sock)
        else:
            PLATFORM.refuse_descriptors(sock)

    def listen(self, backlog: int = BACKLOG) -> None:
        """Begin to listen: from here on the address can be connected to. One that was adopted does already.

        Raises:
            AddressInUse: somebody took the claimed path all the same.
            ListenError: the kernel refuses.
        """
        if sockets.is_listening(self.sock):
            return
        with _explaining(self.address):
            if self._claim is not None:
                self._claim.bind(self.sock, *self._access)
            self.sock.listen(backlog)

    def forked(self) -> None:
        """Let go of the parent's socket and lock, which would outlive the parent here; the files are the parent's."""
        if self._claim is not None:
            self._claim.forked()
            self._claim = None
        self.sock.close()

    def close(self) -> None:
        """Stop listening, remove the file if it is ours, and let the claim go; closing twice does nothing."""
        if self.is_anothers:
            self.forked()
            return
        # The file goes first: while the socket is open no other file can have its inode number.
        try:
            if self._claim is not None:
                self._claim.release()
                self._claim = None
        finally:
            self._close_socket()

    def _close_socket(self) -> None:
        if self.sock.fileno() < 0:
            return
        if isinstance(self.address, PathAddress | AbstractAddress):
            close_listening(self.sock, frees_name=isinstance(self.address, AbstractAddress))
        else:  # others may still use it; if not, closing it also ends those who wait to be accepted
            CLOSER.put(self.sock.detach())


def listen(
    address: Address,
    *,
    mode: int | None = None,
    group: int | str | None = None,
    backlog: int = BACKLOG,
    accept_descriptors: bool = True,
    pass_credentials: bool = False,
) -> ListeningSocket:
    """Listen at ``address``.

    Args:
        address: where. An inherited socket (``fd:``, ``systemd:``) must listen already; its file,
            mode and group are the business of whoever made it.
        mode: permission bits of the socket file, whatever the umask, by default 0o600; set before anybody can connect.
        group: group of the socket file, by name or number; until it is set, only the owner can connect.
        backlog: connections that may wait to be accepted.
        accept_descriptors: False makes the kernel refuse descriptors sent to this server where it
            can (``SO_PASSRIGHTS``, protocol 9.3).
        pass_credentials: True makes each packet that arrives carry its true sender (``SO_PASSCRED``, protocol 9.2).

    Raises:
        AddressInUse: a live server has it, or what is there is no socket; ``errno`` is ``EADDRINUSE``.
        AddressError: an inherited socket does not fit, there is no such group, the mode is none or lets no group
            connect that is given, or mode and group are given for a socket that others made.
        ListenError: the directory does not exist, or is not writable, or this user is not in the group.
    """
    listening = claim(
        address,
        mode=mode,
        group=group,
        accept_descriptors=accept_descriptors,
        pass_credentials=pass_credentials,
    )
    try:
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def claim(
    address: Address, *, mode: int | None, group: int | str | None, accept_descriptors: bool, pass_credentials: bool
) -> ListeningSocket:
    """Have the right to an address before anybody can connect there: :meth:`ListeningSocket.listen` makes that so.

    A path is locked, and has no file yet; an abstract name is bound. Arguments are those of :func:`listen`.

    Raises:
        AddressInUse, AddressError, ListenError: as for :func:`listen`.
    """
    if isinstance(address, FdAddress | SystemdAddress):
        check_access_of_others(str(address), mode, group)
    mode = _DEFAULT_MODE if mode is None else mode
    _check_mode(mode)
    inherited = sockets.inherited_socket(address)
    if inherited is not None:
        return adopt_listening(
            inherited, address, accept_descriptors=accept_descriptors, pass_credentials=pass_credentials
        )
    with _explaining(address):
        listening = ListeningSocket(sockets.new_socket(), address)
        sock = listening.sock
        try:
            _prepare(sock, accept_descriptors=accept_descriptors, pass_credentials=pass_credentials)
            if isinstance(address, PathAddress):
                listening.claim(address.path, mode, _group_number(group, mode))
            else:
                assert isinstance(address, AbstractAddress)
                _bind_abstract(sock, address)
        except BaseException:
            listening.close()
            raise
    return listening


@contextlib.contextmanager
def _explaining(address: Address | None) -> Iterator[None]:
    """Raise what the system says about an address as a ListenError with a sentence for people."""
    try:
        yield
    except ListenError:
        raise
    except OSError as exc:
        number = exc.errno or errno.EIO
        directory = os.path.dirname(address.path) or "." if isinstance(address, PathAddress) else ""
        reason = _REASONS.get(number, "{strerror}") if directory else "{strerror}"
        text = reason.format(directory=repr(shown(directory)), strerror=exc.strerror or exc)
        where = "the socket" if address is None else shown(address)
        raise ListenError(number, f"cannot listen at {where}: {text}") from None


def _prepare(sock: socket.socket, *, accept_descriptors: bool, pass_credentials: bool) -> None:
    """Set what accepted sockets inherit."""
    if not accept_descriptors:
        PLATFORM.refuse_descriptors(sock)
    if pass_credentials:
        PLATFORM.ask_for_senders(sock)


def adopt_listening(
    sock: socket.socket, address: Address | None, *, accept_descriptors: bool, pass_credentials: bool = False
) -> ListeningSocket:
    """Return the owner of a socket that already listens; close a socket that does not.

    Raises:
        AddressError: it does not listen.
    """
    if not sockets.is_listening(sock):
        sock.close()
        raise AddressError(f"{address}: a listening socket was expected, this one does not listen")
    sock.setblocking(False)  # accept(2) has no flag for it
    _prepare(sock, accept_descriptors=accept_descriptors, pass_credentials=pass_credentials)
    return ListeningSocket(sock, address)


class Offer(NamedTuple):
    """What a process says of the socket that it listens with to the one that is to serve there after it."""

    address: bytes
    by_packet: bool
    """Whether each packet names its sender."""
    mode: int
    gid: int | None
    file: tuple[int, int]
    """Device and inode of the socket file."""


def _name_of(address: Address | None) -> bytes:
    return os.fsencode(str(address))


def inherit(
    offer: Offer,
    fds: list[OwnedFd],
    address: Address,
    *,
    mode: int | None,
    group: int | str | None,
    accept_descriptors: bool,
    pass_credentials: bool,
) -> ListeningSocket:
    """Return what another process listens with, which :meth:`ListeningSocket.offer` said and sent; it is still its own.

    The other arguments are those of :func:`listen`, and must be what they are there: clients are to notice nothing.

    Args:
        offer: what was said.
        fds: what was sent: the socket and, where there is a socket file, the lock. They are closed if this fails.
        address: where this process is to listen.
        mode: as for :func:`listen`.
        group: as for :func:`listen`.
        accept_descriptors: as for :func:`listen`, from :meth:`ListeningSocket.renew` on.
        pass_credentials: as for :func:`listen`.

    Raises:
        AddressError: the other process listens elsewhere, or in another way.
        AddressInUse: the lock is not that of the path, or not held.
        ListenError: the directory is not there.
    """
    listening: ListeningSocket | None = None
    try:
        if not fds:
            raise AddressError(f"{address}: no listening socket came from the process that serves there")
        listening = ListeningSocket(sockets.adopt(fds.pop(0), str(address)), address)
        listening.is_anothers = True
        listening.takes_descriptors = accept_descriptors
        if not sockets.is_listening(listening.sock):
            raise AddressError(f"{address}: a listening socket was expected, this one does not listen")
        if isinstance(address, FdAddress | SystemdAddress):
            access = offer.mode, offer.gid
        else:
            wanted = _DEFAULT_MODE if mode is None else mode
            _check_mode(wanted)
            gid = _group_number(group, wanted)
            access = (wanted, gid) if isinstance(address, PathAddress) else (offer.mode, offer.gid)
        named = _name_of(address) == offer.address or isinstance(
            address, PathAddress
        )  # the lock tells where paths lead
        if not named or access != (offer.mode, offer.gid) or pass_credentials != offer.by_packet:
            raise AddressError(
                f"a restart without a gap changes neither address nor mode=, group= and pass_credentials=, and"
                f" {shown(os.fsdecode(offer.address))} is served otherwise now: stop the daemon, and start it anew"
            )
        if isinstance(address, PathAddress):
            if not fds:
                raise AddressError(f"{shown(address)}: no lock came from the process that serves there")
            with _explaining(address):
                listening.inherit_claim(address.path, fds.pop(0), offer.file, access)
    except BaseException:
        if listening is not None:
            listening.close()
        raise
    finally:
        close_all(fds)
    return listening


def _check_mode(mode: object) -> None:
    if not isinstance(mode, int):
        digits = mode if isinstance(mode, str) and mode.isdecimal() else "660"
        raise TypeError(f"mode= takes a number, got {mode!r}: write mode=0o{digits}")
    if mode & ~_PERMISSION_BITS:
        text = f"mode= takes permission bits up to 0o777, got {mode:#o}"
        if _OCTAL.fullmatch(str(mode)):
            text = f"{text}, which is {mode} without its 0o: write mode=0o{mode}"
        raise AddressError(text)


def check_access_of_others(where: str, mode: int | None, group: int | str | None) -> None:
    """Check that nobody asks for the mode or the group of a socket that others made.

    To take no notice would leave the file open to those whom the caller wants to keep out.

    Args:
        where: the socket, as the caller named it.
        mode: what was asked for, None if nothing was.
        group: likewise.

    Raises:
        AddressError: one is given; the message says who has to set it.
    """
    asked = [name for name, value in (("mode=", mode), ("group=", group)) if value is not None]
    if not asked:
        return
    if where.startswith("systemd:"):
        way_out = "the service manager made the socket; set SocketMode= and SocketGroup= in its .socket unit"
    else:
        way_out = "the socket was made elsewhere; whoever binds it sets the mode and the group of its file"
    raise AddressError(f"{where}: {' and '.join(asked)} cannot be given here: {way_out}")


def _group_number(group: int | str | None, mode: int) -> int | None:
    if group is None:
        return None
    number = group if isinstance(group, int) else _number_of(group)
    if not 0 <= number < _NO_GROUP:  # chown(2) would leave the group alone
        raise AddressError(f"group= takes a group's name or number, got {group}")
    if not mode & _ALL_BUT_OWNER:
        text = f"group= has no effect with mode {mode:#o}, which lets nobody but the owner connect"
        raise AddressError(f"{text}: write mode={mode | _GROUP_BITS:#o}, too")
    return number


def _number_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise AddressError(f"group= names no group of this machine: {group!r}; 'getent group' lists them") from None


def _bind_abstract(sock: socket.socket, address: AbstractAddress) -> None:
    try:
        sock.bind(sockets.abstract_name(address))
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        raise AddressInUse(errno.EADDRINUSE, f"{shown(address)} is in use: somebody listens there") from None


_ours: set[tuple[int, int]] = set()
"""Locks that this process holds, by device and inode."""


def _identity_of(lock: OwnedFd) -> tuple[int, int]:
    status = os.fstat(lock.fileno())
    return status.st_dev, status.st_ino


class _Claim:
    """The right to a path: a lock beside it, and the file that was bound under it."""

    def __init__(self, path: str, lock: OwnedFd | None = None, file: tuple[int, int] | None = None) -> None:
        """Take the lock.

        Args:
            path: the path.
            lock: the lock of a process that has the path, and shares it; it is this object's unless this raises.
            file: device and inode of the file that was bound under it.

        Raises:
            AddressInUse: another process has it.
            OSError: there is no such directory, or it is not writable.
        """
        directory, self._name = os.path.split(path)
        self._path = path
        self._bound: str | None = None if lock is None else self._name
        self._file: tuple[int, int] | None = file
        self._process = os.getpid()  # Python does not notice a child made without os.fork, as by a library in C
        self._directory = OwnedFd(os.open(directory or ".", _DIRECTORY_FLAGS))
        try:
            if not self._name:
                raise IsADirectoryError(errno.EISDIR, "a socket's path ends with a file name", path)
            self._lock = self._take_lock() if lock is None else self._checked(lock)
        except BaseException:
            self._directory.close()
            raise
        self._known_as = _identity_of(self._lock)
        _ours.add(self._known_as)

    def fileno(self) -> int:
        """Return the descriptor of the lock, lent: whoever has a copy of it has the lock (flock(2))."""
        return self._lock.fileno()

    @property
    def file(self) -> tuple[int, int]:
        """Device and inode of the file that was bound."""
        return self._file or (0, 0)

    def _checked(self, lock: OwnedFd) -> OwnedFd:
        """Return a lock that another process shares, if it is that of this path and held.

        Raises:
            AddressInUse: it is not.
        """
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_same(os.fstat(lock.fileno()), self._lock_name()):
                return lock
        except BlockingIOError:
            pass
        text = f"{shown(self._path)} is not what the process that serves it has locked"
        raise AddressInUse(errno.EADDRINUSE, text)

    def _lock_name(self) -> str:
        name = f"{self._name}.lock"
        if len(os.fsencode(name)) <= _NAME_BYTES:
            return name
        import hashlib  # noqa: PLC0415 - it takes long to load, and hardly any name is so long

        return f".{hashlib.sha256(os.fsencode(self._name)).hexdigest()}.lock"

    def _take_lock(self) -> OwnedFd:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                lock = OwnedFd(os.open(self._lock_name(), flags, 0o600, dir_fd=self._directory.fileno()))
            except PermissionError:
                if self._status(self._lock_name()) is None:
                    raise
                message = f"{shown(self._path)} is in use: the lock beside it belongs to another user"
                raise AddressInUse(errno.EADDRINUSE, message) from None
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_same(os.fstat(lock.fileno()), self._lock_name()):
                    return lock
            except BlockingIOError:
                holder = "this process serves it" if _identity_of(lock) in _ours else "another process holds its lock"
                lock.close()
                raise AddressInUse(errno.EADDRINUSE, f"{shown(self._path)} is in use: {holder}") from None
            except BaseException:
                lock.close()
                raise
            lock.close()  # its last owner removed the file, so this lock means nothing now

    def _is_same(self, status: os.stat_result, name: str) -> bool:
        found = self._status(name)
        return found is not None and (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory.fileno(), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def bind(self, sock: socket.socket, mode: int, gid: int | None) -> None:
        """Bind ``sock`` to the path with exactly this mode and group, never wider in between.

        Raises:
            AddressInUse: somebody has the path, since :meth:`remove_stale` looked.
            OSError: the kernel refuses; what was made is removed by :meth:`release`.
        """
        directory = self._directory.fileno()
        try:
            # Until the file has its group, members of that group are among "others".
            self._bound = self._bind_narrow(sock, mode if gid is None else mode & _OWNER_BITS)
            self._file = _identity(directory, self._bound)
            _dress(directory, self._bound, self._file, mode, gid)
            if self._bound != self._name:
                os.link(self._bound, self._name, src_dir_fd=directory, dst_dir_fd=directory)
                temporary, self._bound = self._bound, self._name
                os.unlink(temporary, dir_fd=directory)
        except OSError as exc:
            if exc.errno not in (errno.EADDRINUSE, errno.EEXIST):
                raise
            message = f"{shown(self._path)} is in use: another process made it meanwhile"
            raise AddressInUse(errno.EADDRINUSE, message) from None

    def _bind_narrow(self, sock: socket.socket, mode: int) -> str:
        """Bind to the path, or to a short name beside it if the path's own is too long; return the name."""
        if sockets.fits(self._path):
            _bind_with_mode(sock, self._path, mode)
            return self._name
        if sys.platform != "linux":
            limit = PLATFORM.sun_path_bytes
            raise OSError(errno.ENAMETOOLONG, f"paths of sockets have less than {limit} bytes here", self._path)
        through = f"/proc/self/fd/{self._directory.fileno()}"
        name = self._name
        if not sockets.fits(f"{through}/{name}"):
            name = f".{os.getpid()}-{os.urandom(4).hex()}.sock"
        _bind_with_mode(sock, f"{through}/{name}", mode)
        return name

    def remove_stale(self) -> None:
        """Remove a socket file that nobody listens on; who claims a path hears at once that it is in use.

        Raises:
            AddressInUse: somebody does, or it is no socket, or there is no telling.
        """
        status = self._status(self._name)
        if status is None:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise AddressInUse(errno.EADDRINUSE, f"{shown(self._path)} exists and is no socket; it was left alone")
        with sockets.new_socket() as probe:
            try:
                sockets.connect_path(probe, self._path)
            except ConnectionRefusedError:
                pass
            except FileNotFoundError:
                return
            except OSError as exc:  # EAGAIN: its backlog is full; EPROTOTYPE: another type; EACCES: not ours
                raise AddressInUse(errno.EADDRINUSE, f"{shown(self._path)} is in use: {exc.strerror}") from None
            else:
                raise AddressInUse(errno.EADDRINUSE, f"{shown(self._path)} is in use: somebody listens there")
        if self._is_same(status, self._name):
            os.unlink(self._name, dir_fd=self._directory.fileno())

    def release(self) -> None:
        """Remove the socket file, if it is still the one bound here, and the lock file; then let both go.

        In a forked child this removes nothing: the files are the parent's.
        """
        try:
            if os.getpid() == self._process:
                # If the directory is gone or no longer writable, there is nothing that we can do.
                with contextlib.suppress(OSError):
                    self._remove_bound()
                with contextlib.suppress(OSError):
                    self._remove_lock()
        finally:
            self.forked()

    def forked(self) -> None:
        """Let go in a forked child: the lock is held as long as any copy of its descriptor is open (flock(2))."""
        _ours.discard(self._known_as)
        self._lock.close()
        self._directory.close()

    def _remove_lock(self) -> None:
        if self._is_same(os.fstat(self._lock.fileno()), self._lock_name()):
            os.unlink(self._lock_name(), dir_fd=self._directory.fileno())

    def _remove_bound(self) -> None:
        if self._bound is None:
            return
        status = self._status(self._bound)
        if status is not None and (status.st_dev, status.st_ino) == self._file:
            os.unlink(self._bound, dir_fd=self._directory.fileno())


_DIRECTORY_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


def _bind_with_mode(sock: socket.socket, path: str, mode: int) -> None:
    """Bind so that the file has at most ``mode`` from its first instant.

    Linux gives the file the mode of the socket's own inode less the umask (``unix_bind``). Elsewhere
    only the umask helps, which is changed for the whole process during the call.
    """
    if sys.platform == "linux":
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        return
    before = os.umask(_PERMISSION_BITS & ~mode)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _identity(directory: int, name: str) -> tuple[int, int]:
    """Return device and inode of a fresh socket file.

    Raises:
        FileExistsError: somebody replaced it with something else.
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "a socket file was replaced as soon as it was made", name)
    return status.st_dev, status.st_ino


def _dress(directory: int, name: str, identity: tuple[int, int], mode: int, gid: int | None) -> None:
    """Give the fresh socket file its group, then its mode.

    Raises:
        FileExistsError: another file is in its place.
        OSError: the kernel refuses, for example because this user is not in the group.
    """
    if sys.platform != "linux":
        if gid is not None:
            os.chown(name, -1, gid, dir_fd=directory, follow_symlinks=False)
        os.chmod(name, mode, dir_fd=directory, follow_symlinks=False)
        return
    # The descriptor holds the file: if somebody swaps in another one meanwhile, that one is not changed.
    with OwnedFd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as file:
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != identity:
            raise FileExistsError(errno.EEXIST, "a socket file was replaced as soon as it was made", name)
        pinned = f"/proc/self/fd/{file.fileno()}"
        if gid is not None:
            os.chown(pinned, -1, gid)
        if stat.S_IMODE(status.st_mode) != mode:  # the umask took bits away, or the group had to be set first
            os.chmod(pinned, mode)
