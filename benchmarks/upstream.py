"""The upstream of the HTTP benchmarks: raw Trio, answers from constants, far from the limit.

A request with the key `LIMITED_KEY` is answered with 429. A target with `?stream` is answered with
one event, a silence of 5 ms, and the end of the stream; one with `?hold` with one event and
silence; everything else with 1 kB of JSON. `python -m benchmarks.upstream` prints its port.
"""

import re

import trio

from bridgepool._accepting import serve_streams

_BODY = b'{"object": "chat.completion", "content": "%s"}' % (b"x" * 976)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nserver: upstream\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
LIMITED_KEY = "sk-rate-limited"
_IS_LIMITED = f"Bearer {LIMITED_KEY}".encode()
LIMITED = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-type: application/json\r\n"
    b"content-length: 2\r\n\r\n{}"
)
EVENT = b'data: {"delta": "first"}\n\n'
STREAM = (
    b"HTTP/1.1 200 OK\r\nserver: upstream\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(EVENT), EVENT)
)


END = b"0\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


async def _answer(stream: trio.abc.Stream, head: bytes) -> None:
    if b"?hold" in head:
        await stream.send_all(STREAM)
        await stream.receive_some()  # until the proxy hangs up
    elif b"?stream" in head:
        await stream.send_all(STREAM)
        await trio.sleep(0.005)
        await stream.send_all(END)
    elif _IS_LIMITED in head:
        await stream.send_all(LIMITED)
    else:
        await stream.send_all(ANSWER)


async def _serve_requests(stream: trio.abc.Stream) -> None:
    buffer = b""
    while data := await stream.receive_some():
        buffer += data
        while b"\r\n\r\n" in buffer:
            head, _, rest = buffer.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = int(length.group(1)) if length else 0
            if len(rest) < body:
                break
            buffer = rest[body:]
            await _answer(stream, head)


async def _handle(stream: trio.abc.Stream) -> None:
    async with stream:
        try:
            await _serve_requests(stream)
        except trio.BrokenResourceError:
            return  # the proxy under test has gone


async def serve() -> None:
    """Serve on a free loopback port, printed."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        await serve_streams(_handle, listeners, handler_nursery=nursery)


if __name__ == "__main__":
    trio.run(serve)
