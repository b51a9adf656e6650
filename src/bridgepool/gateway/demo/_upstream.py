"""A simulated AI upstream: both API styles, blocking and streaming, on a real socket.

It replaces a provider in `bridgepool demo` and in the project's own end-to-end tests. It sends
the same words to every client, marks each piece with its identity (so that a client knows which
upstream served it), records its requests, and injects faults on request.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator

import attrs
import trio

from bridgepool.http import Exchange, Headers, serve_http

WORDS = ("The ", "pool ", "that ", "never ", "cuts ", "a ", "stream.")
"""The answer of every upstream, one word per piece."""

Json = dict[str, object]


class CutError(Exception):
    """Raised inside the simulated upstream to cut its answer."""


@attrs.frozen
class Received:
    """One request as it arrived at the upstream."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


async def _at_once(_: int) -> None:
    await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class SimulatedUpstream:
    """One upstream; change its fields at any time to change how it behaves.

    Made and served by `serve_simulated_upstream`.
    """

    identity: str
    """Marks every piece: the model name is `<requested model>@<identity>`."""
    address: str = ""
    """The `host:port` that it listens on."""
    before_word: Callable[[int], Awaitable[None]] = _at_once
    """Called with 0, 1, 2 … before each word of a streamed answer, to delay it."""
    cut_after: int | None = None
    """Cut streamed answers after this number of words."""
    received: list[Received] = attrs.field(factory=list)
    """Every request so far, in order of arrival."""
    key_answers: dict[bytes, tuple[int, Headers]] = attrs.field(factory=dict)
    """The keys that it does not take, with status and headers of the answer."""
    streaming: int = 0
    """Streamed answers that are open."""
    abandoned: int = 0
    """Streamed answers whose client disconnected before the end."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Cancel it to kill the upstream with all its streams."""

    @property
    def openai_url(self) -> str:
        """The base URL for a provider of type `openai`."""
        return f"http://{self.address}/v1"

    @property
    def anthropic_url(self) -> str:
        """The base URL for a provider of type `anthropic`."""
        return f"http://{self.address}"

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request."""
        request = exchange.request
        body = b"".join([piece async for piece in exchange.body])
        self.received.append(Received(request.method, request.target, request.headers, body))
        headers = dict(request.headers)
        key = headers.get(b"x-api-key", headers.get(b"authorization", b"")).removeprefix(b"Bearer ")
        if key in self.key_answers:
            status, more = self.key_answers[key]
            await exchange.answer(status, more, b'{"error": {"message": "not with this key"}}')
            return
        path = request.target.partition(b"?")[0].decode("ascii")
        asked: Json = json.loads(body) if body else {}
        stamp = f"{asked.get('model', 'model')}@{self.identity}"
        if path.endswith("/chat/completions"):
            await self._reply(exchange, asked, _chat(stamp), _chat_events(stamp, asked))
        elif path.endswith("/responses"):
            await self._reply(exchange, asked, _response(stamp), _response_events(stamp))
        elif path.endswith("/messages/count_tokens"):
            await _send_json(exchange, {"input_tokens": len(WORDS)})
        elif path.endswith("/messages"):
            await self._reply(exchange, asked, _message(stamp), _message_events(stamp))
        elif path.endswith("/models"):
            model = {"id": stamp, "object": "model", "created": 0, "owned_by": self.identity}
            await _send_json(exchange, {"object": "list", "data": [model], "has_more": False})
        else:
            await _send_json(exchange, {"error": {"message": f"no {path} here"}}, status=404)

    async def _reply(
        self, exchange: Exchange, asked: Json, whole: Json, events: Iterator[tuple[bool, bytes]]
    ) -> None:
        if not asked.get("stream"):
            await _send_json(exchange, whole)
            return
        self.streaming += 1
        finished = False
        try:
            headers = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
            async with exchange.respond(200, headers) as stream:
                words = 0
                for is_word, event in events:
                    if is_word:
                        await self.before_word(words)
                        if words == self.cut_after:
                            raise CutError
                        words += 1
                    await stream.send_all(event)
            finished = True
        except CutError:
            finished = True
        finally:
            self.streaming -= 1
            self.abandoned += not finished


async def _send_json(exchange: Exchange, document: Json, status: int = 200) -> None:
    headers = ((b"content-type", b"application/json"),)
    await exchange.answer(status, headers, json.dumps(document).encode())


def _data(document: Json, name: str = "") -> bytes:
    event = f"event: {name}\n" if name else ""
    return f"{event}data: {json.dumps(document)}\n\n".encode()


_CHAT_USAGE: Json = {"prompt_tokens": 1, "completion_tokens": len(WORDS), "total_tokens": 8}


def _chat(stamp: str) -> Json:
    message = {"role": "assistant", "content": "".join(WORDS)}
    return {
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "created": 0,
        "model": stamp,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _CHAT_USAGE,
    }


def _chat_events(stamp: str, asked: Json) -> Iterator[tuple[bool, bytes]]:
    head: Json = {
        "id": "chatcmpl-demo",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": stamp,
    }

    def chunk(delta: Json, finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data(head | {"choices": [choice]})

    for word in WORDS:
        yield True, chunk({"role": "assistant", "content": word}, None)
    yield False, chunk({}, "stop")
    options = asked.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield False, _data(head | {"choices": [], "usage": _CHAT_USAGE})
    yield False, b"data: [DONE]\n\n"


def _response(stamp: str, status: str = "completed") -> Json:
    content = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
    return {
        "id": "resp_demo",
        "object": "response",
        "created_at": 0,
        "model": stamp,
        "status": status,
        "output": [
            {
                "id": "msg_demo",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": content,
            }
        ],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 1, "output_tokens": len(WORDS), "total_tokens": 8},
    }


def _response_events(stamp: str) -> Iterator[tuple[bool, bytes]]:
    def event(name: str, number: int, fields: Json) -> bytes:
        return _data({"type": name, "sequence_number": number, **fields}, name)

    start = _response(stamp, "in_progress") | {"output": [], "usage": None}
    yield False, event("response.created", 0, {"response": start})
    place: Json = {"item_id": "msg_demo", "output_index": 0, "content_index": 0}
    for number, word in enumerate(WORDS, 1):
        fields = place | {"delta": word, "logprobs": []}
        yield True, event("response.output_text.delta", number, fields)
    yield False, event("response.completed", len(WORDS) + 1, {"response": _response(stamp)})


def _message(stamp: str) -> Json:
    return {
        "id": "msg_demo",
        "type": "message",
        "role": "assistant",
        "model": stamp,
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": len(WORDS)},
    }


def _message_events(stamp: str) -> Iterator[tuple[bool, bytes]]:
    def event(name: str, **fields: object) -> bytes:
        return _data({"type": name, **fields}, name)

    start = _message(stamp) | {"content": [], "stop_reason": None}
    yield False, event("message_start", message=start)
    block = {"type": "text", "text": ""}
    yield False, event("content_block_start", index=0, content_block=block)
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        yield True, event("content_block_delta", index=0, delta=delta)
    yield False, event("content_block_stop", index=0)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield False, event("message_delta", delta=end, usage={"output_tokens": len(WORDS)})
    yield False, event("message_stop")


async def serve_simulated_upstream(  # noqa: ASYNC114 -- the linter cannot be told of each
    identity: str,
    *,
    task_status: trio.TaskStatus[SimulatedUpstream] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one simulated upstream on loopback, until it is stopped or cancelled.

    `nursery.start` returns the `SimulatedUpstream` once its port is open.

    Args:
        identity: its name, which marks its answers.
    """
    upstream = SimulatedUpstream(identity)
    with upstream.scope:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        upstream.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started(upstream)  # a client that connects now waits in the socket's backlog
        await serve_http(upstream.handle, listeners)
