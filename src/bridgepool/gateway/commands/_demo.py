"""`bridgepool demo`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from bridgepool.gateway.commands._root import app


@app.command
def demo(*, pace: Annotated[float, Parameter(show=False)] = 0.3) -> None:
    """Show a gateway whose providers change while it streams. Needs no key, takes seconds.

    Args:
        pace: Seconds from word to word of the simulated answers.
    """
    from bridgepool.gateway.demo._story import run_demo

    sys.exit(run_demo(pace))
