"""The operations of a control plane, each declared once; see `_operation`.

`OPERATIONS` has all of them: those of the modules here. The API serves them, `open_http_admin`
asks them of it, and a `StoreAdmin` carries them out on a store.
"""

from bridgepool.gateway.control.operations import (
    _audit,
    _clients,
    _gateways,
    _keys,
    _providers,
)
from bridgepool.gateway.control.operations._operation import Admin, Context, Operation

OPERATIONS: tuple[Operation[..., object], ...] = tuple(
    value
    for module in (_providers, _clients, _keys, _gateways, _audit)
    for value in vars(module).values()
    if isinstance(value, Operation)
)

__all__ = [
    "OPERATIONS",
    "Admin",
    "Context",
    "Operation",
    "_audit",
    "_clients",
    "_gateways",
    "_keys",
    "_providers",
]
