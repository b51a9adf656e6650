"""The secrets of disabled providers stay in the store: not on the wire, in a snapshot file, or in
a gateway's memory. Enabling a provider sends them, and disabling it forgets them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway._process import open_source
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.sources._snapshot_file import decode_snapshot
from tests.system.asking import Front, Home
from tests.system.rig import make_home, open_front, run_plane, store_source
from tests.system.secret_scan import is_in_memory
from tests.waiting import wait_until

OTHER = "sk-of-the-provider-that-is-enabled"


@attrs.define(eq=False)
class Planted:
    """The key of the provider ``ai``, in two parts: whole, it is nowhere in this test."""

    parts: tuple[str, str] = attrs.field(
        factory=lambda: (f"sk-{secrets.token_hex(8)}", secrets.token_hex(8))
    )

    def is_in(self, data: bytes | bytearray) -> bool:
        return "".join(self.parts).encode() in data

    @property
    def is_held(self) -> bool:
        """Whether an object of this process holds it."""
        return is_in_memory(*self.parts)

    async def add_to(self, home: Home, upstream: SimulatedUpstream) -> None:
        """Add ``ai``, which is disabled, and ``on``."""
        await home.add(
            "ai",
            upstream,
            "".join(self.parts),
            enabled=False,
            headers={"x-team": "team " + "".join(self.parts)},
        )
        await home.add("on", upstream, OTHER)

    def write_to(self, path: Path, upstream: SimulatedUpstream, *, enabled: bool) -> None:
        """Write a provider file with both."""
        rows = (("ai", "".join(self.parts), enabled), ("on", OTHER, True))
        text = "".join(
            f'[[providers]]\nname = "{name}"\ntype = "openai"\nallow_private = true\n'
            f'base_url = "{upstream.openai_url}"\nkeys = ["{key}"]\nenabled = {str(on).lower()}\n'
            f'headers = {{ x-team = "team {key}" }}\n'
            for name, key, on in rows
        )
        draft = path.with_suffix(".new")
        draft.write_text(text)
        os.utime(draft, (1, 1))  # else its write and its rename can fall into one tick of the clock
        draft.replace(path)


@attrs.define(eq=False)
class Recorder:
    """A proxy for TCP that keeps all that it passes on to those who connect."""

    target: int
    seen: bytearray = attrs.field(factory=bytearray)

    async def __call__(self, client: trio.SocketStream) -> None:
        async with (
            await trio.open_tcp_stream("127.0.0.1", self.target) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._pass_on, client, server, bytearray())
            await self._pass_on(server, client, self.seen)
            nursery.cancel_scope.cancel()

    async def _pass_on(
        self, source: trio.SocketStream, sink: trio.SocketStream, seen: bytearray
    ) -> None:
        with suppress(trio.BrokenResourceError):  # who ends first may reset the connection
            async for data in source:
                seen += data
                await sink.send_all(data)


async def switch_on_and_off(
    front: Front,
    upstream: SimulatedUpstream,
    switch: Callable[[bool], Awaitable[object]],
    is_known: Callable[[], bool],
) -> None:
    """See that the key is known while ``ai`` is enabled, and only then."""
    await front.wait_outcome("north", "on")
    assert await front.outcome("ai") == "provider_disabled"
    assert not is_known()
    await switch(True)
    await front.wait_outcome("north", "ai")
    await wait_until(is_known)
    await switch(False)
    await front.wait_outcome("provider_disabled", "ai")
    upstream.received.clear()
    await wait_until(lambda: not is_known())
    assert await front.outcome("on") == "north"


async def test_disabled_providers_send_no_secret_and_leave_none_in_the_snapshot_file(
    tmp_path: Path, north: SimulatedUpstream, nursery: trio.Nursery
) -> None:
    home, planted = await make_home(tmp_path), Planted()
    file = tmp_path / "snapshot"
    recorder = Recorder(home.rpc_port)
    [listener] = await nursery.start(partial(trio.serve_tcp, recorder, 0, host="127.0.0.1"))
    options = GatewayOptions(
        control=f"ws://127.0.0.1:{listener.socket.getsockname()[1]}",
        key_file=home.gateway_file,
        name="front",
        snapshot_file=file,
    )
    async with run_plane(home):
        await planted.add_to(home, north)
        async with open_front(home, open_source(options, allow_anonymous=False)) as (front, _):

            async def switch(enabled: bool) -> None:
                recorder.seen.clear()
                await home.change("ai", enabled=enabled)

            def is_known() -> bool:
                saved = decode_snapshot(file.read_bytes(), None) if file.exists() else None
                if saved is None or "on" not in {row.name for row in saved.rows}:
                    return True  # not written yet
                assert OTHER.encode() in file.read_bytes()
                [row] = [row for row in saved.rows if row.name == "ai"]
                known = {
                    planted.is_in(recorder.seen),
                    planted.is_in(file.read_bytes()),
                    bool(row.keys or row.headers),
                }
                return known != {False}

            await front.wait_outcome("north", "on")
            await wait_until(lambda: not is_known())
            assert OTHER.encode() in recorder.seen
            await switch_on_and_off(front, north, switch, is_known)


@pytest.mark.parametrize("kind", ["control plane", "store", "file"])
async def test_a_gateway_holds_no_secret_of_a_disabled_provider(
    tmp_path: Path, north: SimulatedUpstream, kind: str
) -> None:
    home, planted = await make_home(tmp_path), Planted()
    path = tmp_path / "providers.toml"
    planted.write_to(path, north, enabled=False)
    options = {
        "control plane": GatewayOptions(
            control=f"ws://127.0.0.1:{home.rpc_port}", key_file=home.gateway_file, name="front"
        ),
        "store": None,
        "file": GatewayOptions(providers=path),
    }[kind]

    async def switch(enabled: bool) -> None:
        planted.write_to(path, north, enabled=enabled)
        await home.change("ai", enabled=enabled)

    async with run_plane(home):  # another process: only the gateway is in this one
        await planted.add_to(home, north)
        source = (
            store_source(home) if options is None else open_source(options, allow_anonymous=True)
        )
        async with open_front(home, source) as (front, _):
            await switch_on_and_off(front, north, switch, lambda: planted.is_held)
