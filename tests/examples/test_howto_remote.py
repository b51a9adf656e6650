"""The commands of the how-to pages about control planes, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control.store import Store, open_store
from tests.e2e.process import GatewayProcess, run_command
from tests.examples.support import ROOT
from tests.gateway.proxy.rig import start_upstream

PROVIDERS = """
[[providers]]
name = "openai"
type = "openai"
base_url = "{url}"
keys = ["sk-5ecre7-long-enough-first"]
allow_private = true
"""
# What stands in the pages, and what is free on this machine.
API, RPC, GATEWAY = "127.0.0.1:8180", "127.0.0.1:8181", "127.0.0.1:8080"


def blocks(page: str) -> list[str]:
    """Return the shell blocks of a how-to page that a reader is to run."""
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith("pip ")]


def _begins(begin: str, line: str) -> bool:
    return line.startswith(begin)


@asynccontextmanager
async def opened() -> AsyncIterator[Store]:
    """Open the store of the pages."""
    keys = await trio.to_thread.run_sync(find_encryption_keys, "bridgepool.db")
    async with open_store("bridgepool.db", keys) as store:
        yield store


@attrs.define(eq=False)
class Reader:
    """Somebody who does what the pages say, in a directory of their own."""

    stack: AsyncExitStack
    addresses: dict[str, str] = attrs.field(factory=dict)  # of the page -> real
    exports: list[str] = attrs.field(factory=list)
    started: dict[str, tuple[GatewayProcess, list[str]]] = attrs.field(factory=dict)

    async def do(self, block: str) -> str:
        """Run a block, or start what is to stay; return what it printed."""
        block = block.replace("\\\n", "")
        if re.match(r"bridgepool (control-plane|gateway) ", block):
            await self._start(shlex.split(self._real(block))[1:])
            return ""
        script = self._real(await self._with_ids(block))
        result = await trio.run_process(
            ["bash", "-euo", "pipefail", "-c", "\n".join([*self.exports, script])],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OPENAI_KEY": "sk-5ecre7-long-enough-second",
                "NEW_OPENAI_KEY": "sk-5ecre7-long-enough-third",
            },
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        text = result.stdout.decode()
        assert result.returncode == 0, f"{block}\n{text}"
        assert "5ecre7" not in text
        self.exports += [line for line in script.splitlines() if line.startswith("export ")]
        return text

    async def restart(self, name: str) -> None:
        """Start a program once more, with the options that it had."""
        run, arguments = self.started[name]
        await run.stop()
        await self._start(arguments)

    async def _start(self, arguments: list[str]) -> None:
        name = arguments[0]
        kinds = {"--listen": API, "--rpc-listen": RPC} if name == "control-plane" else {}
        for option, address in (kinds or {"--listen": GATEWAY}).items():
            arguments = [*arguments, option, self.addresses.get(address, "127.0.0.1:0")]
        run = await self.stack.enter_async_context(run_command(*arguments))
        for line, address in {
            "listening on http://": API if kinds else GATEWAY,
            **({"serving gateways on ws://": RPC} if kinds else {}),
        }.items():
            found = await run.stdout.wait_for(partial(_begins, line))
            self.addresses[address] = found.removeprefix(line)
        options = arguments[: -2 * len(kinds or "1")]
        self.started[name] = run, options

    def _real(self, text: str) -> str:
        for shown, address in self.addresses.items():
            text = text.replace(shown, address)
        return text

    async def _with_ids(self, block: str) -> str:
        """Put in the ids that a reader copies from what the commands print: the oldest keys."""
        if "OLD_" not in block:
            return block
        async with opened() as store:
            ids = {
                "OLD_CLIENT_KEY": (await store.list_clients())[0].keys[0].id,
                "OLD_GATEWAY_KEY": (await store.list_keys("gateway"))[0].id,
                "OLD_ADMIN_KEY": (await store.list_keys("admin"))[0].id,
            }
        for shown, key_id in ids.items():
            block = block.replace(shown, key_id)
        return block


async def test_the_pages_do_what_they_say(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    upstream = await start_upstream(nursery, "north")
    (tmp_path / "providers.toml").write_text(PROVIDERS.format(url=upstream.openai_url))
    said: dict[str, str] = {}
    with trio.fail_after(120):
        async with AsyncExitStack() as stack:
            reader = Reader(stack)
            for page in ("control-plane", "rolling-upgrade", "change-providers", "key-rotation"):
                reader.exports.clear()
                for block in blocks(page):
                    if "encryption rotate" in block:  # one process alone opens this store
                        await reader.restart("control-plane")
                    if block not in said:  # some stand on two pages
                        said[block] = await reader.do(block)
            async with opened() as store:
                provider = await store.get_provider("openai")
                gateway_keys = await store.list_keys("gateway")
    assert (provider.problem, [key.hint for key in provider.keys]) == (None, ["…hird"])
    assert len(gateway_keys) == 1
    everything = "\n".join(said.values())
    assert "disabled second (revision" in everything
    assert re.search(r"^first +\w+ +applied +[0-9]+ +-$", everything, re.MULTILINE)
    assert "removed openai-eu (revision" in everything
    assert "kept only the key" in everything
    assert len(find_encryption_keys("bridgepool.db").keys) == 1
    assert (tmp_path / "backup.db").stat().st_size > 0


def test_other_pages_have_no_block_that_nobody_runs() -> None:
    assert blocks("postgresql") == []
    assert blocks("embedded") == []
