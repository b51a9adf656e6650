"""Your own provider type: one process owns the providers, others follow it.

python remote_pool.py own              prints the port of the owner, which follows itself, too
python remote_pool.py follow PORT
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import attrs
import trio

from bridgepool import MemoryReloader, ProviderSnapshot, Secret, open_bridge_pool, watch_providers
from bridgepool import remote as net

PIN = Secret("1234")
KEY = Secret("key-of-the-followers")  # in your program: from a file


@attrs.frozen
class Printer:
    """The provider type of this program."""

    name: str
    host: str
    pin: Secret


ROWS = net.RowFormat.of(Printer)  # a row is identified by its `name`


@asynccontextmanager
async def open_bridge(user: str, snapshot: ProviderSnapshot[Printer]) -> AsyncGenerator[str]:
    yield ", ".join(f"{printer.name} at {printer.host}" for printer in snapshot.providers)


async def follow(who: str, connect: net.Connect) -> None:
    async with (
        net.open_remote_providers(connect, ROWS, name=who) as remote,
        open_bridge_pool(open_bridge, ProviderSnapshot[Printer](())) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(watch_providers, pool, remote, remote.changes)
        while True:
            async with pool.acquire("ada") as bridge:
                print(f"{who}: {bridge}", flush=True)
            await pool.wait_drained(pool.generation)  # until the next change is in force


async def admit(handshake: net.Handshake) -> net.Identity | net.Refused:
    await trio.lowlevel.checkpoint()  # in your program: a database query
    if handshake.bearer == KEY:
        return net.Identity("follower")
    return net.Refused(401, "unknown_key", "this key is not known")


async def own() -> None:
    source = MemoryReloader[Printer](ProviderSnapshot(()))
    async with (
        net.open_remote_service(ROWS, source, source.subscribe(), admit=admit) as service,
        trio.open_nursery() as nursery,
    ):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(service.serve_listeners, listeners)
        print("port", listeners[0].socket.getsockname()[1], flush=True)
        nursery.start_soon(follow, "owner", partial(service.connect, net.Identity("owner")))
        for number in count(1):
            source.replace(ProviderSnapshot([Printer("hall", f"10.0.0.{number}", PIN)]))
            await trio.sleep(0.5)


if __name__ == "__main__":
    role, *port = sys.argv[1:] or sys.exit(__doc__)
    if role == "own":
        trio.run(own)
    trio.run(follow, "follower", net.websocket_connector(f"ws://127.0.0.1:{port[0]}", KEY))
