"""Sessions whose requests are all admitted, or all refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.admission import Admits
from seqrpc.protocol.session import Session
from seqrpc.protocol.values import Living


class Admitting:
    """Admits everybody to everything, or refuses everything."""

    def __init__(
        self,
        refusal: Callable[[str], tuple[str, str] | None] = lambda _method: None,
        lack_of_room: Callable[[int], str | None] = lambda _size: None,
    ) -> None:
        self.refusal = refusal
        self.lack_of_room = lack_of_room
        self.unread = {"rpc.ping"}

    def lack_of_descriptors(self) -> str | None:
        return None

    @property
    def policies(self) -> Mapping[str, Admits]:
        return _Policies(self)

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        raise AssertionError(f"{method} has a policy that refuses nobody")

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        refusal = self.refusal(method)
        assert refusal is not None
        return refusal


class _Policies(dict[str, Admits]):
    """Has a policy for what is not refused."""

    def __init__(self, admitting: Admitting) -> None:
        self._admitting = admitting

    def get(self, method: str, default: Any = None) -> Any:
        return default if method != "rpc.ping" and self._admitting.refusal(method) else _Anybody()


class _Anybody:
    def admits(self, caller: Credentials | None) -> bool:
        return True


def new_session(limits: Limits = DEFAULT_LIMITS, living: Living | None = None, **admission: Any) -> Session[Any, Any]:
    """Return a session; ``admission`` is that of :class:`Admitting`."""
    return Session(limits, living, Admitting(**admission))


def refuse(method: str) -> tuple[str, str]:
    return "rpc.PermissionDenied", f"{method}: no"
