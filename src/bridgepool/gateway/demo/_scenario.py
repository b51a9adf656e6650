"""The setting of the demo: the provider file, the gateway, the clients, the claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from bridgepool.gateway import Gateway
from bridgepool.gateway.demo._screen import Screen
from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.http import UpstreamError, open_upstream_client

_ROW = """\
[[providers]]
name = "{name}"
type = "{kind}"
base_url = "{url}"
keys = ["sk-simulated"]
enabled = {enabled}
allow_private = true   # the simulated upstreams live on this machine
"""
_HALF_WRITTEN = '[[providers]]\nname = "writer"\nbase_url = "http://\n'
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


def write_providers(
    file: Path, writer: SimulatedUpstream, critic: SimulatedUpstream, *, enabled: bool = True
) -> None:
    """Save the provider file, as an editor would."""
    flag = "true" if enabled else "false"
    rows = (
        _ROW.format(name="writer", kind="openai", url=writer.openai_url, enabled=flag),
        _ROW.format(name="critic", kind="anthropic", url=critic.anthropic_url, enabled="true"),
    )
    file.write_text("\n".join(rows))


@attrs.define(eq=False)
class Scenario:
    """Two upstreams, a provider file that names one of them `writer`, and its gateway."""

    screen: Screen
    file: Path
    north: SimulatedUpstream
    south: SimulatedUpstream
    pace: float
    """Seconds from word to word."""
    gateway: Gateway
    url: str
    last_word: trio.Event = attrs.field(factory=trio.Event)
    """The upstreams send their last word only when this is set, so that a stream is certainly
    still running, however slow the machine."""
    claims: list[tuple[str, bool]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.north.before_word = self.south.before_word = self._before_word

    async def _before_word(self, number: int) -> None:
        await trio.sleep(self.pace)
        if number == len(WORDS) - 1:
            await self.last_word.wait()

    def claim(self, text: str, *checks: bool) -> None:
        """Record a claim; it holds if every check does."""
        self.claims.append((text, all(checks)))

    @property
    def generation(self) -> int:
        """The generation in force."""
        return self.gateway.pool.generation

    async def change(self, what: str, writer: SimulatedUpstream, *, enabled: bool = True) -> None:
        """Save the file and wait until the change is in force."""
        wanted, saved = self.generation + 1, trio.current_time()
        write_providers(self.file, writer, self.north, enabled=enabled)
        self.screen.change(f"providers.toml saved: {what}")
        await _until(lambda: self.generation >= wanted)
        took = (trio.current_time() - saved) * 1000
        self.screen.change(f"generation {wanted} is in force, {took:.0f} ms later")

    async def write_invalid_file(self) -> str:
        """Save half a file, wait until it is refused and return the reason."""
        status = self.gateway.reload_status
        self.file.write_text(_HALF_WRITTEN)
        self.screen.change("providers.toml saved with an unfinished line")
        await _until(lambda: status.last_error is not None)
        problem = str(status.last_error).removeprefix(f"{self.file}: ")
        self.screen.change(f"refused: {problem}")
        self.screen.change(f"generation {self.generation} stays in force")
        return problem

    async def stream(
        self, who: str, style: str = "openai", seen: StreamRecord | None = None
    ) -> StreamRecord:
        """Stream one answer to its end, and print what the client receives."""
        seen = StreamRecord() if seen is None else seen
        url = f"{self.url}/writer/v1" if style == "openai" else f"{self.url}/critic"

        def show(server: str, word: str) -> None:
            self.screen.event(who, f"{server}: {word.strip()}", server)

        await stream_chat(url, seen, show, style=style)
        if seen.finished:
            self.screen.event(who, "complete", "good")
        elif seen.cut:
            self.screen.event(who, "cut: " + (seen.error or "no end"), "bad")
        else:
            self.screen.event(who, f"{seen.status} {seen.error}", "bad")
        return seen

    async def start_stream(
        self, clients: trio.Nursery, who: str, style: str = "openai"
    ) -> StreamRecord:
        """Start a client; return when it has received two words."""
        seen = StreamRecord()
        clients.start_soon(self.stream, who, style, seen)
        await seen.wait_words(2)
        return seen


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 -- a public state that has no event
            await trio.sleep(0.002)
