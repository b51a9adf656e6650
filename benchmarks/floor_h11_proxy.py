"""The floor: what a reverse proxy on Trio and h11 costs when it does nothing else.

h11 parses and writes both ways, connections are kept alive on both sides, bodies are streamed
piece by piece. No limits, no header rules beyond hop-by-hop, no deadlines, no log, no watcher
for a client that leaves. `python -m benchmarks.floor_h11_proxy UPSTREAM_PORT` prints its port.
"""

import sys
from typing import TypeAlias

import h11
import trio

_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"host"}

Upstream: TypeAlias = tuple[trio.SocketStream, h11.Connection]
Event: TypeAlias = h11.Event | type[h11.PAUSED]


async def _next_event(stream: trio.SocketStream, connection: h11.Connection) -> Event:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
            continue
        assert not isinstance(event, type) or event is h11.PAUSED
        return event


async def _send(stream: trio.SocketStream, connection: h11.Connection, event: h11.Event) -> None:
    data = connection.send(event)
    if data:
        await stream.send_all(data)


async def _exchange(
    client: trio.SocketStream, down: h11.Connection, request: h11.Request, upstream: Upstream
) -> bool:
    """Carry one request and its answer; true when the upstream connection may be kept."""
    stream, up = upstream
    fields = [(n, v) for n, v in request.headers if n not in _HOP]
    onward = h11.Request(
        method=request.method, target=request.target, headers=[(b"host", b"upstream"), *fields]
    )
    await _send(stream, up, onward)
    while True:
        event = await _next_event(client, down)
        if isinstance(event, h11.EndOfMessage):
            await _send(stream, up, h11.EndOfMessage())
            break
        assert isinstance(event, h11.Data)
        await _send(stream, up, event)
    response = await _next_event(stream, up)
    assert isinstance(response, h11.Response)
    answer = h11.Response(
        status_code=response.status_code,
        headers=[(n, v) for n, v in response.headers if n not in _HOP],
        reason=response.reason,
    )
    await _send(client, down, answer)
    while True:
        event = await _next_event(stream, up)
        if isinstance(event, h11.EndOfMessage):
            await _send(client, down, h11.EndOfMessage())
            break
        assert isinstance(event, h11.Data)
        await _send(client, down, event)
    if up.our_state is not h11.DONE or up.their_state is not h11.DONE:
        return False
    up.start_next_cycle()
    return True


async def serve(port: int) -> None:
    """Serve on a free loopback port, printed, and send everything to `port`."""
    idle: list[Upstream] = []

    async def handle(client: trio.SocketStream) -> None:
        down = h11.Connection(h11.SERVER)
        async with client:
            while True:
                request = await _next_event(client, down)
                if not isinstance(request, h11.Request):
                    return
                if idle:
                    upstream = idle.pop()
                else:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                    upstream = stream, h11.Connection(h11.CLIENT)
                if await _exchange(client, down, request, upstream):
                    idle.append(upstream)
                else:
                    await upstream[0].aclose()
                if down.our_state is not h11.DONE or down.their_state is not h11.DONE:
                    return
                down.start_next_cycle()

    async def handle_safely(client: trio.SocketStream) -> None:
        try:
            await handle(client)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return  # the load generator has left

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(handle_safely, listeners)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
