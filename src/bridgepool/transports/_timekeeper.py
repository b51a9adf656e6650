"""The task that looks after all websockets of a server, or after the one of a client."""

from collections.abc import Collection

import trio

from bridgepool.transports._connection import WebSocketChannel
from bridgepool.transports._handshake import WebSocketLimits


async def keep_time(channels: Collection[WebSocketChannel], limits: WebSocketLimits) -> None:
    """Look after all `channels` until cancelled."""
    # At least each second: a reader that is held up by an estimate waits for two looks.
    period = min(1.0, limits.heartbeat_interval / 8, limits.heartbeat_timeout / 8)
    while True:
        await trio.sleep(period)
        now = trio.current_time()
        for channel in channels:
            channel.check(now)
