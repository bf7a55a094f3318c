"""Accounts of callers, for tests of what is booked on them."""

from __future__ import annotations

from seqrpc.aio.accounts import Account, Ledger
from seqrpc.limits import DEFAULT_LIMITS, Limits


def new_account(limits: Limits = DEFAULT_LIMITS, uid: int | None = 0, *, is_shared: bool = False) -> Account:
    """Return the account of a user with whom nobody shares, or of one of several."""
    return Ledger(limits, is_shared=is_shared).account_of(uid)
