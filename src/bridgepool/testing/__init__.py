"""For your own tests: what bridgepool's property tests are made of.

Needs hypothesis: `pip install 'bridgepool[testing]'`.
"""

from ._bridges import PoolPromiseBrokenError
from ._check import check_pool, pool_scripts, run_pool_script

__all__ = ["PoolPromiseBrokenError", "check_pool", "pool_scripts", "run_pool_script"]
