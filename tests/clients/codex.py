"""Codex, by its app server: what extensions of editors talk to, over standard input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

CODEX = Path(__file__).parent / "node/node_modules/.bin/codex"
PATIENCE = 180  # seconds
Json = dict[str, object]

PAGE = Path(__file__).parents[2] / "docs/howto/clients.md"

QUIET = """
model = "m"
check_for_update_on_startup = false
analytics.enabled = false
"""


def settings(gateway: str) -> str:
    """Return the settings that the documentation gives, for a provider `ai`."""
    found = re.search(r"```toml\n(model_provider.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    return QUIET + found[1].replace("http://127.0.0.1:8080/NAME", f"{gateway}/ai")


@attrs.define(eq=False)
class Codex:
    """One Codex with one thread."""

    process: trio.Process
    log: Path
    thread: str = ""
    _rest: bytes = b""
    _requests: int = 0

    async def begin(self, folder: Path) -> None:
        """Begin its thread."""
        about = {"name": "tests", "title": "tests", "version": "1"}
        await self._call("initialize", {"clientInfo": about})
        await self._send({"method": "initialized"})
        begun = await self._call("thread/start", {"cwd": str(folder)})
        thread = begun["thread"]
        assert isinstance(thread, dict)
        self.thread = thread["id"]

    async def turn(self, text: str) -> list[str]:
        """Have one turn, and return what the agent said."""
        words = [{"type": "text", "text": text}]
        await self._call("turn/start", {"threadId": self.thread, "input": words})
        said: list[str] = []
        while True:
            match await self._receive():
                case {"method": "item/completed", "params": {"item": {"text": str(text), **item}}}:
                    if item["type"] == "agentMessage":
                        said.append(text)
                case {"method": "turn/completed", "params": {"turn": dict(turn)}}:
                    assert turn["status"] == "completed", turn
                    return said

    async def _call(self, method: str, params: Json) -> Json:
        self._requests += 1
        await self._send({"id": self._requests, "method": method, "params": params})
        while True:
            document = await self._receive()
            if document.get("id") == self._requests and "method" not in document:
                result = document.get("result")
                assert isinstance(result, dict), document
                return result

    async def _send(self, document: Json) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(document).encode() + b"\n")

    async def _receive(self) -> Json:
        assert self.process.stdout is not None
        with trio.move_on_after(PATIENCE) as scope:
            while b"\n" not in self._rest:
                data = await self.process.stdout.receive_some()
                assert data, self.log.read_text(errors="replace")
                self._rest += data
        assert not scope.cancelled_caught, self.log.read_text(errors="replace")
        line, _, self._rest = self._rest.partition(b"\n")
        document = json.loads(line)
        assert isinstance(document, dict)
        return document


@asynccontextmanager
async def run_codex(gateway: str, key: str, folder: Path) -> AsyncIterator[Codex]:
    """Run Codex with settings of its own, and begin a thread."""
    (folder / "config.toml").write_text(settings(gateway))
    log = folder / "codex.log"
    with log.open("ab") as stderr:
        process = await trio.lowlevel.open_process(
            [str(CODEX), "app-server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "CODEX_HOME": str(folder),
                "GATEWAY_KEY": key,
                "RUST_LOG": "info",
            },
        )
    try:
        codex = Codex(process, log)
        await codex.begin(folder)
        yield codex
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own, so a group
        with trio.CancelScope(shield=True):
            await process.wait()
