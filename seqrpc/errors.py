"""Every exception of seqrpc; whose fault it is shows in the class.

SeqrpcError
├── AddressError          an address that cannot be read (yours)
├── ListenError           the address cannot be listened at
│   └── AddressInUse          another server lives there
├── ConnectError          nobody to talk to at that address
│   ├── NobodyListens         no such socket, or its daemon has ended
│   ├── ConnectDenied         this user may not connect
│   ├── WrongSocketType       what is there is no SEQPACKET socket
│   ├── ServerBusy            somebody listens, but does not accept
│   └── UntrustedServer       somebody listens, but not whom you asked for
├── ConnectionLost        the connection ended before the answer came
│   └── WorkerCrashed         the child process that worked on it has ended
├── ProtocolError
│   ├── LocalProtocolError    this side asked for what the wire cannot carry
│   └── RemoteProtocolError   the other side broke the protocol
├── InvalidResult         an answer that does not fit the method's annotation
├── WrongProcess          used in a fork of the process that made it (yours)
├── WrongLoop             used in another thread, or on another event loop (yours)
└── RpcError              the other side answered with an error; it has a code

Each has an ``execution``, which says whether the call that met it ran (:class:`Execution`): what to look at before a
call is made again. A call also raises plain OSError, ValueError and TypeError for what cannot be sent, which have none:
nothing was sent.

Many of their texts quote the other side. Still, an exception prints itself (``str``, ``repr``, tracebacks) on one line
of bounded length (:func:`seqrpc.text.shown`); if that leaves something out, an attribute has the whole.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final, TypeVar

from seqrpc.text import shown

_MOST_CODE: Final = 100  # characters of a code that are shown

_MOST_EXPLAINED: Final = 500  # characters that say what is wrong with a message: the path to a value, and the reason


class Execution(enum.Enum):
    """Whether a call ran that ended in an error: what its caller has to know before making it again."""

    DID_NOT_RUN = "did not run"
    """Its handler was never started, and never will be. The call may be made again."""

    MAY_HAVE_RUN = "may have run"
    """Nobody knows here. It may have run, wholly or in part, and it may still run."""

    RAN = "ran"
    """Its handler was started, and answered."""


class SeqrpcError(Exception):
    """The root of all exceptions that seqrpc raises on purpose."""

    execution: Execution = Execution.MAY_HAVE_RUN
    """Whether the call that raised this ran. A class says what is true of most of its errors; one of which more is
    known says so itself."""


E = TypeVar("E", bound=SeqrpcError)


def not_run(error: E) -> E:
    """Note on an error that the call that raises it did not run, and will not; return it."""
    error.execution = Execution.DID_NOT_RUN
    return error


class AddressError(SeqrpcError, ValueError):
    """An address is not one of the forms of :mod:`seqrpc.kernel.addresses`, or names nothing usable."""

    execution = Execution.DID_NOT_RUN


class ListenError(SeqrpcError, OSError):
    """The address cannot be listened at; ``errno`` is the kernel's reason, and nothing was left there."""

    execution = Execution.DID_NOT_RUN

    def __str__(self) -> str:
        """Return the sentence for people, without the number."""
        return super().__str__() if self.strerror is None else self.strerror


class AddressInUse(ListenError):
    """A live server, or something that is no socket, is at the address; seqrpc touched nothing there."""


class ConnectError(SeqrpcError, OSError):
    """No connection could be made; ``errno`` is the kernel's reason, and nothing was sent.

    The subclasses say what kind of reason it is. Those that are none of them, as when the process has no descriptor
    left, are of this class itself.
    """

    execution = Execution.DID_NOT_RUN

    def __str__(self) -> str:
        """Return the sentence for people, without the number."""
        return super().__str__() if self.strerror is None else self.strerror


class NobodyListens(ConnectError):
    """There is no such socket, or nobody listens at it any more: the daemon has not started yet, or has ended."""


class ConnectDenied(ConnectError):
    """This user may not write to the socket file, or not pass through one of its directories."""


class WrongSocketType(ConnectError):
    """What is at the address is a socket of another type (a stream, datagrams), or a file that is no socket."""


class ServerBusy(ConnectError, TimeoutError):
    """Somebody listens, but accepted nobody for ``connect_timeout`` seconds. It is a :class:`TimeoutError` too.

    With ``reconnect=`` it is ``ready_timeout`` instead, or the moment of one attempt.
    """


class UntrustedServer(ConnectError):
    """The process that listens is none that ``connect(server=…)`` admits; nothing was sent."""


class ConnectionLost(SeqrpcError, ConnectionError):
    """The connection ended. A call that waited for its answer may have run; one that was never sent did not.

    ``execution`` tells them apart.
    """

    reason: str | None = None
    """The whole reason that the other side gave for taking no new requests, or None if it gave none."""


