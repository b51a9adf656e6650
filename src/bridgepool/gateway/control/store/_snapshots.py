"""The one reading that holds secrets: all that gateways serve by, of one moment."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from bridgepool.gateway.control._records import GatewayKey, StoreSnapshot
from bridgepool.gateway.control.store import _client_rows as client_rows
from bridgepool.gateway.control.store import _key_rows as key_rows
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store._provider_settings import Settings
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.remote._messages import Rejection


@attrs.define(eq=False)
class SnapshotReader:
    """Reads snapshots, and does not decrypt again what did not change since the last."""

    # encrypted -> decrypted, of the last snapshot
    _known: Mapping[str, Settings] = attrs.field(factory=dict, init=False, repr=False)

    def read(self, tx: StoreTransaction) -> StoreSnapshot:
        """Read one; may run in several threads."""
        stored = provider_rows.living(tx, self._known)
        self._known = {row.sealed: row.content.settings for row in stored if row.problem is None}
        return StoreSnapshot(
            revisions=tx.revisions(),
            rows=tuple(row.content.row(row.id) for row in stored),
            clients=client_rows.known(tx),
            unreadable=tuple(
                Rejection(row.content.name, row.problem)
                for row in stored
                if row.problem is not None
            ),
            gateway_keys=tuple(
                GatewayKey(key.view.id, key.view.name, key.hash)
                for key in key_rows.list_keys(tx, "gateway")
            ),
        )
