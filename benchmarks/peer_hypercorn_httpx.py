"""The peer: a reverse proxy as one would write it from libraries, hypercorn and httpx on Trio.

`python -m benchmarks.peer_hypercorn_httpx UPSTREAM_PORT LIBRARY` prints its port; the library
is `httpx`, or its faster successor `httpx2`, which has the same API.
"""

import importlib
import logging
import sys
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"host"}


async def main(port: int, library: Any) -> None:  # Any: a module of either name
    """Serve on a free loopback port, printed, and send everything to `port`."""
    limits = library.Limits(max_connections=200, max_keepalive_connections=200)
    base = f"http://127.0.0.1:{port}"
    # No timeouts: the floor has none either.
    async with library.AsyncClient(base_url=base, limits=limits, timeout=None) as client:

        async def app(
            scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable"
        ) -> None:
            if scope["type"] != "http":
                raise NotImplementedError(scope["type"])  # how ASGI says: no lifespan here
            body = b""
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            fields = [(n, v) for n, v in scope["headers"] if n not in _HOP]
            target = scope["path"]
            if scope["query_string"]:
                target += "?" + scope["query_string"].decode("ascii")
            async with client.stream(
                scope["method"], target, headers=fields, content=body
            ) as response:
                headers = [(n.lower(), v) for n, v in response.headers.raw]
                await send(
                    {
                        "type": "http.response.start",
                        "status": response.status_code,
                        "headers": [(n, v) for n, v in headers if n not in _HOP],
                        "trailers": False,
                    }
                )
                async for chunk in response.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.accesslog = None
        config.errorlog = None
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(serve, app, config)
            print(addresses[0].rpartition(":")[2], flush=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(main, int(sys.argv[1]), importlib.import_module(sys.argv[2]))
