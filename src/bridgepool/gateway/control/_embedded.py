"""The store as a reloader, for a gateway in the same process or on the same database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from bridgepool._changes import ChangeSubscription
from bridgepool._errors import ReloadError
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway._protocol import ProviderTable, named, provider_table
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._records import Actor, StoreSnapshot
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import PROVIDER_TYPES, Clients, Provider, ProviderType
from bridgepool.remote import RejectedRow

_SELF: Final = Actor("program", "gateway")


@attrs.define(eq=False)
class StoreProviders:
    """The providers of a store, as they were at the last reload. See `open_store_providers`."""

    changes: ChangeSubscription
    """Notices for `watch_providers`: the store's revision moved."""
    _store: Store
    _table: ProviderTable
    _snapshot: StoreSnapshot | None = attrs.field(default=None, init=False)

    async def reload(self) -> ProviderSnapshot[Provider]:
        """Read the store; only its revision if that has not moved. A checkpoint.

        `clients` and `rejected` are of the same reading as the snapshot that is returned, from
        the moment it is returned. After an error they are what they were.

        Raises:
            ReloadError: The store cannot be read now; says why.
        """
        try:
            snapshot = self._snapshot
            if snapshot is None or await self._store.revisions() != snapshot.revisions:
                snapshot = await self._read_store()
        except StoreError as error:
            problem = str(error)
        else:
            if snapshot is not self._snapshot:
                self._table = await self._table.updated_in_turns(named(snapshot.rows))
                self._snapshot = snapshot
            revisions = snapshot.revisions
            return ProviderSnapshot(
                self._table.providers,
                revisions.revision,
                revisions.epoch,
                allow_empty=snapshot.allow_empty,
            )
        raise ReloadError(problem)

    async def _read_store(self) -> StoreSnapshot:
        """Read all, in a new epoch if the store went back since the last reading."""
        last, fresh = self._snapshot, await self._store.snapshot()
        if last is not None and last.revisions.lost_by(fresh.revisions, fresh.epochs):
            await self._store.renew_epoch(_SELF, last.revisions)
            fresh = await self._store.snapshot()
        return fresh

    @property
    def clients(self) -> Clients:
        """The clients of the last reload; none before the first."""
        return self._snapshot.clients if self._snapshot is not None else Clients()

    @property
    def unreadable(self) -> tuple[RejectedRow, ...]:
        """The rows of the last reload that could not be decrypted, and why."""
        return self._snapshot.unreadable if self._snapshot is not None else ()

    @property
    def rejected(self) -> tuple[RejectedRow, ...]:
        """The rows of the last reload that could not be used, and why.

        The provider that was last made from such a row stays in its place.
        """
        return self._snapshot.explain(self._table.rejected) if self._snapshot is not None else ()


@contextmanager
def open_store_providers(
    store: Store, *, types: Iterable[ProviderType] = PROVIDER_TYPES
) -> Iterator[StoreProviders]:
    """Open a reloader on a store.

    ::

        async with open_store("bridgepool.db", keys) as store:
            with open_store_providers(store) as source:
                async with open_gateway(source, source.changes, clients=lambda: source.clients):
                    ...

    Args:
        store: Where the providers are.
        types: The provider types that are known, as for `open_gateway`.

    Resource handling:
        Leaving the block closes `changes`.
    """
    with store.subscribe() as changes:
        yield StoreProviders(changes, store, provider_table(types))
