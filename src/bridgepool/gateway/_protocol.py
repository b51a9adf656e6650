"""What gateways and control planes agree on beside the protocol of `bridgepool.remote`.

The rows that providers are sent as; the service ``clients``: a gateway asks whose key a client
sent, and is notified when clients change; the service ``usage``: a gateway hands its usage records
over. `docs/protocol.md` describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from operator import attrgetter
from typing import Annotated, Final, TypeAlias

import attrs
from msgspec import Meta

from bridgepool._secret import Secret
from bridgepool.gateway.limits._share_pool import MAX_DEMANDS, Share, ShareDemand
from bridgepool.gateway.providers import (
    PROVIDER_TYPES,
    Caller,
    ClientRules,
    InvalidProviderError,
    Provider,
    ProviderType,
    UnreadableProviderError,
)
from bridgepool.gateway.providers._client_rules import NO_RULES
from bridgepool.gateway.providers._wire import (
    ProviderRow,
    kept,
    provider_from_row,
    row_document,
    row_from_provider,
    stand_in,
)
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.remote import ProtocolVersion, RowFormat, RowTable, UnusableRowError

ProviderTable: TypeAlias = RowTable[ProviderRow, Provider]


def _usable(row: ProviderRow, types: tuple[ProviderType, ...]) -> Provider:
    try:
        return provider_from_row(row, types)
    except (InvalidProviderError, UnreadableProviderError) as error:
        raise UnusableRowError(str(error)) from None


def provider_rows(
    types: Iterable[ProviderType] = PROVIDER_TYPES, *, stand_ins: bool = False
) -> RowFormat[Provider]:
    """Return how a gateway reads the rows of a control plane, for `open_remote_providers`.

    Args:
        types: The provider types that it knows; rows of other types are rejected.
        stand_ins: Have a provider with a `Provider.problem` for each rejected row that has no last
            good form: a gateway answers for it that it is misconfigured.
    """
    usable = partial(_usable, types=tuple(types))
    rows = RowFormat(ProviderRow, row_from_provider, usable, id=attrgetter("name"), keep=kept)
    return attrs.evolve(rows, substitute=stand_in) if stand_ins else rows


STORED_ROWS: Final = RowFormat[ProviderRow](
    ProviderRow, row_document, lambda row: row, id=attrgetter("id"), name=attrgetter("name")
)
"""How a control plane sends its rows, which it does not check."""


def provider_table(types: Iterable[ProviderType] = PROVIDER_TYPES) -> ProviderTable:
    """Return an empty table of providers, for rows that need not be decoded."""
    return RowTable(partial(_usable, types=tuple(types)), kept, stand_in)


def named(rows: Iterable[ProviderRow]) -> Iterator[tuple[str, str, ProviderRow]]:
    """Return rows as a table takes them."""
    return ((row.id, row.name, row) for row in rows)


CLIENTS: Final = "clients"
"""The name of the service."""
CLIENTS_VERSION: Final = ProtocolVersion(1, 0)
KEYS_NOTICE: Final = "provider_keys"
"""The notice of that service with which a gateway sends a `KeyReport`."""


@attrs.frozen
class Authorize:
    """Ask whose key this is: ``clients.authorize``."""

    token: Secret


@attrs.frozen(kw_only=True)
class Authorization:
    """The answer to `Authorize`; without ids the key is unknown."""

    client_id: str | None = None
    key_id: str | None = None
    clients: int
    """The clients revision at which it was true, or an earlier one."""
    epoch: str | None = None
    """The epoch of that revision."""
    rules: ClientRules | None = None
    """The rules of the client, if there are any."""
    key_rules: ClientRules | None = None
    """The rules of this key, if there are any; both apply."""

    def caller(self) -> Caller | None:
        """Return the client that has the key; None if it is unknown."""
        if self.client_id is None or self.key_id is None:
            return None
        rules, key_rules = self.rules or NO_RULES, self.key_rules or NO_RULES
        return Caller(self.client_id, self.key_id, rules, key_rules)


@attrs.frozen
class LeaseShares:
    """Report shares of clients' limits, and ask for the next: ``clients.lease``."""

    demands: Annotated[tuple[ShareDemand, ...], Meta(max_length=MAX_DEMANDS)]


@attrs.frozen
class LeasedShares:
    """The answer to `LeaseShares`: a share for each demand, in the same order."""

    shares: tuple[Share, ...]
    in_memory: bool = False
    """Whether what is spent of budgets ends with the control plane."""


@attrs.frozen
class WatchClients:
    """Ask for a ``clients.changed`` with every change of a client or a key of one."""

    revision: int | None = None
    """The latest clients revision that the gateway has seen, in any session."""
    epoch: str | None = None
    """The epoch of that revision."""


@attrs.frozen
class ClientsRevision:
    """The revision at which a client, or a key of one, last changed.

    The answer to `WatchClients`, and the notice ``clients.changed``.
    """

    revision: int
    epoch: str | None = None
    """The epoch of that revision: another one since the store went back."""


USAGE: Final = "usage"
"""The name of the service. A gateway asks for it only if it has records to send."""
USAGE_VERSION: Final = ProtocolVersion(1, 0)
MAX_USAGE_RECORDS: Final = 1000
"""The most records of one call."""


@attrs.frozen
class StoreUsage:
    """Have usage records kept: ``usage.store``.

    The answer comes when they are. Whoever has no answer sends them again: each is kept once.
    """

    records: Annotated[tuple[UsageRecord, ...], Meta(max_length=MAX_USAGE_RECORDS)]


@attrs.frozen
class UsageStored:
    """The answer to `StoreUsage`: all records are kept."""

    new: int
    """How many of them had not been kept before."""
