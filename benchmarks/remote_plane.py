"""A control plane as a process, for `benchmarks.remote`: a store in SQLite, the hub, the service.

Prints its address as a line of JSON, then obeys lines of JSON, and answers each with one.
"""

import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from benchmarks.remote_talk import memory, obey, say, usage
from bridgepool import Secret
from bridgepool.gateway.control import open_gateway_service
from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control._records import Actor, KeyValue, ProviderDraft, ProviderPatch
from bridgepool.gateway.control.store import Store, open_store
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.serving._listening import Address, listener_url, open_listeners
from bridgepool.remote import RemoteService
from bridgepool.transports.websocket import serve_websockets

_WHO = Actor("local", "benchmark")


@attrs.define(eq=False)
class _Plane:
    """What the commands work on."""

    store: Store
    hub: Hub
    service: RemoteService[ProviderRow]
    turn: int = 0

    async def fill(self, count: int) -> object:
        """Have so many providers, each different from whatever it was before."""
        self.turn += 1
        result = await self.store.apply_providers(
            _WHO, [self.draft(number) for number in range(count)], prune=True
        )
        return result.revision

    def draft(self, number: int) -> ProviderDraft:
        """Make a provider as operators have them: https, one key, a header."""
        return ProviderDraft(
            name=f"provider-{number}",
            type="openai",
            base_url=f"https://api-{number}.example.com/v{self.turn}",
            keys=[KeyValue(Secret(f"sk-benchmark-{number:04}-{'0123456789abcdef' * 3}"))],
            headers={"x-team": Secret("platform")},
        )

    async def change(self) -> tuple[int, float]:
        """Change one provider; return the revision, and when the store's write returned."""
        self.turn += 1
        patch = ProviderPatch(base_url=f"https://api.example.com/v{self.turn}")
        change = await self.store.update_provider(_WHO, "provider-0", patch)
        return change.revision, time.monotonic()

    async def changes(self, count: int) -> object:
        """Change so often, at random moments at least 0.3 s apart."""
        made = []
        for _ in range(count):
            made.append(await self.change())
            await trio.sleep(random.uniform(0.3, 0.5))
        return made

    async def wait_sessions(self, count: int) -> object:
        """Wait until so many gateways are connected."""
        while len(self.service.sessions) != count:  # noqa: ASYNC110
            await trio.sleep(0.05)
        return len(self.service.sessions)

    async def usage(self) -> object:
        """Tell what this process has used."""
        await trio.lowlevel.checkpoint()
        return usage()

    async def memory(self) -> object:
        """Tell how large this process is."""
        await trio.lowlevel.checkpoint()
        return memory()


async def _main(folder: Path) -> None:
    path = folder / "store.db"
    keys = await trio.to_thread.run_sync(find_encryption_keys, str(path))
    async with open_store(str(path), keys) as store, open_hub(store) as hub:
        listeners = await open_listeners([Address.parse("127.0.0.1:0")], None)
        async with (
            trio.open_nursery() as nursery,
            open_gateway_service(hub, observer=hub) as service,
        ):
            await nursery.start(
                partial(serve_websockets, service.serve, listeners, admit=service.admit)
            )
            key = (await store.create_gateway_key(_WHO, "benchmark")).key
            key_file = folder / "gateway.key"
            key_file.touch(0o600)
            key_file.write_text(key.reveal())
            plane = _Plane(store, hub, service)
            commands: dict[str, Callable[..., Awaitable[object]]] = {
                "fill": plane.fill,
                "changes": plane.changes,
                "wait_sessions": plane.wait_sessions,
                "usage": plane.usage,
                "memory": plane.memory,
            }
            say(f"ws{listener_url(listeners[0]).removeprefix('http')}")
            await obey(commands)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, Path(sys.argv[1]))
