"""Many gateways, or many bare watchers, in one process, for `benchmarks.remote`.

A gateway is all of one but its listener: the way to the control plane, receipts, the pool, the
runtimes, and for some the snapshot file. Prints a line of JSON when all serve, then obeys.
"""

import contextvars
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from benchmarks.remote_talk import obey, say, usage
from bridgepool import ProviderReloader, ProviderSnapshot, Secret
from bridgepool.gateway import open_control_plane
from bridgepool.gateway._opening import open_gateway
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.serving._connections import raise_open_files_limit
from bridgepool.gateway.sources._control_source import open_control_source
from bridgepool.remote import websocket_connector

_SETTLED: Final = 1.5  # seconds after a change in which receipt and file are written, too


@attrs.define(eq=False)
class _Record:
    """What one gateway served, and since when."""

    reloader: ProviderReloader[Provider]
    revision: int = -1
    moved: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Where to wait for another revision; costs nothing while nobody does."""
    served: list[tuple[int, float]] = attrs.field(factory=list)

    async def reload(self) -> ProviderSnapshot[Provider]:
        """Pass on, and see the revision, which is put in force in the same step."""
        snapshot = await self.reloader.reload()
        self.revision = snapshot.revision or 0
        self.moved.unpark_all()
        return snapshot


_present: contextvars.ContextVar[_Record] = contextvars.ContextVar("gateway")


class _Replacements(logging.Handler):
    """Notes each "providers replaced": from then on a request goes by them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Note when."""
        if record.msg == "providers replaced":
            gateway = _present.get()
            gateway.served.append((gateway.revision, time.monotonic()))


@attrs.define(eq=False)
class _Loop(trio.abc.Instrument):
    """What this thread's CPU was used for: all of it, and the longest time without I/O."""

    spent: float = 0.0
    longest: float = 0.0
    longest_wall: float = 0.0
    begun: float = attrs.field(factory=time.thread_time)
    begun_wall: float = attrs.field(factory=time.monotonic)

    def after_io_wait(self, timeout: float) -> None:
        """A turn of the loop begins."""
        self.begun, self.begun_wall = time.thread_time(), time.monotonic()

    def before_io_wait(self, timeout: float) -> None:
        """A turn of the loop ends."""
        took = time.thread_time() - self.begun
        self.spent += took
        self.longest = max(self.longest, took)
        self.longest_wall = max(self.longest_wall, time.monotonic() - self.begun_wall)


@attrs.define(eq=False)
class _Many:
    """What the commands work on."""

    records: list[_Record] = attrs.field(factory=list)
    loop: _Loop = attrs.field(factory=_Loop)

    async def times(self, revision: int) -> object:
        """Wait until all serve a revision, and return since when, sorted."""
        with trio.fail_after(30):
            for record in self.records:
                while record.revision < revision:
                    await record.moved.park()
        return sorted(
            next(when for served, when in record.served if served >= revision)
            for record in self.records
        )

    async def begin_loop(self) -> object:
        """Begin to watch the loop."""
        self.loop = _Loop()
        trio.lowlevel.add_instrument(self.loop)
        await trio.sleep(0.01)
        return None

    async def end_loop(self, revision: int) -> object:
        """Wait until a revision is served and all is quiet; tell what the loop did meanwhile."""
        await self.times(revision)
        await trio.sleep(_SETTLED)
        trio.lowlevel.remove_instrument(self.loop)
        return [self.loop.spent, self.loop.longest, self.loop.longest_wall]

    async def usage(self) -> object:
        """Tell what this process has used."""
        await trio.lowlevel.checkpoint()
        return usage()


async def _gateway(options: GatewayOptions, many: _Many) -> None:
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_control_source(options))
        record = _Record(source.reloader)
        many.records.append(record)
        _present.set(record)
        await stack.enter_async_context(
            open_gateway(
                record,
                source.changes,
                clients=source.clients,
                first=source.first,
                settings=options.settings(()),
                on_applied=source.on_applied,
                report=source.report,
            )
        )
        await trio.sleep_forever()


async def _watcher(options: GatewayOptions) -> None:
    assert options.control is not None
    assert options.key_file is not None
    key = Secret(options.key_file.read_text())
    connect = websocket_connector(options.control, key)
    async with open_control_plane(connect, name=options.name) as plane:
        async for _ in plane.providers.changes:
            pass


async def _main(kind: str, count: int, url: str, folder: Path) -> None:
    many = _Many()
    commands: dict[str, Callable[..., Awaitable[object]]] = {
        "times": many.times,
        "begin_loop": many.begin_loop,
        "end_loop": many.end_loop,
        "usage": many.usage,
    }
    async with trio.open_nursery() as nursery:
        for number in range(count):
            options = GatewayOptions(
                control=url,
                key_file=folder / "gateway.key",
                name=f"{kind}-{number}",
                snapshot_file=folder / "snapshot" if kind == "keeper" else None,
            )
            if kind == "watcher":
                nursery.start_soon(_watcher, options)
            else:
                nursery.start_soon(partial(_gateway, options, many), name=options.name)
            await trio.sleep(0.002)  # so that they do not all dial at once
        with trio.fail_after(60):
            while any(not record.served for record in many.records):  # noqa: ASYNC110
                await trio.sleep(0.05)
        gc.collect()
        gc.freeze()  # the collector would look at a hundred gateways, where there is one in life
        say("ready")
        await obey(commands)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.getLogger("bridgepool").setLevel(logging.INFO)
    logging.getLogger("bridgepool").addHandler(_Replacements())
    logging.getLogger("bridgepool").propagate = False
    _kind, _count, _url, _folder = sys.argv[1:]
    raise_open_files_limit()
    trio.run(_main, _kind, int(_count), _url, Path(_folder))
