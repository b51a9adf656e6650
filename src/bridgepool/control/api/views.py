"""What the API answers, without a secret but for the keys that were made just now."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bridgepool.control.applied import AppliedReport
from bridgepool.control.records import (
    AccessKeyView,
    ApplyAction,
    ApplyResult,
    AuditEntry,
    Change,
    ClientView,
    GatewaySession,
    KeyRef,
    NewClient,
    NewKey,
    ProviderDraft,
    ProviderView,
    Role,
)


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


def provider_out(view: ProviderView) -> ProviderOut:
    """Show a provider."""
    return ProviderOut.model_validate(view)


def provider_change(change: Change[ProviderView]) -> ProviderChange:
    """Tell what a write did to a provider."""
    return ProviderChange(
        revision=change.revision, changed=change.changed, provider=provider_out(change.value)
    )


def apply_out(result: ApplyResult, dry_run: bool) -> ApplyOut:
    """Tell what applying did."""
    return ApplyOut(
        revision=result.revision,
        changed=result.changed,
        dry_run=dry_run,
        providers=[AppliedProviderOut.model_validate(row) for row in result.providers],
    )


def draft_out(draft: ProviderDraft) -> DraftOut:
    """Show a draft of the store's export, which has no values of keys or headers."""
    return DraftOut(
        name=draft.name,
        type=draft.type,
        base_url=draft.base_url,
        keys=[KeyRefOut(id=key.id) for key in draft.keys if isinstance(key, KeyRef)],
        key_env=draft.key_env,
        client_keys=draft.client_keys,
        enabled=draft.enabled,
        headers=dict.fromkeys(draft.headers),
        allow_private=draft.allow_private,
    )


def client_out(view: ClientView) -> ClientOut:
    """Show a client."""
    return ClientOut.model_validate(view)


def new_client(change: Change[NewClient]) -> NewClientOut:
    """Show a client that was added, and its key this once."""
    key = change.value.key
    return NewClientOut(
        revision=change.revision,
        changed=change.changed,
        client=client_out(change.value.view),
        key=key.reveal() if key is not None else None,
    )


def client_change(change: Change[ClientView]) -> ClientChange:
    """Tell what a write did to a client."""
    return ClientChange(
        revision=change.revision, changed=change.changed, client=client_out(change.value)
    )


def keys_out(views: tuple[AccessKeyView, ...]) -> AccessKeysOut:
    """Show keys."""
    return AccessKeysOut(keys=[AccessKeyOut.model_validate(view) for view in views])


def key_change(change: Change[AccessKeyView]) -> AccessKeyChange:
    """Tell what a write did to a key."""
    return AccessKeyChange(
        revision=change.revision,
        changed=change.changed,
        access_key=AccessKeyOut.model_validate(change.value),
    )


def new_key(change: Change[NewKey]) -> NewKeyOut:
    """Show a key that was made, this once."""
    return NewKeyOut(
        revision=change.revision,
        changed=change.changed,
        access_key=AccessKeyOut.model_validate(change.value.view),
        key=change.value.key.reveal(),
    )


def gateways_out(revision: int, sessions: tuple[GatewaySession, ...]) -> GatewaysOut:
    """Show gateways."""
    return GatewaysOut(
        revision=revision, gateways=[GatewayOut.model_validate(row) for row in sessions]
    )


def applied_out(report: AppliedReport) -> AppliedOut:
    """Show what gateways made of a revision."""
    return AppliedOut.model_validate(report)


def audit_out(entries: tuple[AuditEntry, ...], limit: int) -> AuditOut:
    """Show a page of the audit."""
    full = len(entries) == limit and entries[-1].id > 1
    return AuditOut(
        entries=[AuditEntryOut.model_validate(entry) for entry in entries],
        next=entries[-1].id if full else None,
    )
