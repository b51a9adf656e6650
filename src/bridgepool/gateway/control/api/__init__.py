"""The HTTP API of a control plane: a store and a hub, for those who have an admin key.

`app` puts it together and `server` serves it. A request passes `guard` (its key, its size), then
a route in `providers`, `keys` or `status`, each a call of the store or the hub. `bodies` is the
JSON that is taken, `answers` the one that is given, which `views` makes of the store's values;
`errors` is how it fails, `parts` what the routes share. No answer repeats what was sent, and none
holds a secret but a key that was made just now.
"""

from bridgepool.gateway.control.api._app import make_api
from bridgepool.gateway.control.api._guard import Guard
from bridgepool.gateway.control.api._server import Certificate, serve_api

__all__ = ["Certificate", "Guard", "make_api", "serve_api"]
