"""Message channels between two processes, or two ends in one: `trio.abc.Channel[bytes]`.

Import the one that you need: `bridgepool.transports.memory`, `bridgepool.transports.websocket`.
"""
