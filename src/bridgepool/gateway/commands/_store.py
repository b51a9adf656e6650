"""`bridgepool store`: the store of a control plane as a whole."""

from __future__ import annotations

import sys

from cyclopts import App

from bridgepool.gateway.commands._connecting import NO_WAIT, WHERE_DEFAULT, Wait, Where, do
from bridgepool.gateway.commands._output import report_change
from bridgepool.gateway.control.operations._gateways import store_restored

store = App(name="store")


@store.command
def restored(*, wait: Wait = NO_WAIT, where: Where = WHERE_DEFAULT) -> None:
    """Report that a backup of the store was restored: gateways then ask for everything anew.

    The store begins a new epoch. Running control planes and gateways follow, whatever revision they
    were at. Streams are not interrupted.
    """
    change = do(where, store_restored)
    sys.exit(report_change(where, change, f"began the epoch {change.epoch}", wait))
