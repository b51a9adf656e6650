"""The HTTP API of a control plane: a store and a hub, for those who have an admin key.

It is a handler for `bridgepool.http`, as the gateway is. A request passes `_guard` (its key, its
size), then `_app` finds its operation, reads the arguments, and answers with the record that the
operation returns. `_openapi` describes the operations, `_errors` is how they fail, `_access_log`
the line of each request. No answer repeats what was sent, and none holds a secret but a key that
was made just now.
"""

from bridgepool.gateway.control.api._access_log import ApiRecord, console_line, json_line
from bridgepool.gateway.control.api._app import make_api
from bridgepool.gateway.control.api._guard import Guard

__all__ = ["ApiRecord", "Guard", "console_line", "json_line", "make_api"]
