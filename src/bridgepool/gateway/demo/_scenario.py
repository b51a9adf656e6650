"""The setting of the demo: the provider file, the gateway, the clients, the claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from bridgepool.gateway import Gateway
from bridgepool.gateway.demo._client import StreamRecord, stream_chat
from bridgepool.gateway.demo._screen import Screen
from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream

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


@attrs.define(eq=False)
class Scenario:
    """Two upstreams, and a provider file that names one of them `writer`."""

    screen: Screen
    file: Path
    north: SimulatedUpstream
    south: SimulatedUpstream
    pace: float
    """Seconds from word to word."""
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

    def write(self, writer: SimulatedUpstream, *, enabled: bool = True) -> None:
        """Save the provider file, as an editor would."""
        flag, critic = ("true" if enabled else "false"), self.north.anthropic_url
        rows = (
            _ROW.format(name="writer", kind="openai", url=writer.openai_url, enabled=flag),
            _ROW.format(name="critic", kind="anthropic", url=critic, enabled="true"),
        )
        self.file.write_text("\n".join(rows))

    def claim(self, text: str, *checks: bool) -> None:
        """Record a claim; it holds if every check does."""
        self.claims.append((text, all(checks)))


@attrs.define(eq=False)
class RunningScenario:
    """A scenario with its gateway."""

    scenario: Scenario
    gateway: Gateway
    url: str

    @property
    def generation(self) -> int:
        """The generation in force."""
        return self.gateway.pool.generation

    async def change(self, what: str, writer: SimulatedUpstream, *, enabled: bool = True) -> None:
        """Save the file and wait until the change is in force."""
        screen, wanted, saved = self.scenario.screen, self.generation + 1, trio.current_time()
        self.scenario.write(writer, enabled=enabled)
        screen.change(f"providers.toml saved: {what}")
        await _until(lambda: self.generation >= wanted)
        took = (trio.current_time() - saved) * 1000
        screen.change(f"generation {wanted} is in force, {took:.0f} ms later")

    async def write_invalid_file(self) -> str:
        """Save half a file, wait until it is refused and return the reason."""
        status = self.gateway.reload_status
        self.scenario.file.write_text(_HALF_WRITTEN)
        self.scenario.screen.change("providers.toml saved with an unfinished line")
        await _until(lambda: status.last_error is not None)
        problem = str(status.last_error).removeprefix(f"{self.scenario.file}: ")
        self.scenario.screen.change(f"refused: {problem}")
        self.scenario.screen.change(f"generation {self.generation} stays in force")
        return problem

    async def stream(
        self, who: str, style: str = "openai", seen: StreamRecord | None = None
    ) -> StreamRecord:
        """Stream one answer to its end, and print what the client receives."""
        seen = StreamRecord() if seen is None else seen
        url = f"{self.url}/writer/v1" if style == "openai" else f"{self.url}/critic"
        screen = self.scenario.screen

        def show(server: str, word: str) -> None:
            screen.event(who, f"{server}: {word.strip()}", server)

        await stream_chat(url, seen, show, style=style)
        if seen.finished:
            screen.event(who, "complete", "good")
        elif seen.cut:
            screen.event(who, "cut: " + (seen.error or "no end"), "bad")
        else:
            screen.event(who, f"{seen.status} {seen.error}", "bad")
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
        while not condition():  # noqa: ASYNC110  # a public state that has no event
            await trio.sleep(0.002)
