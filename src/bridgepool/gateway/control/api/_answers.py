"""The JSON that the API answers with. No secret but the keys that were made just now."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bridgepool.gateway.control._records import ApplyAction, Role


class Output(BaseModel):
    """What all answers have in common: they are made from the store's views."""

    model_config = ConfigDict(from_attributes=True)


class KeyOut(Output):
    """A key of a provider, masked."""

    id: str
    hint: str


class ProviderOut(Output):
    """A provider, its secrets masked."""

    id: str
    name: str
    type: str
    base_url: str
    enabled: bool
    keys: list[KeyOut]
    key_env: str | None
    client_keys: bool
    headers: dict[str, str]
    allow_private: bool
    created: datetime
    updated: datetime
    revision: int
    problem: str | None


class ProvidersOut(Output):
    """All providers."""

    revision: int
    providers: list[ProviderOut]


class OneProvider(Output):
    """One provider."""

    provider: ProviderOut


class ProviderChange(Output):
    """What a write did to a provider."""

    revision: int
    changed: bool
    provider: ProviderOut


class AppliedProviderOut(Output):
    """What was done to one provider."""

    name: str
    action: ApplyAction
    fields: list[str]


class ApplyOut(Output):
    """What applying did."""

    revision: int
    changed: bool
    dry_run: bool
    providers: list[AppliedProviderOut]


class KeyRefOut(Output):
    """A key that the provider keeps."""

    id: str


class DraftOut(Output):
    """A provider as `apply` takes it, without its secrets."""

    name: str
    type: str
    base_url: str
    keys: list[KeyRefOut]
    key_env: str | None
    client_keys: bool
    enabled: bool
    headers: dict[str, None]
    allow_private: bool


class ExportOut(Output):
    """All providers as drafts."""

    revision: int
    providers: list[DraftOut]


class AccessKeyOut(Output):
    """A key that lets somebody in, without itself."""

    id: str
    name: str
    created: datetime
    revoked: datetime | None
    role: Role | None


class AccessKeysOut(Output):
    """Keys of one kind."""

    keys: list[AccessKeyOut]


class AccessKeyChange(Output):
    """What a write did to a key."""

    revision: int
    changed: bool
    access_key: AccessKeyOut


class NewKeyOut(AccessKeyChange):
    """A key that was made now."""

    key: str


class ClientOut(Output):
    """A client, with its good keys."""

    id: str
    keys: list[AccessKeyOut]
    created: datetime
    revision: int


class ClientsOut(Output):
    """All clients."""

    revision: int
    clients: list[ClientOut]


class OneClient(Output):
    """One client."""

    client: ClientOut


class ClientChange(Output):
    """What a write did to a client."""

    revision: int
    changed: bool
    client: ClientOut


class NewClientOut(ClientChange):
    """A client that was added now."""

    key: str | None


class RejectionOut(Output):
    """A provider that a gateway could not use."""

    name: str
    reason: str


class GatewayOut(Output):
    """What is known of a gateway."""

    gateway: str
    instance: str
    key_id: str
    session: str
    control_plane: str
    software: str
    connected: bool
    since: datetime
    last_contact: datetime
    revision: int | None
    rejected: list[RejectionOut]


class GatewaysOut(Output):
    """All gateways."""

    revision: int
    gateways: list[GatewayOut]


class RevisionOut(Output):
    """The revisions in force."""

    revision: int
    providers: int
    clients: int


class GatewayAppliedOut(Output):
    """What one gateway made of a revision."""

    gateway: str
    instance: str
    state: Literal["applied", "rejected", "pending", "offline"]
    revision: int | None
    rejected: list[RejectionOut]


class AppliedOut(Output):
    """What all gateways made of a revision."""

    revision: int
    complete: bool
    applied: bool
    gateways: list[GatewayAppliedOut]


class ActorOut(Output):
    """Who made a change."""

    kind: str
    name: str


class AuditEntryOut(Output):
    """One change."""

    id: int
    at: datetime
    actor: ActorOut
    action: str
    kind: str
    row_id: str
    name: str
    revision: int
    before: dict[str, object] | None
    after: dict[str, object] | None
    fields: list[str]


class AuditOut(Output):
    """A page of the audit."""

    entries: list[AuditEntryOut]
    next: int | None


class HealthOut(Output):
    """The process runs."""

    status: Literal["ok"]


class ReadyOut(Output):
    """The control plane does its work."""

    status: Literal["ready"]
    revision: int
