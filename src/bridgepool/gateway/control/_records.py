"""What goes into the store and comes out of it: plain values, secrets only where they are `Secret`.

A *draft* says all of a new row, a *patch* what is to be different, a *view* shows a row with
everything secret masked.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, TypeAlias, cast

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers import Clients
from bridgepool.gateway.providers._fields import FIELD_NAMES, ProviderFields, in_order
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import RejectedRow


@attrs.frozen
class Actor:
    """Who makes a change; stands in the audit."""

    kind: str
    """How they came: ``admin`` (a key of the API), ``local`` (the command line on the store),
    ``seed``, ``program``."""
    name: str
    """Which one: the name of the admin key, the user of the machine, the file."""


@attrs.frozen
class Revisions:
    """Where a store is."""

    revision: int
    """Grows with every change that gateways can see."""
    providers: int
    """The revision at which a provider last changed."""
    clients: int
    """The revision at which a client, or a key of one, last changed."""


# -- providers ---------------------------------------------------------------------------------


@attrs.frozen
class KeyValue:
    """A key of a provider, given by its value. One that the provider has already keeps its id."""

    value: Secret


@attrs.frozen
class KeyRef:
    """A key that the provider has and keeps, by its id."""

    id: str


KeyChange: TypeAlias = KeyValue | KeyRef
HeaderValue: TypeAlias = Secret | None
"""The value of a header that is sent upstream; None keeps the one that is stored."""


def _tuple_of(values: Iterable[KeyChange]) -> tuple[KeyChange, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True, slots=False, field_transformer=in_order)
class ProviderDraft(ProviderFields):
    """All of a provider, as someone wants it. Not checked before the store is asked."""

    base_url: str = attrs.field(repr=False)
    keys: tuple[KeyChange, ...] = attrs.field(default=(), converter=_tuple_of)
    """In order of use. `KeyRef` is of use in `Store.apply_providers` only."""
    headers: Mapping[str, HeaderValue] = attrs.field(factory=dict)


@attrs.frozen(init=False)
class ProviderPatch:
    """What is to be different in a provider: some of the fields of a `ProviderDraft`.

    ``keys`` are all that it is to have, in order, those kept by id and the new ones by value;
    ``headers`` all headers, where None as a value keeps that header's.
    """

    fields: Mapping[str, object] = attrs.field(repr=lambda fields: f"<{', '.join(fields)}>")
    """What is not there stays as it is."""

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
    """Why the row cannot be used, such as an encryption key that is missing; else None."""


@attrs.frozen(kw_only=True)
class ProviderChange:
    """What a write did to a provider."""

    revision: int
    """The store's revision after it: what gateways acknowledge once the change is live."""
    changed: bool
    """False when all was as asked for: no revision, no audit row, no notice."""
    provider: ProviderView
    """The row as it is now; of one that was removed, as it was."""


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
    """After it; with ``dry_run`` the one in force."""
    changed: bool
    dry_run: bool
    providers: tuple[AppliedProvider, ...]
    """In the order of the drafts, then those removed, or not mentioned (``unchanged``)."""


@attrs.frozen
class GatewayKey:
    """A good key of a gateway, as its control plane knows it again."""

    id: str
    """The public part of the key; may stand in logs."""
    name: str
    """The gateway that it was made for."""
    hash: str = attrs.field(repr=False)
    """For `parse_hash`."""


@attrs.frozen
class StoreSnapshot:
    """One consistent reading of what gateways serve by."""

    revisions: Revisions
    rows: tuple[ProviderRow, ...]
    """All living providers in the order in which they were added, the disabled ones too."""
    clients: Clients
    unreadable: tuple[RejectedRow, ...] = ()
    """Rows that could not be decrypted, and why. They stand in `rows`, too, without keys and
    with an empty base URL: whoever builds a provider of one rejects it and keeps its last good
    form."""
    gateway_keys: tuple[GatewayKey, ...] = ()
    """The keys of gateways that are good, the oldest first."""


# -- keys of clients, gateways and admins ------------------------------------------------------

Role: TypeAlias = Literal["read", "write"]


@attrs.frozen(kw_only=True)
class AccessKeyView:
    """A key that lets somebody in; the store has its salted hash only."""

    id: str
    """The public part of the key; may stand in logs."""
    name: str
    """Whose it is: the client's id, the gateway's or the admin's name."""
    created: datetime
    revoked: datetime | None = None
    role: Role | None = None
    """Of an admin key: ``read``, or ``write`` (which may read, too)."""


@attrs.frozen(kw_only=True)
class AccessKeyChange:
    """What a write did to a key; see `ProviderChange`."""

    revision: int
    changed: bool
    access_key: AccessKeyView


@attrs.frozen(kw_only=True)
class NewKey:
    """A key that was made now; this is the only time that it can be seen."""

    revision: int
    changed: bool
    access_key: AccessKeyView
    key: Secret


@attrs.frozen(kw_only=True)
class ClientView:
    """One who may use the gateways."""

    id: str
    keys: tuple[AccessKeyView, ...]
    """Those that are good, the oldest first."""
    created: datetime
    revision: int


@attrs.frozen(kw_only=True)
class ClientChange:
    """What a write did to a client; see `ProviderChange`."""

    revision: int
    changed: bool
    client: ClientView


@attrs.frozen(kw_only=True)
class NewClient:
    """A client that was added now."""

    revision: int
    changed: bool
    client: ClientView
    key: Secret | None
    """Its first key, shown this once; None when hashes of its keys were given."""


# -- seed --------------------------------------------------------------------------------------


@attrs.frozen
class Drift:
    """A row of the seed that was not applied, because people have decided otherwise since."""

    kind: Literal["provider", "client"]
    name: str
    reason: str
    """What differs, by field names; no values."""


@attrs.frozen
class SeedReport:
    """What a seed did."""

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
    """Grows by one with each entry, whatever the clock says."""
    at: datetime
    actor: Actor
    action: str
    """Such as ``provider.update``."""
    kind: str
    """``provider``, ``client``, ``client_key``, ``gateway_key`` or ``admin_key``."""
    row_id: str
    """The id of the row, which stays when it is renamed."""
    name: str
    """Its name after the change; of one that was removed, before."""
    revision: int
    """The store's revision after the change."""
    before: Mapping[str, object] | None
    """None when it was made by the change, or cannot be decrypted."""
    after: Mapping[str, object] | None
    """None when it was removed by the change, or cannot be decrypted."""
    fields: tuple[str, ...] = ()
    """The fields that changed in an update: also those whose values look alike when masked."""


@attrs.frozen
class RotationReport:
    """What `Store.rotate_encryption` did."""

    rewritten: int
    """Rows that were encrypted anew."""
    unreadable: int
    """Rows that no key decrypts. Keep the old keys until there are none."""


@attrs.frozen(kw_only=True)
class GatewaySession:
    """What is known of one running gateway. Recording it makes no revision."""

    instance: str
    """The gateway process; one row is kept for each."""
    gateway: str
    """The name of the gateway, that of its key."""
    key_id: str
    session: str
    """The connection that it has, or had last."""
    control_plane: str
    """The control plane that the connection ended at."""
    software: str = ""
    connected: bool
    since: datetime
    """When the connection was made."""
    last_contact: datetime
    revision: int | None = None
    """The revision that it serves by; None before its first receipt."""
    rejected: tuple[RejectedRow, ...] = ()
    """Rows of that revision that it could not use, and why."""
