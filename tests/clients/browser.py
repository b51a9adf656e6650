"""A page in headless Chromium, of an origin of its own; it says itself what it saw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bridgepool.http import Exchange, serve_http

PAGE = Path(__file__).parent / "page.html"
PATIENCE = 180  # seconds
Json = dict[str, object]

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which needs more rights than a container has
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP *.example 127.0.0.1",  # a page from loopback is a local program
)


@attrs.define(eq=False)
class Page:
    """The server of the page; its address is the page's origin."""

    origin: str = ""
    plan: Json = attrs.field(factory=dict)
    begun: trio.Event = attrs.field(factory=trio.Event)
    """The page has the first piece of its stream."""
    seen: Json = attrs.field(factory=dict)
    done: trio.Event = attrs.field(factory=trio.Event)

    async def handle(self, exchange: Exchange) -> None:
        """Serve the page, and hear from it."""
        body = b"".join([piece async for piece in exchange.body])
        html, data = (((b"content-type", kind),) for kind in (b"text/html", b"application/json"))
        match exchange.request.target:
            case b"/":
                await exchange.answer(200, html, PAGE.read_bytes())
            case b"/plan":
                await exchange.answer(200, data, json.dumps(self.plan).encode())
            case b"/begun":
                self.begun.set()
                await exchange.answer(200, data, b"{}")
            case b"/seen":
                self.seen = json.loads(body)
                await exchange.answer(200, data, b"{}")
                self.done.set()
            case _:  # its icon
                await exchange.answer(404, (), b"")

    async def visit(self, gateway: str, key: str, folder: Path) -> Json:
        """Open it in a browser of its own, have it call a gateway, and return what it saw."""
        self.plan = {"gateway": gateway, "key": key}
        self.begun, self.done = trio.Event(), trio.Event()
        with (folder / "chromium.log").open("ab") as log:
            profile = f"--user-data-dir={folder / 'profile'}"
            command = ["chromium", *FLAGS, profile, self.origin]
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "HOME": str(folder)},
            )
        try:
            with trio.move_on_after(PATIENCE):
                await self.done.wait()
            assert self.done.is_set(), (folder / "chromium.log").read_text(errors="replace")
            return self.seen
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, so a group
            with trio.CancelScope(shield=True):
                await process.wait()


@asynccontextmanager
async def open_page(name: str) -> AsyncIterator[Page]:
    """Serve the page on an origin of its own, a host below `.example`."""
    page = Page()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    page.origin = f"http://{name}.example:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_http, page.handle, listeners))
        yield page
        nursery.cancel_scope.cancel()
