"""A gateway process and a control plane process, the latter killed and started again."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from bridgepool.control.encryption import find_encryption_keys
from bridgepool.control.records import Actor, KeyValue, ProviderDraft, ProviderPatch
from bridgepool.control.store import Store, open_store
from bridgepool.demo.upstream import SimulatedUpstream
from bridgepool.providers import Secret
from tests.e2e.asking import ask, wait_model, wait_ready
from tests.e2e.process import GatewayProcess, run_command, run_gateway_of

ME = Actor("program", "test")


async def free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@asynccontextmanager
async def run_plane(path: Path, port: int) -> AsyncIterator[GatewayProcess]:
    options = ("--listen", "127.0.0.1:0", "--rpc-listen", f"127.0.0.1:{port}")
    arguments = ("control-plane", "--store", str(path), *options, "--log-format", "json")
    async with run_command(*arguments) as plane:
        await plane.stdout.wait_for(lambda line: line.startswith("serving gateways on"))
        yield plane


async def fill(store: Store, north: SimulatedUpstream) -> tuple[str, str]:
    """Add a provider; return the keys of a client and of a gateway."""
    draft = ProviderDraft(
        name="ai",
        type="openai",
        base_url=north.openai_url,
        keys=(KeyValue(Secret("sk-5ecre7-central")),),
        allow_private=True,
    )
    await store.add_provider(ME, draft)
    client = (await store.add_client(ME, "ada")).value.key
    assert client is not None
    gateway = (await store.create_gateway_key(ME, "front")).value.key
    return client.reveal(), gateway.reveal()


async def test_no_request_of_a_known_client_fails_and_the_next_control_plane_is_followed(
    north: SimulatedUpstream, south: SimulatedUpstream, tmp_path: Path
) -> None:
    path, key_file, port = tmp_path / "bridgepool.db", tmp_path / "key", await free_port()
    keys = await trio.to_thread.run_sync(find_encryption_keys, str(path))
    failed: list[object] = []
    served = 0

    async def keep_asking(url: str, key: str) -> None:
        nonlocal served
        while True:
            answer = await ask(url, key)
            served += 1
            if answer.status != 200:
                failed.append((answer.status, answer.code))

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(str(path), keys))
        key, gateway_key = await fill(store, north)
        key_file.write_text(gateway_key)
        key_file.chmod(0o600)
        plane = await stack.enter_async_context(run_plane(path, port))
        options = ("--control", f"ws://127.0.0.1:{port}", "--key-file", str(key_file))
        gateway = await stack.enter_async_context(run_gateway_of(*options))
        await wait_model(gateway.url, key, "m@north")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking, gateway.url, key)
            plane.signal(signal.SIGKILL)
            await plane.wait()
            await wait_ready(gateway.url, connected=False, ready=True)
            await store.update_provider(ME, "ai", ProviderPatch(base_url=south.openai_url))
            async with run_plane(path, port):
                await wait_model(gateway.url, key, "m@south")
            nursery.cancel_scope.cancel()
    assert failed == []
    assert served > 10
