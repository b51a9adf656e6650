"""How the processes of `benchmarks.remote` talk: lines of JSON, one answer for each command."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio


def say(answer: object) -> None:
    """Print one line."""
    print(json.dumps(answer), flush=True)


async def obey(commands: Mapping[str, Callable[..., Awaitable[object]]]) -> None:
    """Carry out what is asked on standard input, until it ends."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        name, *arguments = json.loads(line)
        say(await commands[name](*arguments))


def usage() -> dict[str, float]:
    """Return the CPU seconds of this process."""
    return {"cpu": time.process_time()}


def memory() -> dict[str, float]:
    """Return the resident memory of this process in kB, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"memory": pages * os.sysconf("SC_PAGE_SIZE") / 1000}


@attrs.define
class Peer:
    """A process that obeys."""

    process: "subprocess.Popen[str]"
    greeting: Any = attrs.field(default=None, init=False)
    """What it said first."""

    def ask(self, *command: object) -> Any:
        """Have a command carried out, and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended")
        return json.loads(line)


@contextmanager
def started(module: str, *arguments: str) -> Iterator[Peer]:
    """Start one of the programs beside this module, and end it."""
    found = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), found]))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            peer = Peer(process)
            peer.greeting = peer.hear()
            yield peer
        finally:
            process.kill()
