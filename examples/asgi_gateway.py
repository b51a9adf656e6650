"""An ASGI application with a gateway at `/ai/...`; it serves all other paths itself.

PROVIDERS=providers.toml hypercorn --worker-class trio asgi_gateway:app
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from bridgepool.gateway import GatewaySettings, open_gateway
from bridgepool.gateway.providers import open_provider_file
from bridgepool.http import Handler
from bridgepool.http.asgi import Receive, Scope, Send, asgi_app_from

MOUNT = "/ai"


@asynccontextmanager
async def open_handler() -> AsyncGenerator[Handler]:
    """Open the gateway when the server starts, close it when the server stops."""
    async with (
        open_provider_file(os.environ.get("PROVIDERS", "providers.toml")) as source,
        open_gateway(
            source,
            source.changes,
            clients=lambda: source.clients,
            first=await source.reload(),
            # Without [[clients]] in the file: for a server that listens on loopback only.
            settings=GatewaySettings(allow_anonymous=True, drain_timeout=60),
        ) as gateway,
    ):
        yield gateway.handle


gateway = asgi_app_from(open_handler)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path = str(scope.get("path", ""))
    if scope["type"] == "lifespan":
        await gateway(scope, receive, send)
    elif path.startswith(MOUNT + "/"):
        await gateway({**scope, "root_path": MOUNT}, receive, send)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"The application's own page.\n"})
