"""Websockets through the gateway: a message each way beside a bare relay, and idle ones.

Run it with `python -m benchmarks websockets`. Client, relay and upstream share one process; the
cost of a relay is what it adds to the same messages without one.
"""

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from benchmarks.table import Row, row
from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway import GatewaySettings, WebSocketLimits, open_gateway
from bridgepool.gateway.providers import (
    Client,
    ClientRules,
    Clients,
    Provider,
    hash_key,
    new_client_key,
)
from bridgepool.http import Opcode, UpstreamLimits, encode_frame, serve_http, websocket_accept

MESSAGES = 3000
ROUNDS = 5
IDLE = 1000
_MESSAGE = b'{"type":"input_audio_buffer.append","audio":"%s"}' % (b"x" * 150)
_QUESTION = encode_frame(Opcode.TEXT, _MESSAGE, mask=b"\1\2\3\4")
_ANSWER = encode_frame(Opcode.TEXT, b"y" * 200)
_HANDSHAKE = (
    b"GET /ai/v1/realtime?model=m HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n"
)
_KEY = new_client_key()
_NO_RULES = ClientRules()
_RULES = ClientRules(models=("*",), tokens_per_minute=10**9)


def run() -> list[Row]:
    """Measure, and return the rows."""
    return trio.run(_main)


async def _main() -> list[Row]:
    direct, bare, gateway, ruled, idle = [], [], [], [], []
    async with (
        _serving(_answer) as upstream,
        _serving(partial(_relay, upstream)) as relay,
        _gateway(upstream) as served,
        _gateway(upstream, _RULES) as judging,
    ):
        for _ in range(ROUNDS):
            direct.append(await _talk(upstream))
            bare.append(await _talk(relay))
            gateway.append(await _talk(served))
            ruled.append(await _talk(judging))
        idle.append(await _memory(upstream, served))
    floors = [through - alone for through, alone in zip(bare, direct, strict=True)]
    costs = [through - alone for through, alone in zip(gateway, direct, strict=True)]
    judged = [through - alone for through, alone in zip(ruled, direct, strict=True)]
    ratios = [cost / floor for cost, floor in zip(costs, floors, strict=True)]
    return [
        row("websocket, 200 B each way: a bare relay", floors, "µs"),
        row("websocket, 200 B each way: the gateway", costs, "µs"),
        row("websocket, 200 B each way: rules on models and limits", judged, "µs"),
        row("websocket, 200 B each way: gateway / bare relay", ratios, "x", target="<= 2 x"),
        row(f"{IDLE} idle websockets: memory of each", idle, "kB", target="<= 60 kB"),
    ]


async def _connect(port: int) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(_HANDSHAKE % _KEY.reveal().encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    if b" 101 " not in head:
        raise RuntimeError(head.decode())
    return stream


async def _talk(port: int) -> float:
    """Return the CPU of the process for a message each way, in µs."""
    async with await _connect(port) as stream:
        begun = time.process_time()
        for _ in range(MESSAGES):
            await stream.send_all(_QUESTION)
            left = len(_ANSWER)
            while left:
                left -= len(await stream.receive_some())
        return (time.process_time() - begun) / MESSAGES * 1e6


async def _memory(upstream: int, served: int) -> float:
    """Return what an idle websocket adds to the process, without its client and upstream, in kB."""
    grown = []
    for port in (upstream, served):
        async with AsyncExitStack() as stack:
            gc.collect()
            before = _resident()
            for _ in range(IDLE):
                await stack.enter_async_context(await _connect(port))
            gc.collect()
            grown.append((_resident() - before) / IDLE)
    return grown[1] - grown[0]


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4.0


@asynccontextmanager
async def _serving(
    serve: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[int]:
    async def one(stream: trio.SocketStream) -> None:
        async with stream:
            await serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, one, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _answer(stream: trio.SocketStream) -> None:
    """Be an upstream that answers each message."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    key = head.lower().partition(b"sec-websocket-key: ")[0]
    value = head[len(key) + len(b"sec-websocket-key: ") :].partition(b"\r\n")[0]
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + websocket_accept(value) + b"\r\n\r\n"
    )
    received = 0
    while data := await stream.receive_some():
        received += len(data)
        while received >= len(_QUESTION):
            received -= len(_QUESTION)
            await stream.send_all(_ANSWER)


async def _relay(upstream: int, client: trio.SocketStream) -> None:
    async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
        while data := await source.receive_some():
            await target.send_all(data)
        nursery.cancel_scope.cancel()

    async with (
        await trio.open_tcp_stream("127.0.0.1", upstream) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pump, client, other)
        nursery.start_soon(pump, other, client)


@asynccontextmanager
async def _gateway(upstream: int, rules: ClientRules = _NO_RULES) -> AsyncIterator[int]:
    provider = Provider(
        name="ai",
        type="openai",
        base_url=f"http://127.0.0.1:{upstream}/v1",
        keys=["sk"],
        allow_private=True,
    )
    source = MemoryReloader(ProviderSnapshot([provider]))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    limits = WebSocketLimits(max_per_client=IDLE + 1)
    pool = UpstreamLimits(max_connections=2 * IDLE, tenant_share=1.0)
    settings = GatewaySettings(websockets=limits, upstream_limits=pool)
    clients = Clients([Client(id="ada", key_hashes=(hash_key(_KEY),), rules=rules)])
    async with (
        open_gateway(
            source,
            source.subscribe(),
            clients=lambda: clients,
            first=source.snapshot,
            settings=settings,
        ) as gateway,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(partial(serve_http, gateway.handle, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
