"""What serves gateways needs of whoever owns the providers: the `ProviderBackend`."""

from typing import Protocol

import attrs

from bridgepool._changes import ChangeSubscription
from bridgepool._secret import Secret
from bridgepool.gateway.providers import Caller
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote._messages import Acknowledge, Revisions


@attrs.frozen
class GatewayIdentity:
    """Who has shown a good gateway key."""

    key_id: str
    """The public part of the key."""
    name: str
    """The gateway that the key was made for."""


@attrs.frozen(kw_only=True)
class SessionInfo:
    """One session of a gateway, as it was when it began."""

    id: str
    """Made here, random."""
    identity: GatewayIdentity
    """Whose key it came with."""
    gateway: str
    """What the gateway calls itself."""
    instance: str
    """Which process of that gateway: another one after each start."""
    software: str
    """What it runs, such as ``bridgepool/0.2``."""
    protocol: str
    """The version it speaks."""


class ProviderBackend(Protocol):
    """The owner of the providers, as `serve_providers` needs it. Yours to implement.

    `MemoryBackend` is one, and the control plane's hub another. What is not async must be cheap
    and must not raise.
    """

    @property
    def revisions(self) -> Revisions:
        """The revisions in force, as far as they are known here; never going back."""
        ...

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that `revisions` moved."""
        ...

    async def provider_rows(self) -> tuple[Revisions, tuple[ProviderRow, ...]]:
        """Return all providers, with the revisions of the same reading.

        Called by every session, so the reading should be kept while the revision stands. It is
        not older than `revisions` were when it was called.
        """
        ...

    async def authorize(self, token: Secret) -> Caller | None:
        """Return whose key this is, now or later than `revisions` say; None: nobody's."""
        ...

    async def admit(self, key: Secret) -> GatewayIdentity | None:
        """Return which gateway's key this is; None when it is nobody's, or revoked."""
        ...

    def is_live(self, key_id: str) -> bool:
        """Tell whether this gateway key is good still. Asked whenever `revisions` move."""
        ...

    def session_opened(self, session: SessionInfo) -> None:
        """Hear that a gateway has begun a session."""
        ...

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        """Hear what a gateway made of a revision; the latest of a session is what holds."""
        ...

    def session_closed(self, session_id: str) -> None:
        """Hear that a session has ended, for whatever reason."""
        ...
