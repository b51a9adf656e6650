"""The test kit: the parts of bridgepool's own property tests, for tests of your code.

Needs hypothesis: `pip install 'bridgepool[testing]'`.

`check_pool` checks every invariant of a pool that builds your bridges. `check_reloader` and
`check_transport` check your reloader and your transport against their contracts. `TrioMachine` is a
Hypothesis state machine with a Trio run of its own. `BridgeFactory` is an `open_bridge` whose steps
the test decides. `open_fault_proxy` opens a TCP proxy that injects faults.
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
