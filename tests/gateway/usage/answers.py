"""Answers of the provider types, as their APIs send them, and what each of them tells."""

import json
from collections.abc import Iterable

import attrs

from bridgepool.gateway.providers import ANTHROPIC, OPENAI, ProviderType
from bridgepool.gateway.usage._tokens import Tokens, Usage


@attrs.frozen
class Answer:
    """One answer."""

    name: str
    kind: ProviderType
    body: bytes
    usage: Usage
    is_stream: bool = False

    @property
    def content_type(self) -> bytes:
        """Its media type, as it is sent."""
        return b"text/event-stream; charset=utf-8" if self.is_stream else b"application/json"


def events(
    documents: Iterable[object], *, named: bool = False, done: bool = False, end: str = "\n"
) -> bytes:
    """Write documents as server-sent events."""
    parts = []
    for document in documents:
        if named:
            assert isinstance(document, dict)
            parts.append(f"event: {document['type']}{end}")
        parts.append(f"data: {json.dumps(document)}{end}{end}")
    if done:
        parts.append(f"data: [DONE]{end}{end}")
    return "".join(parts).encode()


def chunk(delta: object, finish: str | None = None, **fields: object) -> dict[str, object]:
    """Return a chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-9x",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-5.2-2026-08-01",
        "choices": [choice],
        **fields,
    }


def call(name: str | None, arguments: str) -> dict[str, object]:
    """Return a delta with a part of a tool call."""
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"tool_calls": [{"index": 0, "function": function}]}


CHAT_USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 45,
    "total_tokens": 165,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
}
CHAT_TOKENS = Tokens(120, 45, 64, None, 30)
CHAT_CHUNKS: list[object] = [
    chunk({"role": "assistant", "content": ""}, usage=None),
    chunk({"content": 'It says "usage": {"prompt_tokens": 9} \u00e9\u4e16 \\'}, usage=None),
    chunk(call("get_weather", ""), usage=None),
    chunk(call(None, '{"city": "K\u00f6ln"}'), usage=None),
    chunk({}, "tool_calls", usage=None),
    {**chunk({}), "choices": [], "usage": CHAT_USAGE},
]
_RESPONSE_USAGE = {
    "input_tokens": 300,
    "input_tokens_details": {"cached_tokens": 256},
    "output_tokens": 80,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 380,
}
_RESPONSE: dict[str, object] = {
    "id": "resp_1",
    "object": "response",
    "status": "in_progress",
    "model": "gpt-5.2-codex",
    "output": [],
    "usage": None,
}
_OUTPUT = [
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "id": "fc_1", "name": "shell", "arguments": "{}"},
]
RESPONSE_EVENTS: list[object] = [
    {"type": "response.created", "sequence_number": 0, "response": _RESPONSE},
    {"type": "response.output_item.added", "sequence_number": 1, "item": _OUTPUT[1]},
    {"type": "response.output_text.delta", "sequence_number": 2, "delta": "x" * 300},
    {
        "type": "response.completed",
        "sequence_number": 3,
        "response": {
            **_RESPONSE,
            "status": "completed",
            "output": _OUTPUT,
            "usage": _RESPONSE_USAGE,
            "instructions": "You are a careful programmer.\n" * 40,
        },
    },
]
_RESPONSE_TELLS = Usage(
    Tokens(300, 80, 256, None, 64), True, "gpt-5.2-codex", "resp_1", "completed", ("shell",)
)
_MESSAGE_USAGE: dict[str, object] = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 3000,
    "output_tokens": 1,
    "service_tier": "standard",
}
MESSAGE_EVENTS: list[object] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-5",
            "content": [],
            "stop_reason": None,
            "usage": _MESSAGE_USAGE,
        },
    },
    {"type": "ping"},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 77},
    },
    {"type": "message_stop"},
]
MESSAGE_TOKENS = Tokens(3210, 77, 3000, 200, None)
_CHAT_TELLS = Usage(
    CHAT_TOKENS, True, "gpt-5.2-2026-08-01", "chatcmpl-9x", "tool_calls", ("get_weather",)
)
_MESSAGE_TELLS = Usage(MESSAGE_TOKENS, True, "claude-opus-5", "msg_1", "tool_use", ("Bash",))


def _json(name: str, kind: ProviderType, document: object, usage: Usage) -> Answer:
    return Answer(name, kind, json.dumps(document, indent=1).encode(), usage)


ANSWERS: tuple[Answer, ...] = (
    Answer("chat stream", OPENAI, events(CHAT_CHUNKS, done=True), _CHAT_TELLS, True),
    Answer(
        "chat stream with other line ends",
        OPENAI,
        b": keep-alive\r\n\r\n" + events(CHAT_CHUNKS, done=True, end="\r\n"),
        _CHAT_TELLS,
        True,
    ),
    Answer(
        "chat stream that tells no tokens",
        OPENAI,
        events(CHAT_CHUNKS[:-1], done=True),
        _CHAT_TELLS._replace(tokens=Tokens(), complete=False),
        True,
    ),
    Answer("responses stream", OPENAI, events(RESPONSE_EVENTS, named=True), _RESPONSE_TELLS, True),
    Answer("messages stream", ANTHROPIC, events(MESSAGE_EVENTS, named=True), _MESSAGE_TELLS, True),
    Answer(
        "image stream",
        OPENAI,
        events(
            [
                {"type": "image_generation.partial_image", "b64_json": "A" * 200},
                {
                    "type": "image_generation.completed",
                    "b64_json": "B" * 200,
                    "usage": {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210},
                },
            ],
            named=True,
        ),
        Usage(Tokens(50, 4160), True),
        True,
    ),
    _json(
        "chat completion",
        OPENAI,
        {
            "id": "chatcmpl-9x",
            "object": "chat.completion",
            "model": "gpt-5.2-2026-08-01",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {"id": "c", "type": "function", "function": {"name": "get_weather"}}
                        ],
                    },
                    "finish_reason": "tool_calls",
                }
            ],
            "usage": CHAT_USAGE,
        },
        _CHAT_TELLS,
    ),
    _json(
        "response",
        OPENAI,
        {**_RESPONSE, "status": "completed", "output": _OUTPUT, "usage": _RESPONSE_USAGE},
        _RESPONSE_TELLS,
    ),
    _json(
        "embeddings",
        OPENAI,
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -2e-05] * 50}],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        },
        Usage(Tokens(8), True, "text-embedding-3-small"),
    ),
    _json(
        "images",
        OPENAI,
        {
            "created": 1,
            "data": [{"b64_json": "A" * 500}],
            "usage": {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210},
        },
        Usage(Tokens(50, 4160), True),
    ),
    _json(
        "transcription",
        OPENAI,
        {"text": "hi", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}},
        Usage(Tokens(14, 45), True),
    ),
    _json(
        "message",
        ANTHROPIC,
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude-opus-5",
            "content": [
                {"type": "text", "text": "let me see"},
                {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}},
            ],
            "stop_reason": "tool_use",
            "usage": _MESSAGE_USAGE | {"output_tokens": 77},
        },
        _MESSAGE_TELLS,
    ),
    _json("count of tokens", ANTHROPIC, {"input_tokens": 14}, Usage()),
)
