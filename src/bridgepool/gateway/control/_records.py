"""The records that the store, the API, its client and the commands share. Frozen.

A *draft* is a whole new row, a *patch* the fields to change, a *view* a row with masked secrets.
The names of the fields are those of the API's JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias, cast

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.providers import ClientRules, Clients
from bridgepool.gateway.providers._access_keys import KeyHash
from bridgepool.gateway.providers._client_rules import NO_RULES
from bridgepool.gateway.providers._fields import FIELD_NAMES, ProviderFields, in_order
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import Identity, RejectedRow

NAME_PATTERN: Final = "^[A-Za-z0-9._@-]+$"
"""The characters of names and ids."""


@attrs.frozen
class Actor:
    """Who makes a change, for the audit."""

    kind: str
    """``admin`` (a key of the API), ``local`` (the command line on the store), ``seed``,
    ``program``, or ``stranger`` (whose key was refused)."""
    name: str
    """The name of the admin key, the user of the machine, the file, or the address."""


# -- providers ---------------------------------------------------------------------------------


@attrs.frozen
class KeyValue:
    """A key of a provider, given by its value. If the provider has that key, its id stays."""

    value: Secret


@attrs.frozen
class KeyRef:
    """A key that the provider keeps, given by its id."""

    id: str


KeyChange: TypeAlias = KeyValue | KeyRef
HeaderValue: TypeAlias = Secret | None
"""The value of a header that is sent upstream; None keeps the one that is stored."""


def _tuple_of(values: Iterable[KeyChange]) -> tuple[KeyChange, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True, slots=False, field_transformer=in_order)
class ProviderDraft(ProviderFields):
    """All fields of a provider, as it is to be. The store checks it."""

    base_url: str = attrs.field(repr=False)
    keys: tuple[KeyChange, ...] = attrs.field(default=(), converter=_tuple_of)
    """In order of use. A `KeyRef` is valid in `Store.apply_providers` only."""
    headers: Mapping[str, HeaderValue] = attrs.field(factory=dict)


@attrs.frozen(init=False)
class ProviderPatch:
    """Changes of a provider: some of the fields of a `ProviderDraft`.

    ``keys`` lists all keys in order of use, kept ones by id and new ones by value; ``headers``
    lists all headers, and None keeps the stored value.
    """

    fields: Mapping[str, object] = attrs.field(repr=lambda fields: f"<{', '.join(fields)}>")
    """Fields that are missing here stay as they are."""

    def __init__(self, **fields: object) -> None:
        for name in fields:
            if name not in FIELD_NAMES:
                raise TypeError(f"a provider has no field {name}")
        if "keys" in fields:
            fields["keys"] = tuple(cast("Iterable[KeyChange]", fields["keys"]))
        self.__attrs_init__(fields)


@attrs.frozen
class KeyView:
    """A key of a provider, masked."""

    id: str
    hint: str
    """``…abcd`` of a long key, ``…`` of a short one."""
    fingerprint: str = ""
    """Names the key in the reports of gateways; empty in old entries of the audit."""


@attrs.frozen(kw_only=True, slots=False, field_transformer=in_order)
class ProviderView(ProviderFields):
    """A provider with its secrets masked."""

    id: str
    """Stays when it is renamed."""
    base_url: str
    keys: tuple[KeyView, ...]
    headers: Mapping[str, str]
    """The name of each header, with ``***`` for its value."""
    created: datetime
    updated: datetime
    revision: int
    """The store's revision at which this row last changed; for ``if_revision``."""
    problem: str | None = None
    """Why the row cannot be used, such as a missing encryption key; else None."""


@attrs.frozen(kw_only=True)
class ProviderChange:
    """What a write did to a provider."""

    revision: int
    """The store's revision after the write, which gateways acknowledge when the change is live."""
    changed: bool
    """False if the write changed nothing: no new revision, no audit entry, no notice."""
    provider: ProviderView
    """The row after the write; a removed row is as it was."""


ApplyAction: TypeAlias = Literal["created", "updated", "unchanged", "removed"]


@attrs.frozen
class AppliedProvider:
    """What applying did, or would do, to one provider."""

    name: str
    action: ApplyAction
    fields: tuple[str, ...] = ()
    """The fields that changed, when it was updated."""


@attrs.frozen(kw_only=True)
class ApplyResult:
    """What `Store.apply_providers` did, or with ``dry_run`` would do."""

    revision: int
    """After the write; with ``dry_run`` the current one."""
    changed: bool
    dry_run: bool
    providers: tuple[AppliedProvider, ...]
    """In the order of the drafts; then those that no draft names, removed or ``unchanged``."""


@attrs.frozen
class GatewayKey:
    """A valid key of a gateway, for checking keys without asking the store."""

    identity: Identity
    """The gateway that it was made for, and the id of the key."""
    hash: KeyHash


