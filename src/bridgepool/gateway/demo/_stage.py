"""What the acts of the demo have in common: the file, the gateway, the clients, the claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from bridgepool.gateway import Gateway
from bridgepool.gateway.demo._client import Seen, stream_chat
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
class Stage:
    """Two upstreams, and a provider file that says which of them is `writer`."""

    screen: Screen
    file: Path
    north: SimulatedUpstream
    south: SimulatedUpstream
    pace: float
    """Seconds from word to word."""
    last_word: trio.Event = attrs.field(factory=trio.Event)
    """The upstreams say their last word only when this is set: so an act can be sure that a
    stream is still running, however slow the machine."""
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
        """Keep a claim for the end; it holds if every check does."""
        self.claims.append((text, all(checks)))


@attrs.define(eq=False)
class Play:
    """A stage with its gateway running."""

    stage: Stage
    gateway: Gateway
    url: str

    @property
    def generation(self) -> int:
        """The generation in force."""
        return self.gateway.pool.generation

    async def change(self, what: str, writer: SimulatedUpstream, *, enabled: bool = True) -> None:
        """Save the file and wait until the pool has taken it up."""
        screen, wanted, saved = self.stage.screen, self.generation + 1, trio.current_time()
        self.stage.write(writer, enabled=enabled)
        screen.change(f"providers.toml saved: {what}")
        await _until(lambda: self.generation >= wanted)
        took = (trio.current_time() - saved) * 1000
        screen.change(f"generation {wanted} is in force, {took:.0f} ms later")

    async def spoil_file(self) -> str:
        """Save half a file; wait until it is refused and return why."""
        status = self.gateway.reload_status
        self.stage.file.write_text(_HALF_WRITTEN)
        self.stage.screen.change("providers.toml saved, half written")
        await _until(lambda: status.last_error is not None)
        problem = str(status.last_error).removeprefix(f"{self.stage.file}: ")
        self.stage.screen.change(f"refused: {problem}")
        self.stage.screen.change(f"generation {self.generation} stays in force")
        return problem

    async def ask(self, who: str, style: str = "openai", seen: Seen | None = None) -> Seen:
        """Let a client stream an answer to its end, and show what it sees."""
        seen = Seen() if seen is None else seen
        url = f"{self.url}/writer/v1" if style == "openai" else f"{self.url}/critic"
        screen = self.stage.screen

        def show(server: str, word: str) -> None:
            screen.say(who, f"{server}: {word.strip()}", server)

        await stream_chat(url, seen, show, style=style)
        if seen.finished:
            screen.say(who, "complete", "good")
        elif seen.cut:
            screen.say(who, "cut: " + (seen.error or "no end"), "bad")
        else:
            screen.say(who, f"{seen.status} {seen.error}", "bad")
        return seen

    async def begin(self, clients: trio.Nursery, who: str, style: str = "openai") -> Seen:
        """Let a client begin; return when it has seen two words."""
        seen = Seen()
        clients.start_soon(self.ask, who, style, seen)
        await seen.wait_words(2)
        return seen


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # a public state that has no event
            await trio.sleep(0.002)
