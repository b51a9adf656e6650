"""Check a reloader of your own against its contract: `pytest check_your_reloader.py`."""

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing
from own_reloader import FileReloader  # type: ignore[import-not-found] # the file beside this

from bridgepool import ChangeBus
from bridgepool.testing import check_reloader


@attrs.define(eq=False)
class Rig:
    """The file of the reloader, with methods that change and break it."""

    reloader: FileReloader
    changes: trio.abc.ReceiveChannel[None]
    bus: ChangeBus

    async def change(self, number: int) -> None:
        """Change the file, and publish a notice."""
        await self.reloader.path.write_text(f"10.0.0.1:{number}\n")
        self.bus.publish()

    async def break_source(self) -> None:
        """Make the file unusable."""
        await self.reloader.path.write_text("10.0.0.1\n")


@asynccontextmanager
async def open_rig() -> AsyncGenerator[Rig]:
    with tempfile.TemporaryDirectory() as directory, ChangeBus() as bus, bus.subscribe() as changes:
        rig = Rig(FileReloader(trio.Path(directory, "upstreams")), changes, bus)
        await rig.change(0)
        yield rig


def test_the_reloader_keeps_its_contract() -> None:
    # Files take real time, so the clock runs at its usual pace.
    check_reloader(open_rig, max_examples=2, make_clock=lambda: trio.testing.MockClock(rate=1))
