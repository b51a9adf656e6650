"""The epoch of the store: which history its revisions count in.

A store that went back to an earlier state, as by a backup that was restored, counts the same
revisions again for other changes. So it gets a new epoch, and all who follow it begin anew. All
epochs that it has had are kept: one that somebody has seen and the store does not know shows that
the store went back behind it.
"""

from __future__ import annotations

import secrets

from bridgepool.gateway.control._records import EpochChange
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store._transaction import StoreTransaction


def known(tx: StoreTransaction) -> frozenset[str]:
    """Return all epochs that the store has had, and those that it was told of."""
    return frozenset(epoch for (epoch,) in tx.sql.fetch_all("SELECT id FROM epochs"))


def renew(tx: StoreTransaction, seen: Revisions | None) -> EpochChange:
    """Begin a new epoch; given what was seen of the store, only if it went back since."""
    present, epochs = tx.revisions(), known(tx)
    if seen is not None and not seen.lost_by(present, epochs):
        return EpochChange(revision=present.revision, changed=False, epoch=present.epoch)
    epoch = secrets.token_hex(8)
    tx.repairing = True  # what was restored may be under a key that is not here any more
    tx.move_revision()
    tx.sql.execute("UPDATE state SET epoch = ?", epoch)
    # What was lost is known from now on: one who comes late with it causes no further epoch.
    for each in {epoch, seen.epoch if seen is not None else epoch} - epochs:
        tx.sql.execute("INSERT INTO epochs VALUES (?)", each)
    before, after = ({"epoch": each} for each in (present.epoch, epoch))
    audit_rows.record(tx, "store.restored", epoch, "store", before, after, ("epoch",))
    return EpochChange(revision=tx.revision, changed=True, epoch=epoch)
