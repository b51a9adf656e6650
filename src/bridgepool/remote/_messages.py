"""What the two ends of the protocol say to each other; `docs/protocol.md` is its description.

Plain frozen data: every field is a text, a number, a flag, a `Secret`, or a tuple of such. What
is a kind (a provider's type) is a text here, so that one unknown kind costs one row and not the
whole answer.
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs
from msgspec import Meta

from bridgepool._secret import Secret
from bridgepool.gateway.providers._wire import ProviderRow

MAX_PROVIDERS: Final = 10_000
"""The most providers in a message, and the most rejections."""


@attrs.frozen
class Revisions:
    """Where the source of the providers is."""

    revision: int
    """Grows with every change that gateways can see."""
    providers: int
    """The revision at which a provider last changed."""
    clients: int
    """The revision at which a client, or a key of one, last changed."""


@attrs.frozen(kw_only=True)
class Hello:
    """A gateway says who it is; the first call of every session."""

    gateway: str
    """The name that it goes by; what counts is the name of its key."""
    instance: str
    """This process of it; another after each start."""
    software: str
    """Such as ``bridgepool/0.2.0``."""


@attrs.frozen(kw_only=True)
class Welcome:
    """The answer to `Hello`."""

    session: str
    """Names this connection in logs at both ends."""
    software: str
    protocol: str
    """The version that the control plane speaks, ``major.minor``."""
    revisions: Revisions


@attrs.frozen
class GetProviders:
    """Ask for all providers."""

    known: int | None = None
    """`Revisions.providers` of the set that the asker has; None if it has none."""


@attrs.frozen
class ProviderSet:
    """The answer to `GetProviders`."""

    revisions: Revisions
    rows: Annotated[tuple[ProviderRow, ...], Meta(max_length=MAX_PROVIDERS)] | None
    """None: the providers are those that the asker knows."""


@attrs.frozen
class WatchProviders:
    """Ask for a `Changed` with every move of the revision; answered with the `Revisions`."""

    send: bool = False
    """Have the providers sent along when they are others: that saves asking for them."""


@attrs.frozen
class Changed:
    """A notice: the revision moved. Several moves may be one notice."""

    revisions: Revisions
    rows: Annotated[tuple[ProviderRow, ...], Meta(max_length=MAX_PROVIDERS)] | None = None
    """All providers, when they were to be sent and are others than those of the answer or
    notice before; else None, whatever they are."""


@attrs.frozen
class Cancel:
    """A notice: nobody waits for the answer to this call. It is answered all the same."""

    id: int


@attrs.frozen
class Goodbye:
    """A notice: whoever sends it ends the session now, and why."""

    code: str
    """A word for programs, such as ``key_revoked`` or ``shutting_down``."""
    reason: str
    """A sentence for people."""


@attrs.frozen
class Authorize:
    """Ask whose key this is."""

    token: Secret


@attrs.frozen(kw_only=True)
class Authorization:
    """The answer to `Authorize`; without ids it is nobody's."""

    client_id: str | None = None
    key_id: str | None = None
    revisions: Revisions


@attrs.frozen
class Rejection:
    """A provider that a gateway could not use, and why. Its last good form stays in force."""

    name: str
    reason: str
    """Holds no secret and no base URL."""


@attrs.frozen
class Acknowledge:
    """A receipt: what the gateway serves by now."""

    revision: int
    rejected: Annotated[tuple[Rejection, ...], Meta(max_length=MAX_PROVIDERS)] = ()


@attrs.frozen
class Acknowledged:
    """The answer to `Acknowledge`."""