class WorkerCrashed(ConnectionLost):
    """The child process of a worker has ended: by itself, by a signal, or killed since it did not react.

    A call that it worked on may have run; ``execution`` tells of those that never reached it.
    """

    returncode: int | None = None
    """Its exit status, or the number of the signal that killed it, negative; None if it did not begin."""

    last_lines: tuple[str, ...] = ()
    """The last lines of its standard error, as far as they were read here."""


class ProtocolError(SeqrpcError):
    """A message breaks the wire protocol."""

    def __init__(self, message: str = "") -> None:
        """Keep the part of ``message`` that may be shown; it may quote what was sent."""
        super().__init__(shown(message, _MOST_EXPLAINED))


class LocalProtocolError(ProtocolError):
    """This side was asked to send what the protocol cannot carry; nothing was sent."""

    execution = Execution.DID_NOT_RUN


class RemoteProtocolError(ProtocolError):
    """The other side sent a malformed packet; the connection is closed (protocol 1.5)."""


class InvalidResult(SeqrpcError):
    """The answer of a call does not fit the result annotation of the called method.

    Args:
        message: what does not fit; it may quote the answer.
    """

    execution = Execution.RAN

    def __init__(self, message: str = "") -> None:
        """Hold the message."""
        super().__init__(shown(message))
        self.message = message
        """The whole message; the exception prints its beginning, on one line."""


class WrongProcess(SeqrpcError, RuntimeError):
    """Something was used in a fork of the process that made it; nothing was sent, and the parent is undisturbed.

    Connect again in the child, or start children before you connect, or with multiprocessing's method "spawn".
    """

    execution = Execution.DID_NOT_RUN


class WrongLoop(SeqrpcError, RuntimeError):
    """Something was used in a thread, or on an event loop, to which it does not belong; nothing was sent.

    Use ``asyncio.run_coroutine_threadsafe`` with its own loop, or :meth:`seqrpc.CurrentCall.run` in a handler
    that is a plain function.
    """

    execution = Execution.DID_NOT_RUN


class RpcError(SeqrpcError):
    """An error that crosses the wire as ``[code, message, data]`` (protocol 2.5).

    A subclass names its code once, ``class InsufficientFunds(RpcError, code="bank.InsufficientFunds")``.
    If a handler raises it, the code crosses the wire. The call raises the class of that code if the caller has it,
    else a plain :class:`RpcError` with the code in ``code``. Errors that come from the wire are made without calling
    ``__init__``, so a subclass may give it any signature. Its handler raised it: ``execution`` is ``RAN``, unless the
    class says otherwise.

    An error prints itself on one line of bounded length, because the message may be, or quote, what the other side
    said; ``message`` has that whole and as it came.

    A code belongs to one class in a process. ``shared=True`` beside it says that others may have it, too, as generated
    stubs do: then a call raises what is of all classes of the code.

    Args:
        message: for people; it is sent to the caller.
        data: any value that a result may be; it is sent to the caller.
        code: needed only if the class has none of its own.
    """

    code: str = ""
    message: str = ""
    data: Any = None
    remote: bool = False
    """True if a call of this side raised it: it was received, or the call could not be sent."""

    execution = Execution.RAN

    _classes: ClassVar[dict[str, type[RpcError]]] = {}
    """What is raised for each code."""

    _is_shared: ClassVar[bool] = False
    """Whether other classes may have the code, too; each class that has one says so itself."""

    def __init_subclass__(cls, *, code: str | None = None, shared: bool = False, **kwargs: Any) -> None:
        """Register the class under its ``code``; ``shared`` says that other classes may have it as well."""
        super().__init_subclass__(**kwargs)
        if code is None:
            return
        if not code:
            raise TypeError(f"{cls.__qualname__}: an error code is a non-empty string")
        if code.startswith("rpc.") and cls.__module__ != __name__:
            raise TypeError(f"{cls.__qualname__}: codes that begin with 'rpc.' are reserved, got {code!r}")
        cls.code = code
        cls._is_shared = shared
        raised = RpcError._raised_for(code, cls)
        if "execution" not in vars(cls):
            # Of the reserved codes, each has to say; that of an application is its handler's, whatever it derives from.
            cls.execution = Execution.MAY_HAVE_RUN if code.startswith("rpc.") else Execution.RAN
        RpcError._classes[code] = raised

    @staticmethod
    def _raised_for(code: str, cls: type[RpcError]) -> type[RpcError]:
        """Return the class of the errors that calls raise for a code which ``cls`` has, too, from now on."""
        known = RpcError._classes.get(code)
        several: tuple[type[RpcError], ...] = () if known is None else vars(known).get("_made_of", (known,))
        others = [one for one in several if (one.__module__, one.__qualname__) != (cls.__module__, cls.__qualname__)]
        for other in others:
            if not (_is_shared(cls) or _is_shared(other)):
                text = f"the code {code!r} belongs to {other.__module__}.{other.__qualname__}"
                raise TypeError(f"{cls.__qualname__}: {text}")
        # The application's own comes first, which may say more than a stub does.
        ordered = sorted([*others, cls], key=_is_shared)
        bases = [one for one in ordered if not any(one in other.__mro__[1:] for other in ordered)]
        if len(bases) == 1:
            return bases[0]
        try:
            own = {"_made_of": tuple(ordered), "__doc__": bases[0].__doc__, "__reduce__": _made_again}
            made = type(bases[0].__name__, tuple(bases), own)
        except TypeError:  # nothing can be of all of them
            return bases[0]
        made.__module__, made.__qualname__ = bases[0].__module__, bases[0].__qualname__
        return made

    def __init__(self, message: str = "", data: Any = None, *, code: str | None = None) -> None:
        """Make an error to raise in a handler."""
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code
        if not self.code:
            raise TypeError(f"{type(self).__name__} has no code: pass code=, or define a subclass with one")

    def __str__(self) -> str:
        """Return the parts of the code and the message that may be shown."""
        code, message = shown(self.code, _MOST_CODE), shown(self.message)
        return f"{code}: {message}" if message else code

    def __repr__(self) -> str:
        """Return the class, and the parts of the code and the message that may be shown."""
        code = "" if self.code == type(self).code else f", code={shown(self.code, _MOST_CODE)!r}"
        return f"{type(self).__name__}({shown(self.message)!r}{code})"

    @staticmethod
    def from_wire(code: str, message: str, data: Any) -> RpcError:
        """Return the error that ``[code, message, data]`` stands for, as the class of that code."""
        cls = RpcError._classes.get(code, RpcError)
        error = cls.__new__(cls)
        error.args = (shown(message),)  # many places print these; the attribute has the whole message
        error.code = code
        error.message = message
        error.data = data
        error.remote = True
        if cls is RpcError and code.startswith("rpc."):  # of a later version of the protocol
            error.execution = Execution.MAY_HAVE_RUN
        return error


