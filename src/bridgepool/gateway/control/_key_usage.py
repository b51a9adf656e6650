"""What all gateways together do with the keys of a provider; which old key can be revoked. Pure.

A key that was taken out of a provider is *safe to revoke* when each gateway that may serve has
reported, with a revision in force that does not have the key, that it neither uses nor can use it.
A gateway that has not reported, or is offline and may go on serving, makes it unknown. One that is
offline cannot be serving if it stopped: it ended its session itself, after its last request. Nor
can one if another process of its name was connected after its last contact: it was restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import attrs

from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._records import ProviderView
from bridgepool.gateway.providers._key_status import CoolingReason, KeyReport, KeyStatus

SafeToRevoke: TypeAlias = Literal["yes", "no", "unknown"]


@attrs.frozen(kw_only=True)
class KeyUsage:
    """A key of a provider on all gateways together."""

    id: str | None
    """In the store; None of a key that was taken out."""
    hint: str
    fingerprint: str
    in_flight: int
    """Requests that use it now."""
    last_used: datetime | None
    """When a request took it last; None if no running gateway knows of one."""
    cooling: CoolingReason
    """Why no request takes it now, on at least one gateway."""
    cooling_until: datetime | None
    gateways: tuple[str, ...]
    """The gateways that use it now, or still can."""
    unknown: tuple[str, ...]
    """The gateways of which that is not known: they have not reported, or are offline."""
    safe_to_revoke: SafeToRevoke
    """``no`` of every key that the provider has."""


def key_usage(
    provider: ProviderView,
    sessions: Iterable[GatewaySession],
    epoch: str,
    silent: Iterable[str] = (),
) -> tuple[KeyUsage, ...]:
    """Return the use of each key of a provider, those that were taken out last.

    Args:
        provider: The provider as it is stored.
        sessions: All gateways that are known.
        epoch: The store's.
        silent: Names of gateways that never report.
    """
    serving = _may_serve(tuple(sessions))
    keys = [(key.fingerprint, key.hint, key.id) for key in provider.keys]
    known = {name for name, _hint, _id in keys}
    for row in serving:
        for key in _keys_of(row, provider.name):
            if key.fingerprint not in known:
                known.add(key.fingerprint)
                keys.append((key.fingerprint, key.hint, ""))
    return tuple(
        _usage(name, hint, key_id or None, provider, serving, epoch, tuple(silent))
        for name, hint, key_id in keys
    )


def _usage(
    fingerprint: str,
    hint: str,
    key_id: str | None,
    provider: ProviderView,
    serving: Sequence[GatewaySession],
    epoch: str,
    silent: Sequence[str],
) -> KeyUsage:
    using: set[str] = set()
    unknown = set(silent)
    seen: list[tuple[GatewaySession, KeyStatus]] = []
    for row in serving:
        report = row.provider_keys
        seen += [
            (row, key) for key in _keys_of(row, provider.name) if key.fingerprint == fingerprint
        ]
        if row.stopped:
            continue  # what it reported last still tells when the key was used
        if report is None or not row.connected:
            unknown.add(row.gateway)
        elif key_id is None and not _has_revision(report, provider.revision, epoch):
            using.add(row.gateway)  # it has the key still
        elif key_id is not None and provider.enabled:
            using.add(row.gateway)  # for its next request
    using |= {row.gateway for row, key in seen if row.connected and (key.usable or key.in_flight)}
    used = [_since(row, key.unused_for) for row, key in seen if key.unused_for is not None]
    cooling = [(_since(row, -key.cooling_for), key.cooling) for row, key in seen if key.cooling]
    safe: SafeToRevoke = "unknown" if unknown else "yes"
    return KeyUsage(
        id=key_id,
        hint=hint,
        fingerprint=fingerprint,
        in_flight=sum(key.in_flight for row, key in seen if row.connected),
        last_used=max(used, default=None),
        cooling=max(cooling)[1] if cooling else "",
        cooling_until=max(cooling)[0] if cooling else None,
        gateways=tuple(sorted(using)),
        unknown=tuple(sorted(unknown)),
        safe_to_revoke="no" if key_id is not None or using else safe,
    )


def _keys_of(row: GatewaySession, provider: str) -> Iterable[KeyStatus]:
    keys = row.provider_keys.keys if row.provider_keys is not None else ()
    return (key for key in keys if key.provider == provider)


def _has_revision(report: KeyReport, revision: int, epoch: str) -> bool:
    """Return whether a report was made with that revision, or a later one, in force."""
    return report.epoch == epoch and report.revision is not None and report.revision >= revision


def _since(row: GatewaySession, seconds: float) -> datetime:
    return (row.keys_reported or row.last_contact) - timedelta(seconds=seconds)


def _may_serve(sessions: Sequence[GatewaySession]) -> tuple[GatewaySession, ...]:
    """Return the gateways that may serve: all but those that were restarted since."""
    newest: dict[str, datetime] = {}
    for row in sessions:
        if row.connected:
            newest[row.gateway] = max(row.since, newest.get(row.gateway, row.since))
    return tuple(
        row
        for row in sessions
        if row.connected or row.gateway not in newest or newest[row.gateway] <= row.last_contact
    )
