"""The commands. The module of one is imported when it is run: `bridgepool --help` loads none."""

from bridgepool.gateway.commands._root import app

__all__ = ["app"]
