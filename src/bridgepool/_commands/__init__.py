"""The commands, and nothing of what they do: each imports its own part when it is run, so that
`bridgepool --help` answers at once.
"""

from bridgepool._commands import (
    audit,
    control_plane,
    demo,
    encryption,
    gateway,
    gateways,
    keys,
    providers,
)
from bridgepool._commands.root import app

__all__ = [
    "app",
    "audit",
    "control_plane",
    "demo",
    "encryption",
    "gateway",
    "gateways",
    "keys",
    "providers",
]
