"""The commands of the README's "The control plane", run by a shell with other ports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.http import open_upstream_client
from tests.e2e.process import Output
from tests.examples.support import EXAMPLES, ROOT
from tests.ports import free_port
from tests.system.asking import Gate, used_key

if shutil.which("curl") is None and not os.environ.get("CI"):
    pytest.skip("curl is not installed here; CI has it", allow_module_level=True)

OPENAI_KEY = "sk-5ecre7-of-openai"


def commands() -> list[str]:
    """Return the commands of the section."""
    blocks = re.findall(r"```sh\n(.*?)```", _section(), re.S)
    return [command for block in blocks for command in block.strip().split("\n\n")]


def _section(title: str = "The control plane") -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@attrs.frozen
class Ran:
    """A process of a shell."""

    process: trio.Process
    stdout: Output
    stderr: Output

    async def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        await self.stdout.wait_end()
        await self.stderr.wait_end()
        with trio.fail_after(90):
            return await self.process.wait()

    @property
    def text(self) -> str:
        """All that it wrote to its standard output."""
        return "\n".join(self.stdout.lines)


@attrs.define(eq=False)
class Desk:
    """A directory, and ports that nobody else has."""

    folder: Path
    ports: dict[str, int]
    said: list[Output] = attrs.field(factory=list)

    @asynccontextmanager
    async def run(self, command: str) -> AsyncIterator[Ran]:
        """Run a command as in a terminal of its own; it is killed at the end."""
        for port, ours in self.ports.items():
            command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ours}")
        if command.startswith("bridgepool control-plane"):
            command += f" --listen 127.0.0.1:{self.ports['8180']}"
            command += f" --rpc-listen 127.0.0.1:{self.ports['8181']}"
        elif command.startswith("bridgepool gateway"):
            command += f" --listen 127.0.0.1:{self.ports['8080']}"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process(
                ["sh", "-c", f"exec {command}"],
                cwd=self.folder,
                env=os.environ | {"PATH": path, "OPENAI_API_KEY": OPENAI_KEY, "NO_PROXY": "*"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            ran = Ran(process, Output(), Output())
            self.said += [ran.stdout, ran.stderr]
            nursery.start_soon(ran.stdout.read_from, process.stdout)
            nursery.start_soon(ran.stderr.read_from, process.stderr)
            try:
                yield ran
            finally:
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    async def finish(self, command: str) -> str:
        """Run a command to its good end, and return what it printed."""
        async with self.run(command) as ran:
            assert await ran.wait() == 0, ran.stderr.lines
            return ran.text

    @asynccontextmanager
    async def served(self, plane: str, gateway: str) -> AsyncIterator[None]:
        """Run a control plane and a gateway, which end well at their first signal."""
        async with self.run(plane) as first:
            await first.stdout.wait_for(lambda line: line.startswith("serving gateways on"))
            async with self.run(gateway) as second:
                await second.stdout.wait_for(lambda line: line.startswith("listening on"))
                await self._wait_ready()
                yield
                second.process.send_signal(signal.SIGTERM)
                assert await second.wait() == 0
            first.process.send_signal(signal.SIGTERM)
            assert await first.wait() == 0

    async def _wait_ready(self) -> None:
        async with open_upstream_client(f"http://127.0.0.1:{self.ports['8080']}") as client:
            with trio.fail_after(60):
                while True:
                    async with client.request(b"GET", b"/readyz", (), None) as response:
                        if response.status == 200:
                            return
                    await trio.sleep(0.01)


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, {port: free_port() for port in ("8080", "8180", "8181")})


async def test_three_commands_serve_a_client_and_a_fourth_disables_its_provider_while_it_streams(
    desk: Desk, north: SimulatedUpstream
) -> None:
    [declared] = re.findall(r"```toml\n(.*?)```", _section("The gateway"), re.S)
    declared = declared.replace("https://api.openai.com/v1", north.openai_url)
    (desk.folder / "providers.toml").write_text(f"{declared}\nallow_private = true\n")
    north.before_word = gate = Gate()
    plane, gateway, curl, disable = commands()
    with trio.fail_after(180):
        async with desk.served(plane, gateway):
            async with desk.run(curl) as streaming:
                await streaming.stdout.wait_for(lambda line: WORDS[0] in line)
                assert used_key(north) == OPENAI_KEY
                began = trio.current_time()
                told = await desk.finish(disable)
                assert "applied" in told, told
                print(f"disabled everywhere, and told so: {trio.current_time() - began:.2f} s")
                assert "provider_disabled" in await desk.finish(curl), "at once"
                assert streaming.process.returncode is None, "it streams still"
                gate.open()
                assert await streaming.wait() == 0
                assert streaming.text.rstrip().endswith("data: [DONE]")
                assert all(f'"{word}"' in streaming.text for word in WORDS)
            assert len(north.received) == 1
    keys = [(desk.folder / name).read_text().strip() for name in ("gateway.key", "client.key")]
    said = "\n".join(line for output in desk.said for line in output.lines)
    for secret in (OPENAI_KEY, *keys, (desk.folder / "bridgepool.db.key").read_text().strip()):
        assert secret not in said


async def test_the_stand_in_needs_no_key(desk: Desk) -> None:
    plane, gateway, curl, disable = commands()
    stand_in, seed = re.findall(r"`(python examples/\S+ [^`]+|--seed [^`]+)`", _section())
    port = free_port()
    name = seed.removeprefix("--seed examples/")
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "127.0.0.1:9001/" in text
    (desk.folder / name).write_text(text.replace(":9001/", f":{port}/"))
    start = stand_in.replace("examples/", f"{EXAMPLES}/").replace("9001 3", f"{port} 0.3")
    plane = plane.replace("--seed providers.toml", f"--seed {name}")
    assert name in plane
    with trio.fail_after(180):
        async with desk.run(start) as upstream:
            await upstream.stdout.wait_for(lambda line: "listens" in line)
            async with desk.served(plane, gateway), desk.run(curl) as streaming:
                await streaming.stdout.wait_for(lambda line: "The (north)" in line)
                await desk.finish(disable)
                assert "provider_disabled" in await desk.finish(curl)
                assert await streaming.wait() == 0
                assert "stream. (north)" in streaming.text
