"""Make the API's answers of what the store and the hub return."""

from __future__ import annotations

from bridgepool.gateway.control._applied import AppliedReport
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    AccessKeyView,
    ApplyResult,
    AuditEntry,
    ClientChange,
    ClientView,
    GatewaySession,
    KeyRef,
    NewClient,
    NewKey,
    ProviderChange,
    ProviderDraft,
    ProviderView,
)
from bridgepool.gateway.control.api import _answers as answers
from bridgepool.gateway.control.api._answers import (
    AccessKeyOut,
    AccessKeysOut,
    AppliedOut,
    AppliedProviderOut,
    ApplyOut,
    AuditEntryOut,
    AuditOut,
    ClientOut,
    DraftOut,
    GatewayOut,
    GatewaysOut,
    KeyRefOut,
    NewClientOut,
    NewKeyOut,
    ProviderOut,
)


def provider_out(view: ProviderView) -> ProviderOut:
    """Show a provider."""
    return ProviderOut.model_validate(view)


def provider_change(change: ProviderChange) -> answers.ProviderChange:
    """Tell what a write did to a provider."""
    return answers.ProviderChange.model_validate(change)


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


def new_client(change: NewClient) -> NewClientOut:
    """Show a client that was added, and its key this once."""
    return NewClientOut(
        revision=change.revision,
        changed=change.changed,
        client=client_out(change.client),
        key=change.key.reveal() if change.key is not None else None,
    )


def client_change(change: ClientChange) -> answers.ClientChange:
    """Tell what a write did to a client."""
    return answers.ClientChange.model_validate(change)


def keys_out(views: tuple[AccessKeyView, ...]) -> AccessKeysOut:
    """Show keys."""
    return AccessKeysOut(keys=[AccessKeyOut.model_validate(view) for view in views])


def key_change(change: AccessKeyChange) -> answers.AccessKeyChange:
    """Tell what a write did to a key."""
    return answers.AccessKeyChange.model_validate(change)


def new_key(change: NewKey) -> NewKeyOut:
    """Show a key that was made, this once."""
    return NewKeyOut(
        revision=change.revision,
        changed=change.changed,
        access_key=AccessKeyOut.model_validate(change.access_key),
        key=change.key.reveal(),
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
