"""The floor for bursts: a proxy on Trio that understands nothing, and accepts in batches.

What a client sends goes to an upstream connection of its own, and what that answers comes back.
`python -m benchmarks.floor_batched_proxy UPSTREAM_PORT` prints its port.
"""

import socket
import sys

import trio

_MAX_ACCEPTED = 256


async def _carry(client: trio.SocketStream, upstream_port: int) -> None:
    upstream = await trio.open_tcp_stream("127.0.0.1", upstream_port)
    async with upstream, client:
        while data := await client.receive_some():
            await upstream.send_all(data)
            await client.send_all(await upstream.receive_some())


async def _serve(client: trio.SocketStream, upstream_port: int) -> None:
    try:
        await _carry(client, upstream_port)
    except trio.BrokenResourceError:
        return  # the client has gone


async def serve(upstream_port: int) -> None:
    """Serve on a free loopback port, printed."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(_MAX_ACCEPTED):
                    try:
                        accepted, _ = listener.accept()
                    except BlockingIOError:
                        break
                    accepted.setblocking(False)
                    stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
                    nursery.start_soon(_serve, stream, upstream_port)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
