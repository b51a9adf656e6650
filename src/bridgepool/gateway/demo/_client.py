"""A client that streams a chat completion and reports each word; it knows only HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import trio

from bridgepool.http import UpstreamError, open_upstream_client

_BODY = json.dumps(
    {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Go on."}]}
).encode()


@attrs.define(eq=False)
class StreamRecord:
    """The data that one client received of one streamed answer."""

    status: int = 0
    words: list[str] = attrs.field(factory=list)
    servers: set[str] = attrs.field(factory=set)
    """The identities of the upstreams that its words came from."""
    finished: bool = False
    """The stream was complete: the last event and the last chunk arrived."""
    cut: bool = False
    """The stream was cut."""
    error: str = ""
    """The code of an error that was received as an answer or as an event."""
    word: trio.Event = attrs.field(factory=trio.Event)
    """Set, and renewed, with each word."""

    async def wait_words(self, count: int) -> None:
        """Wait until that many words have arrived."""
        while len(self.words) < count:
            await self.word.wait()


async def stream_chat(
    url: str, seen: StreamRecord, on_word: Callable[[str, str], None], *, style: str = "openai"
) -> None:
    """Stream one answer from `{url}`, calling `on_word(server, word)` for each word.

    Args:
        url: a provider's base URL on the gateway, as an SDK would be given it.
        seen: updated while it streams; an error response is recorded, not raised.
        on_word: called when a word arrives.
        style: `openai` or `anthropic`.
    """
    path = b"/chat/completions" if style == "openai" else b"/v1/messages"
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY)))
    async with (
        open_upstream_client(url) as client,
        client.request(b"POST", path, headers, _BODY) as response,
    ):
        seen.status = response.status
        rest = b""
        try:
            while chunk := await response.receive_some():
                *events, rest = (rest + chunk).split(b"\n\n")
                for event in events:
                    _take(event, seen, on_word)
            seen.finished = not seen.error and response.status == 200
        except UpstreamError:
            seen.cut = True
        if response.status != 200:
            seen.error = str(json.loads(rest)["error"]["code"])


def _take(event: bytes, seen: StreamRecord, on_word: Callable[[str, str], None]) -> None:
    data = event.rpartition(b"data: ")[2]
    if data == b"[DONE]":
        return
    document = json.loads(data)
    if "error" in document:
        seen.error = str(document["error"]["code"])
        return
    word = ""
    if document.get("choices"):
        word = document["choices"][0]["delta"].get("content", "")
        seen.servers.add(document["model"].partition("@")[2])
    elif document.get("type") == "message_start":
        seen.servers.add(document["message"]["model"].partition("@")[2])
    elif document.get("type") == "content_block_delta":
        word = document["delta"]["text"]
    if word:
        seen.words.append(word)
        on_word(next(iter(seen.servers)), word)
        seen.word.set()
        seen.word = trio.Event()
