"""The real `bridgepool gateway` process, driven by what it prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

_LISTENING = re.compile(r"listening on (https?://\S+)")
Line = dict[str, object]


@attrs.define(eq=False)
class Output:
    """One output stream of a process: all its lines so far, and waiting for the next."""

    lines: list[str] = attrs.field(factory=list)
    ended: bool = False
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def read_from(self, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._wake()
        if rest:
            self.lines.append(rest.decode())
        self.ended = True
        self._wake()

    async def wait_end(self) -> None:
        with trio.fail_after(90):
            while not self.ended:
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, wanted: Callable[[str], bool], *, after: int = 0) -> str:
        """Return the first line from number `after` on that is wanted."""
        with trio.fail_after(90):
            while True:
                for line in self.lines[after:]:
                    if wanted(line):
                        return line
                assert not self.ended, "\n".join(["it ended without that line", *self.lines])
                await self._changed.wait()


def as_json(line: str) -> Line:
    """Return what a log line says; {} for lines that are no JSON object."""
    if not line.startswith("{"):
        return {}
    document = json.loads(line)
    assert isinstance(document, dict)
    return document


@attrs.define(eq=False)
class GatewayProcess:
    """A running gateway; made by `run_gateway`."""

    process: trio.Process
    stdout: Output
    stderr: Output
    urls: list[str] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def address(self) -> str:
        return self.url.partition("://")[2]

    async def wait_event(self, event: str, *, after: int = 0, **fields: object) -> Line:
        """Wait for a line of the log whose event begins so and that has these fields."""

        def wanted(line: str) -> bool:
            document = as_json(line)
            text = str(document.get("event", ""))
            return text.startswith(event) and fields.items() <= document.items()

        return as_json(await self.stderr.wait_for(wanted, after=after))

    async def wait_request(self, **fields: object) -> Line:
        """Wait for a line of the access log that has these fields."""
        return as_json(await self.stdout.wait_for(lambda s: fields.items() <= as_json(s).items()))

    async def stop(self) -> list[Line]:
        """End it as an operator would, and return its whole access log."""
        self.signal(signal.SIGTERM)
        assert await self.wait() == 0
        await self.stdout.wait_end()
        await self.stderr.wait_end()
        return [line for text in self.stdout.lines if (line := as_json(text))]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        with trio.fail_after(90):
            return await self.process.wait()

    @property
    def everything(self) -> str:
        """All that it has printed."""
        return "\n".join(self.stdout.lines + self.stderr.lines)


@asynccontextmanager
async def run_command(
    *arguments: str,
    env: dict[str, str] | None = None,
    stderr: int = subprocess.PIPE,
    open_files: int | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Run `bridgepool ...`; it is killed at the end if it still runs.

    `stderr` may be a file descriptor, which is not read here. `open_files` is its hard limit of
    them; its soft limit is a quarter of that.
    """
    command = [sys.executable, "-m", "bridgepool", *arguments]
    if open_files is not None:
        command = ["prlimit", f"--nofile={open_files // 4}:{open_files}", *command]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        run = GatewayProcess(process, Output(), Output())
        assert process.stdout is not None
        nursery.start_soon(run.stdout.read_from, process.stdout)
        if process.stderr is not None:
            nursery.start_soon(run.stderr.read_from, process.stderr)
        try:
            yield run
        except Exception as error:
            error.add_note("\n".join(["the program's standard error:", *run.stderr.lines[-20:]]))
            raise
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@asynccontextmanager
async def run_gateway(
    providers: Path,
    *options: str,
    listen: Iterable[str] = ("127.0.0.1:0",),
    env: dict[str, str] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Run a gateway of a provider file on free ports, and wait until it serves."""
    async with run_gateway_of(
        "--providers", str(providers), *options, listen=listen, env=env
    ) as run:
        yield run


@asynccontextmanager
async def run_gateway_of(
    *options: str,
    listen: Iterable[str] = ("127.0.0.1:0",),
    env: dict[str, str] | None = None,
    stderr: int = subprocess.PIPE,
) -> AsyncIterator[GatewayProcess]:
    """Run a gateway on free ports, and wait until it listens."""
    listens = [part for address in listen for part in ("--listen", address)]
    arguments = ("gateway", *listens, "--log-format", "json")
    async with run_command(*arguments, *options, env=env, stderr=stderr) as run:
        count = len(listens) // 2
        while len(run.urls) < count:
            urls = {*run.urls}

            def is_new(line: str, known: set[str] = urls) -> bool:
                found = _LISTENING.match(line)
                return found is not None and found[1] not in known

            line = await run.stdout.wait_for(is_new)
            found = _LISTENING.match(line)
            assert found is not None
            run.urls.append(found[1])
        yield run
