"""The upstream of the HTTP benchmarks: raw Trio, answers from constants, far from the limit.

`GET /sse` answers with one event and then stays silent until its client leaves; everything
else gets 1 kB of JSON. `python -m benchmarks.upstream` prints its port.
"""

import trio

_BODY = b'{"object": "chat.completion", "content": "%s"}' % (b"x" * 976)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nserver: upstream\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
EVENT = b'data: {"delta": "first"}\n\n'
STREAM = (
    b"HTTP/1.1 200 OK\r\nserver: upstream\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(EVENT), EVENT)
)


async def _handle(stream: trio.SocketStream) -> None:
    async with stream:
        buffer = b""
        while True:
            try:
                data = await stream.receive_some()
            except trio.BrokenResourceError:
                return
            if not data:
                return
            buffer += data
            while b"\r\n\r\n" in buffer:
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                try:
                    await stream.send_all(STREAM if b" /sse" in head else ANSWER)
                except trio.BrokenResourceError:
                    return


async def serve() -> None:
    """Serve on a free loopback port, printed."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(_handle, listeners)


if __name__ == "__main__":
    trio.run(serve)
