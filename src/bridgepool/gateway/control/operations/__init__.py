"""The operations of a control plane, each declared once; see `_operation`.

`OPERATIONS` has all of them. The API serves them. An `Admin` carries them out: `_store_admin` on a
store that this process has opened, `_http_admin` by the API of a running control plane. Neither is
imported here, since each needs what the other does not.
"""

from bridgepool.gateway.control.operations import (
    _audit,
    _clients,
    _gateways,
    _keys,
    _providers,
    _usage,
)
from bridgepool.gateway.control.operations._operation import Admin, Context, Operation

OPERATIONS: tuple[Operation[..., object], ...] = tuple(
    value
    for module in (_providers, _clients, _keys, _gateways, _audit, _usage)
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
    "_usage",
]
