"""The upstream of the HTTP benchmarks: raw Trio, answers from constants, far from the limit.

A request with the key `LIMITED_KEY` is answered with 429. A target with `?stream` is answered with
one event, a silence of 5 ms, and the end of the stream; one with `?hold` with one event and
silence; one with `?chunks` with a chat completion in twenty chunks, a millisecond apart, the last
of which tells its usage; one with `?chat` with 1 kB of JSON that tells usage; everything else with
1 kB of JSON that does not. `python -m benchmarks.upstream` prints its port.
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
_HEAD_OF_CHUNK = (
    b'data: {"id":"chatcmpl-9x","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"gpt-5.2","service_tier":"default","system_fingerprint":"fp_44709d6fcb",'
)
CHUNK = (
    _HEAD_OF_CHUNK + b'"choices":[{"index":0,"delta":{"content":" a few words"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
LAST_CHUNK = (
    _HEAD_OF_CHUNK + b'"choices":[],"usage":{"prompt_tokens":120,"completion_tokens":45,'
    b'"total_tokens":165,"prompt_tokens_details":{"cached_tokens":64},'
    b'"completion_tokens_details":{"reasoning_tokens":30}}}\n\ndata: [DONE]\n\n'
)
CHUNKS = 20
_CHAT_BODY = (
    b'{"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [{"index": 0, '
    b'"message": {"role": "assistant", "content": "%s"}, "finish_reason": "stop"}], "usage": '
    b'{"prompt_tokens": 50, "completion_tokens": 200, "total_tokens": 250}}'
) % (b"x" * 780)
CHAT = (
    b"HTTP/1.1 200 OK\r\nserver: upstream\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_CHAT_BODY), _CHAT_BODY)
)
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


async def _answer(stream: trio.abc.Stream, head: bytes) -> None:
    if b"?hold" in head:
        await stream.send_all(STREAM)
        await stream.receive_some()  # until the proxy hangs up
    elif b"?stream" in head:
        await stream.send_all(STREAM)
        await trio.sleep(0.005)
        await stream.send_all(END)
    elif b"?chat" in head:
        await stream.send_all(CHAT)
    elif b"?chunks" in head:
        await stream.send_all(STREAM[: STREAM.index(b"\r\n\r\n") + 4])
        for chunk in [CHUNK] * (CHUNKS - 1) + [LAST_CHUNK]:
            await stream.send_all(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await trio.sleep(0.001)
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
