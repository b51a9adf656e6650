"""Where a gateway process has its providers from, whichever of the ways it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from bridgepool import ProviderReloader
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.proxy._auth import Authorizer
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.proxy._receipts import OnApplied
from bridgepool.gateway.proxy._runtime import Snapshot


async def _never() -> str:
    """Nothing that comes later makes this source useless."""
    await trio.sleep_forever()
    raise AssertionError


@attrs.frozen(kw_only=True)
class Source:
    """What a gateway needs of where its providers are."""

    reloader: ProviderReloader[Provider]
    changes: trio.abc.ReceiveChannel[object]
    clients: Authorizer
    report: Callable[[], SourceReport]
    """What to say at `/readyz`."""
    first: Snapshot | None = None
    """What to begin with; None if there is nothing yet."""
    first_age: float = 0.0
    """Seconds since `first` was confirmed."""
    on_applied: OnApplied | None = None
    """Who wants receipts."""
    wait_refused: Callable[[], Awaitable[str]] = _never
    """Returns, with the reason, when there is no point in going on."""
