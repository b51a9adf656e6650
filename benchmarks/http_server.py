"""CPU of one request through `serve_http`, and through a bare h11 loop on the same streams.

Run it with `python -m benchmarks.http_server`. Both servers respond with 1 kB to a request of the
size that SDKs send. One raw client on loopback sends one request after another. The client's share
is measured with a server that parses nothing, and shown as the floor.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import h11
import trio

from bridgepool.http import Exchange, serve_http

REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.example.com\r\nAccept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAuthorization: Bearer sk-0123456789abcdef\r\n"
    b"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 3.52\r\n"
    b"X-Stainless-Arch: x64\r\nX-Stainless-Async: async:trio\r\nX-Stainless-Lang: python\r\n"
    b"X-Stainless-OS: Linux\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Retry-Count: 0\r\n"
    b"Content-Length: 100\r\n\r\n" + b"x" * 100
)
BODY = b"y" * 1024
FIELDS = ((b"content-type", b"application/json"), (b"x-request-id", b"0123456789"))
REQUESTS = 2000
ROUNDS = 5


async def handler(exchange: Exchange) -> None:
    async for _ in exchange.body:
        pass
    await exchange.answer(200, FIELDS, BODY)


async def bare_h11(stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    headers = [*FIELDS, (b"content-length", b"%d" % len(BODY))]
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.ConnectionClosed):
            return
        elif isinstance(event, h11.EndOfMessage):
            raw = connection.send(h11.Response(status_code=200, headers=headers)) or b""
            raw += connection.send(h11.Data(data=BODY)) or b""
            await stream.send_all(raw + (connection.send(h11.EndOfMessage()) or b""))
            connection.start_next_cycle()


async def no_parser(stream: trio.SocketStream) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n" + BODY
    while await stream.receive_some():
        await stream.send_all(answer)


async def ask(port: int, count: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        for _ in range(count):
            await stream.send_all(REQUEST)
            received = await stream.receive_some()
            while not received.endswith(BODY):
                received += await stream.receive_some()


Server = Callable[..., Awaitable[object]]


async def measure(server: Server) -> float:
    """Return microseconds of CPU for each request, server and client together."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(server, listeners)
        port = listeners[0].socket.getsockname()[1]
        await ask(port, 200)
        begin = time.process_time()
        await ask(port, REQUESTS)
        spent = time.process_time() - begin
        nursery.cancel_scope.cancel()
    return spent / REQUESTS * 1e6


def main() -> None:
    servers: dict[str, Server] = {
        "no parser (floor)": partial(trio.serve_listeners, no_parser),
        "bare h11 loop": partial(trio.serve_listeners, bare_h11),
        "serve_http": partial(serve_http, handler),
    }
    taken: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, server in servers.items():
            taken[name].append(trio.run(measure, server))
    floor = statistics.median(taken["no parser (floor)"])
    loop = statistics.median(taken["bare h11 loop"]) - floor
    for name, times in taken.items():
        median = statistics.median(times)
        print(
            f"{name:20} {median:7.1f} us ({min(times):.1f} to {max(times):.1f})"
            f"   over the floor {median - floor:6.1f}"
            f"   of the bare loop {(median - floor) / loop:.2f}"
        )


if __name__ == "__main__":
    main()
