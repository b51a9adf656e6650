"""What is known of a gateway process. Pure."""

from __future__ import annotations

from datetime import datetime

import attrs

from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.remote import RejectedRow


@attrs.frozen(kw_only=True)
class GatewaySession:
    """What is known of one gateway process. Recording it makes no revision."""

    instance: str
    """The gateway process; one row is kept for each."""
    gateway: str
    """The name of the gateway, which its key has."""
    key_id: str
    session: str
    """Its connection, or its last one."""
    control_plane: str
    """The control plane at the other end of the connection."""
    software: str = ""
    connected: bool
    reconnecting: bool = False
    """Its connection was lost, or its control plane stopped: it is expected back for a while."""
    stopped: bool = False
    """It ended its last session itself, as a gateway does that is stopped."""
    since: datetime
    """When the connection was made."""
    last_contact: datetime
    revision: int | None = None
    """The revision that it serves; None before its first receipt."""
    epoch: str = ""
    """The epoch of that revision."""
    rejected: tuple[RejectedRow, ...] = ()
    """Rows of that revision that it could not use, and why."""
    provider_keys: KeyReport | None = None
    """What it does with the providers' keys; None if it reported nothing."""
    keys_reported: datetime | None = None
    """When it reported; times in the report are relative to it."""
