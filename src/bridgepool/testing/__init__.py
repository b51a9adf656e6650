"""For your own tests: what bridgepool's property tests are made of.

Needs hypothesis: `pip install 'bridgepool[testing]'`.

`check_pool` holds a pool that builds your bridges to every invariant; `check_reloader` holds
your reloader to its contract; `TrioMachine` is a Hypothesis state machine with a Trio run of
its own; `BridgeFactory` is an `open_bridge` whose every step a test decides.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401 -- looked for, to name the extra
except ImportError as _error:
    raise ImportError("bridgepool.testing needs `pip install 'bridgepool[testing]'`") from _error

from ._bridges import BridgeFactory, Closing, Findings, PoolPromiseBrokenError, ScriptedBuild
from ._check import check_pool, pool_scripts, run_pool_script
from ._faults import FaultProxy, FaultProxyStatistics, Toward, open_fault_proxy
from ._machine import TrioMachine
from ._reloader import ReloaderPromiseBrokenError, ReloaderRig, check_reloader
from ._transport import check_transport
from ._transport_checks import TransportPromiseBrokenError, TransportRig

__all__ = [
    "BridgeFactory",
    "Closing",
    "FaultProxy",
    "FaultProxyStatistics",
    "Findings",
    "PoolPromiseBrokenError",
    "ReloaderPromiseBrokenError",
    "ReloaderRig",
    "ScriptedBuild",
    "Toward",
    "TransportPromiseBrokenError",
    "TransportRig",
    "TrioMachine",
    "check_pool",
    "check_reloader",
    "check_transport",
    "open_fault_proxy",
    "pool_scripts",
    "run_pool_script",
]
