"""The command that the others hang on."""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App, Parameter

from bridgepool._version import __version__

app = App(
    name="bridgepool",
    help="Change a proxy's upstreams while it runs: no stream cut, nothing leaked.",
    version=__version__,
    default_parameter=Parameter(negative=""),
)


def fail(message: str) -> NoReturn:
    """End with the status for "asked for something that cannot be done"."""
    print(f"bridgepool: {message}", file=sys.stderr)
    sys.exit(2)