@attrs.frozen
class StoreSnapshot:
    """Everything that gateways serve by, read in one transaction."""

    revisions: Revisions
    epochs: frozenset[str] = attrs.field(kw_only=True)
    """All epochs that the store knows."""
    rows: tuple[ProviderRow, ...]
    """All providers, also disabled ones, in the order in which they were added."""
    clients: Clients
    unreadable: tuple[RejectedRow, ...] = ()
    """Rows that could not be decrypted, and why. `rows` contains them without keys and with a
    `ProviderRow.problem`, so that followers reject them and keep their last good form, or answer
    that they are misconfigured."""
    gateway_keys: Mapping[str, GatewayKey] = attrs.field(factory=dict)
    """The valid keys of gateways, by their ids."""

    @property
    def allow_empty(self) -> bool:
        """Whether it is intended that there are no providers.

        There were some: no write leaves a store without them unless that is asked for. A store
        that never had one is new, or another one than was meant.
        """
        return not self.rows and self.revisions.providers > 0

    def explain(self, rejected: Iterable[RejectedRow]) -> tuple[RejectedRow, ...]:
        """Return rejected rows; those of `unreadable` with that reason.

        Why a row could not be decrypted tells more than what it lacks in consequence.
        """
        explained = {row.name: row for row in self.unreadable}
        return tuple(explained.get(row.name, row) for row in rejected)


# -- keys of clients, gateways and admins ------------------------------------------------------

KeyKind: TypeAlias = Literal["client", "gateway", "admin"]
Role: TypeAlias = Literal["read", "write"]


@attrs.frozen(kw_only=True)
class AccessKeyView:
    """A key of a client, a gateway or an admin. The store has only its salted hash."""

    id: str
    """The public part of the key; logs may contain it."""
    name: str
    """The client, gateway or admin that it belongs to."""
    created: datetime
    revoked: datetime | None = None
    role: Role | None = None
    """Of an admin key: ``read``, or ``write``, which includes reading."""
    rules: ClientRules = NO_RULES
    """Of a client's key: its rules, which apply beside those of the client."""


@attrs.frozen(kw_only=True)
class AccessKeyChange:
    """What a write did to a key; see `ProviderChange`."""

    revision: int
    changed: bool
    access_key: AccessKeyView


@attrs.frozen(kw_only=True)
class NewKey(AccessKeyChange):
    """A key that was just made; it can be seen this once."""

    key: Secret


@attrs.frozen(kw_only=True)
class ClientView:
    """A client of the gateways."""

    id: str
    keys: tuple[AccessKeyView, ...]
    """The valid ones, the oldest first."""
    created: datetime
    revision: int
    rules: ClientRules = NO_RULES
    """Its rules."""


@attrs.frozen(kw_only=True)
class BudgetView:
    """What is spent and left of a budget of a client, or of a key of one, in the current period."""

    scope: str
    """``client`` or ``key``."""
    id: str
    """The id of the client or key."""
    rule: str
    """Such as ``money_per_day``."""
    limit: float
    spent: float
    """What was spent, or is held by gateways and control planes: mostly up to 2 % by each."""
    remaining: float
    """The rest of the limit."""
    ends: datetime
    """When the next period begins."""


@attrs.frozen(kw_only=True)
class ClientChange:
    """What a write did to a client; see `ProviderChange`."""

    revision: int
    changed: bool
    client: ClientView


@attrs.frozen(kw_only=True)
class NewClient(ClientChange):
    """A client that was just added."""

    key: Secret | None
    """Its first key, which can be seen this once; None if hashes of its keys were given."""


# -- seed --------------------------------------------------------------------------------------


@attrs.frozen
class Drift:
    """A row of the seed that was not applied, because it was changed by hand."""

    kind: Literal["provider", "client"]
    name: str
    reason: str
    """What differs, by field names; no values."""


@attrs.frozen
class SeedReport:
    """What applying a seed did."""

    revision: int
    changed: bool
    applied: tuple[str, ...]
    """Names of the providers and clients that were created or updated."""
    drift: tuple[Drift, ...]


# -- audit and gateways ------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AuditEntry:
    """One change: who, when, what, and the row before and after with its secrets masked."""

    id: int
    """Grows by one with each entry."""
    at: datetime
    actor: Actor
    action: str
    """Such as ``provider.update``."""
    kind: str
    """``provider``, ``client``, ``client_key``, ``gateway_key``, ``admin_key``, ``store`` or
    ``encryption``."""
    row_id: str
    """The id of the row, which stays when it is renamed."""
    name: str
    """Its name after the change; the name of a removed row before it."""
    revision: int
    """The store's revision after the change."""
    before: Mapping[str, object] | None
    """None if the change made the row; see `problem`."""
    after: Mapping[str, object] | None
    """None if the change removed the row; see `problem`."""
    fields: tuple[str, ...] = ()
    """The fields that an update changed, also those whose masked values are equal."""
    problem: str | None = None
    """Why `before`, `after` and `fields` cannot be decrypted; else None."""


@attrs.frozen(kw_only=True)
class EpochChange:
    """What `Store.renew_epoch` did."""

    revision: int
    changed: bool
    epoch: str
    """The current one."""


@attrs.frozen
class RotationReport:
    """What `Store.rotate_encryption` did."""

    rewritten: int
    """Rows that were re-encrypted."""
    unreadable: int
    """Rows that no key decrypts. Keep the old keys until there are none."""
