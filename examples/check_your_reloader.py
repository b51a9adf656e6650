"""Check a reloader of your own against its contract: `pytest check_your_reloader.py`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
import trio.testing
from own_reloader import HttpReloader  # type: ignore[import-not-found] # the file beside this

from bridgepool import ChangeBus
from bridgepool.http import Exchange, open_upstream_client, serve_http
from bridgepool.testing import check_reloader


@attrs.define(eq=False)
class Rig:
    """The endpoint of the reloader, with methods that change and break it."""

    reloader: HttpReloader
    changes: trio.abc.ReceiveChannel[None]
    bus: ChangeBus
    status: int = 200
    revision: int = 0

    async def answer(self, exchange: Exchange) -> None:
        """Serve the list of upstreams."""
        document = {"revision": self.revision, "upstreams": [f"10.0.0.1:{self.revision}"]}
        await exchange.answer(self.status, body=json.dumps(document).encode())

    async def change(self, number: int) -> None:
        """Change the list of the endpoint, and publish a notice."""
        self.status, self.revision = 200, self.revision + 1
        self.bus.publish()
        await trio.lowlevel.checkpoint()

    async def break_source(self) -> None:
        """Make the endpoint fail."""
        self.status = 503
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with ChangeBus() as bus, bus.subscribe() as changes:
        async with open_upstream_client(f"http://127.0.0.1:{port}") as client:
            rig = Rig(HttpReloader(client, b"/"), changes, bus)
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve_http, rig.answer, listeners))
                yield rig
                nursery.cancel_scope.cancel()


def test_the_reloader_keeps_its_contract() -> None:
    # Sockets take real time, so the clock runs at its usual pace.
    check_reloader(open_rig, max_examples=2, make_clock=lambda: trio.testing.MockClock(rate=1))
