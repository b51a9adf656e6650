"""The files in `examples/`, run as their readers run them: as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from bridgepool.http import UpstreamResponse, open_upstream_client
from tests.e2e.process import Output

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def output_of(name: str, *arguments: str) -> str:
    """Run an example to its end and return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@attrs.define(eq=False)
class Example:
    """A running example."""

    process: trio.Process
    output: Output = attrs.field(factory=Output)

    async def said(self, begin: str) -> str:
        """Wait for a line that begins so, and return the rest of it."""
        line = await self.output.wait_for(lambda line: line.startswith(begin))
        return line.removeprefix(begin).strip()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit status."""
        self.process.send_signal(number)
        with trio.fail_after(90):
            return await self.process.wait()


@asynccontextmanager
async def running(*command: str, env: dict[str, str] | None = None) -> AsyncIterator[Example]:
    """Run `python ...` in the directory of the examples; killed at the end if still there."""
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [sys.executable, *command],
            cwd=EXAMPLES,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error", **(env or {})},
        )
        example = Example(process)
        assert process.stdout is not None
        nursery.start_soon(example.output.read_from, process.stdout)
        try:
            yield example
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def ask(base_url: str, target: str, body: bytes | None = None, method: str = "") -> bytes:
    """Send one request; return its status and its body, a line break between them."""
    verb = method or ("GET" if body is None else "POST")
    async with (
        open_upstream_client(base_url) as client,
        client.request(verb.encode(), target.encode(), (), body) as response,
    ):
        text = b"%d\n" % response.status
        while piece := await response.receive_some():
            text += piece
        return text


@asynccontextmanager
async def streaming(base_url: str, target: str, body: bytes) -> AsyncIterator[UpstreamResponse]:
    """Begin one request; its answer is read in the block."""
    async with (
        open_upstream_client(base_url) as client,
        client.request(b"POST", target.encode(), (), body) as response,
    ):
        yield response