def _is_shared(cls: type[RpcError]) -> bool:
    """Return whether a class said that others may have its code; what derives from it has to say so again."""
    return bool(vars(cls).get("_is_shared", False))


def _made_again(error: RpcError) -> tuple[Any, ...]:
    """Return what copies an error, or pickles it, whose class is made here and has no name in any module."""
    return RpcError.from_wire, (error.code, error.message, error.data), vars(error)


class MethodNotFound(RpcError, code="rpc.MethodNotFound"):
    """The callee has no such method.

    A handler that raises this itself, or ``PermissionDenied`` or ``Unavailable``, says thereby that it has done
    nothing: its caller takes it for a call that did not run.
    """

    execution = Execution.DID_NOT_RUN


class InvalidParams(RpcError, code="rpc.InvalidParams"):
    """The arguments do not fit the method's parameters; the message holds the path to the first that does not."""


class PermissionDenied(RpcError, code="rpc.PermissionDenied"):
    """The callee's policy does not admit this caller to this method.

    A handler may raise this, too, before it has done anything (:class:`MethodNotFound`).
    """

    execution = Execution.DID_NOT_RUN


class DeadlineExceeded(RpcError, TimeoutError, code="rpc.DeadlineExceeded"):
    """The deadline passed before the answer. It is a :class:`TimeoutError` too."""


class Cancelled(RpcError, code="rpc.Cancelled"):
    """The callee cancelled the work; a task that is cancelled on this side gets ``asyncio.CancelledError``."""


class Overloaded(RpcError, code="rpc.Overloaded"):
    """A limit is reached: of the callee, or, where calls wait to be sent, of this side.

    Mostly the call did not run. It did if its answer finds too many unread ones before it (``max_unsent_bytes``), or
    holds more streams and objects than the connection may have: try again only what may run twice.
    """


class TooLarge(RpcError, code="rpc.TooLarge"):
    """A message is larger than may be sent."""


class DescriptorsLost(RpcError, code="rpc.DescriptorsLost"):
    """File descriptors were lost on the way in, for example because the receiver's table is full (protocol 3.3)."""


class Unavailable(RpcError, code="rpc.Unavailable"):
    """The other side takes no new requests, and this one did not run.

    A handler may raise this, too, before it has done anything (:class:`MethodNotFound`). Where a stream is read, it
    says that the producer is gone; what came before was produced, and ``execution`` is ``MAY_HAVE_RUN``.
    """

    execution = Execution.DID_NOT_RUN

    reason: str | None = None
    """The whole reason that the other side gave, if this connection received it."""


class Internal(RpcError, code="rpc.Internal"):
    """The handler failed in a way it did not foresee; the traceback is in the log of its own process.

    The message has a number, the incident, by which the traceback is found there.
    """
