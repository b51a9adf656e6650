"""Readings of everything that gateways serve by, and of what cannot be decrypted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import attrs

from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control._records import GatewayKey, StoreSnapshot
from bridgepool.gateway.control.store import _client_rows as client_rows
from bridgepool.gateway.control.store import _epochs as epochs
from bridgepool.gateway.control.store import _key_rows as key_rows
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store._provider_rows import StoredProvider
from bridgepool.gateway.control.store._provider_settings import Content
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers._access_keys import parse_hash
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import Identity, RejectedRow

logger = logging.getLogger("bridgepool.store")

_UNREADABLE: Final = "it cannot be read from the store"  # why, is for the store's operators
Known: TypeAlias = Mapping[str, Content]
"""Contents by their encrypted documents: those need not be decrypted again."""


@attrs.define(eq=False)
class LastReading:
    """What is kept of the last reading."""

    known: Known = attrs.field(factory=dict, init=False, repr=False)
    _unreadable: tuple[RejectedRow, ...] = attrs.field(default=(), init=False)

    def replace(self, known: Known, unreadable: tuple[RejectedRow, ...]) -> None:
        """Keep the next one; log each provider of it that cannot be read and could before."""
        before, self._unreadable = self._unreadable, unreadable
        self.known = known
        for row in unreadable:
            if row not in before:
                facts = {"provider": row.name, "reason": row.reason}
                logger.error("provider cannot be read", extra=facts)


def read_snapshot(tx: StoreTransaction, known: Known) -> tuple[StoreSnapshot, Known]:
    """Read everything that gateways serve by; returns it and what is known then."""
    stored = provider_rows.living(tx, known)
    # Disabled ones are left out: their secrets are forgotten, and decrypted again if needed.
    usable = {
        row.row.sealed or "": row.content
        for row in stored
        if row.problem is None and row.content.enabled
    }
    snapshot = StoreSnapshot(
        revisions=tx.revisions(),
        epochs=epochs.known(tx),
        rows=tuple(map(_row, stored)),
        clients=client_rows.known(tx),
        unreadable=_find_unreadable(stored),
        gateway_keys={
            key.id: GatewayKey(Identity(key.name, key.id), parse_hash(key.hash))
            for key in key_rows.list_keys(tx, "gateway")
        },
    )
    return snapshot, usable


def read_unreadable(tx: StoreTransaction, known: Known) -> tuple[RejectedRow, ...]:
    """Return the providers that cannot be read, and why."""
    return _find_unreadable(provider_rows.living(tx, known))


def check_readable(snapshot: StoreSnapshot) -> None:
    """Refuse a store that has providers, none of which can be read; raises `EncryptionError`."""
    if snapshot.unreadable and len(snapshot.unreadable) == len(snapshot.rows):
        first = snapshot.unreadable[0]
        raise EncryptionError(
            f"none of the {len(snapshot.rows)} providers in the store can be read; the first "
            f"({first.name}): {first.reason}"
        )


def _row(stored: StoredProvider) -> ProviderRow:
    row = stored.content.row(stored.row.id)
    return row if stored.problem is None else attrs.evolve(row, problem=_UNREADABLE)


def _find_unreadable(stored: Iterable[StoredProvider]) -> tuple[RejectedRow, ...]:
    return tuple(
        RejectedRow(row.content.name, row.problem) for row in stored if row.problem is not None
    )
