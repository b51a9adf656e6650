"""The commands. Each imports its own part when it is run, so that `bridgepool --help` answers at
once.
"""

from bridgepool.gateway.commands import (
    _audit,
    _clients,
    _encryption,
    _gateways,
    _keys,
    _providers,
    _store,
    _usage,
)
from bridgepool.gateway.commands._root import app

__all__ = [
    "_audit",
    "_clients",
    "_encryption",
    "_gateways",
    "_keys",
    "_providers",
    "_store",
    "_usage",
    "app",
]
