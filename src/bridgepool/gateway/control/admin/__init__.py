"""What the command line needs of a control plane: one interface, two ways to it.

`Admin` says what can be asked. `store_admin` does it on a store that this process opens,
`http_admin` by the API of a running control plane, from which it imports nothing. Whoever has one
way needs nothing of the other: neither is imported here.
"""

from bridgepool.gateway.control.admin._interface import Admin, KeyKind

__all__ = ["Admin", "KeyKind"]
