"""A fake AI provider that streams one word at a time, each with its own name.

python slow_upstream.py north 9001 1.0     # name, port, seconds between words
"""

import sys
from functools import partial

import trio

from bridgepool.http import Exchange, serve_http

WORDS = ("The", "pool", "that", "never", "cuts", "a", "stream.")


async def answer(name: str, pace: float, exchange: Exchange) -> None:
    headers = ((b"content-type", b"text/event-stream"),)
    async with exchange.respond(200, headers) as stream:
        for word in WORDS:
            await stream.send_all(f"data: {word} ({name})\n\n".encode())
            await trio.sleep(pace)


async def main(name: str, port: int, pace: float) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(f"{name} listens on port {listeners[0].socket.getsockname()[1]}", flush=True)
    await serve_http(partial(answer, name, pace), listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
