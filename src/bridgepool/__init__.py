"""Change a Trio proxy's upstreams while it runs: no stream cut, nothing leaked.

`open_bridge_pool` is where to start. This package has the core alone. HTTP/1.1 is in
`bridgepool.http`, providers over a network in `bridgepool.remote`, the AI gateway in
`bridgepool.gateway`.
"""

from ._bridge import OpenBridge, ShortLived
from ._changes import ChangeBus, ChangeBusStatistics, ChangeSubscription
from ._errors import (
    BridgePoolError,
    BuildError,
    BuildTimeoutError,
    CircularWaitError,
    PoolClosedError,
    ReloadError,
)
from ._keep_subscribed import keep_subscribed
from ._ledger import ReplaceOutcome, RetireReason
from ._lookup import Lease, NowaitLease
from ._pool import CachedBridgePool, Replacement, open_bridge_pool
from ._reload import MemoryReloader, ProviderReloader, ReloadStatus, Replaceable, watch_providers
from ._secret import Secret
from ._singleflight import VersionedSingleflight, open_singleflight
from ._snapshot import ProviderSnapshot
from ._statistics import JSON, BuildOutcome, PoolStatistics
from ._version import __version__

__all__ = [
    "JSON",
    "BridgePoolError",
    "BuildError",
    "BuildOutcome",
    "BuildTimeoutError",
    "CachedBridgePool",
    "ChangeBus",
    "ChangeBusStatistics",
    "ChangeSubscription",
    "CircularWaitError",
    "Lease",
    "MemoryReloader",
    "NowaitLease",
    "OpenBridge",
    "PoolClosedError",
    "PoolStatistics",
    "ProviderReloader",
    "ProviderSnapshot",
    "ReloadError",
    "ReloadStatus",
    "ReplaceOutcome",
    "Replaceable",
    "Replacement",
    "RetireReason",
    "Secret",
    "ShortLived",
    "VersionedSingleflight",
    "__version__",
    "keep_subscribed",
    "open_bridge_pool",
    "open_singleflight",
    "watch_providers",
]
