"""Operations on the store as a whole."""

from __future__ import annotations

from bridgepool.gateway.control._records import EpochChange
from bridgepool.gateway.control.operations._operation import Context, operation


@operation("POST", "/store/restored")
async def store_restored(context: Context) -> EpochChange:
    """Begin a new epoch, because a backup was restored: all gateways ask for everything anew."""
    return await context.store.renew_epoch(context.actor)
