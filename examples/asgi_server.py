"""A FastAPI application with a gateway at `/ai/...`, in a program that runs hypercorn itself.

At a shutdown its websockets are closed between two responses, so the program exits without cutting
any.

PROVIDERS=providers.toml python asgi_server.py
"""

import os
import signal

import hypercorn.trio
import trio
from fastapi import FastAPI
from hypercorn.config import Config

from bridgepool.gateway import GatewaySettings, open_gateway
from bridgepool.gateway.providers import open_provider_file
from bridgepool.http.asgi import asgi_app

# Without [[clients]] in the file: for a server that listens on loopback only.
SETTINGS = GatewaySettings(allow_anonymous=True, drain_timeout=60)


async def main() -> None:
    config = Config()
    config.bind = [os.environ.get("BIND", "127.0.0.1:8000")]
    config.graceful_timeout = SETTINGS.drain_timeout  # hypercorn cuts what runs after it
    async with (
        open_provider_file(os.environ.get("PROVIDERS", "providers.toml")) as source,
        open_gateway(
            source,
            source.changes,
            clients=lambda: source.clients,
            first=await source.reload(),
            settings=SETTINGS,
        ) as gateway,
    ):
        app = FastAPI()
        app.mount("/ai", asgi_app(gateway.handle))

        async def wait_for_shutdown() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await anext(signals)
            gateway.start_draining()
            gateway.close_websockets()

        await hypercorn.trio.serve(  # pyright: ignore[reportUnknownMemberType]
            app,  # type: ignore[arg-type] # its own names for the same messages
            config,
            shutdown_trigger=wait_for_shutdown,
        )


if __name__ == "__main__":
    trio.run(main)
