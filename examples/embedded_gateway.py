"""A gateway in your program, with its providers and clients from a store.

python embedded_gateway.py bridgepool.db 8080
"""

import sys

import trio

from bridgepool.gateway import GatewaySettings, open_gateway
from bridgepool.gateway.control import find_encryption_keys, open_store, open_store_providers
from bridgepool.http import serve_http


async def main(store_url: str, port: int) -> None:
    keys = await trio.to_thread.run_sync(find_encryption_keys, store_url)
    async with open_store(store_url, keys) as store:
        with open_store_providers(store) as source:  # notices are received from here on
            first = await source.reload()
            async with open_gateway(
                source,
                source.changes,
                clients=lambda: source.clients,
                first=first,  # ready immediately
                settings=GatewaySettings(poll_interval=5.0),  # finds a change whose notice was lost
            ) as gateway:
                listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
                print(f"listening on port {listeners[0].socket.getsockname()[1]}", flush=True)
                await serve_http(gateway.handle, listeners)


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1], int(sys.argv[2]))
    except* KeyboardInterrupt:
        print("stopped")
