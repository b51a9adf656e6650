"""One client's bytes against the ports of both programs: all others go on as if it were not there.

Each of the packets needs no key, and once ended the API, or the connections of all others.
"""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path

import attrs
import trio
import trustme

from bridgepool.gateway.demo._upstream import (
    WORDS,
    SimulatedUpstream,
    serve_simulated_upstream,
)
from tests.e2e.process import GatewayProcess, as_json, run_gateway_of
from tests.gateway.control.planes import wait_for
from tests.gateway.control.test_process import Control, follow, run_control
from tests.plain_http import plain_client
from tools.hostile_bytes import PACKETS, malformed

CHAT = "/ai/v1/chat/completions"


@attrs.frozen
class Programs:
    """A control plane and a gateway on it, each with others who use it."""

    control: Control
    gateway: GatewayProcess

    @property
    def ports(self) -> dict[str, int]:
        urls = {"api": self.control.api, "rpc": self.control.rpc, "gateway": self.gateway.url}
        return {name: int(url.rpartition(":")[2]) for name, url in urls.items()}

    async def check(self) -> None:
        """Check that both programs answer."""
        async with plain_client(timeout=30) as client:
            assert (await client.get(f"{self.control.api}/healthz")).status_code == 200
            ready = (await client.get(f"{self.gateway.url}/readyz")).json()
            assert (ready["ready"], ready["connected"]) == (True, True)


async def attack(port: int, pieces: Iterable[bytes], *, tls: ssl.SSLContext | None = None) -> None:
    """Send from one connection, with TLS if there is a context, and leave."""
    stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="127.0.0.1")
    with suppress(trio.BrokenResourceError):
        with trio.move_on_after(0.2 if tls is None else 2):
            for piece in pieces:
                await stream.send_all(piece)
            while await stream.receive_some():
                pass
    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_programs(folder: Path) -> AsyncIterator[Programs]:
    """Run both programs, with idle connections, a running request, a stream; all must live."""
    client_key = folder / "client.key"
    upstream_may_go_on = trio.Event()
    outcomes: dict[str, object] = {}

    async def wait_applied(control: Control, revision: int) -> None:
        headers = {"Authorization": f"Bearer {control.admin_key}"}
        async with plain_client(control.api, timeout=120) as client:
            path = f"/api/v1/revisions/{revision}/applied?wait=60"
            outcomes["running request"] = (await client.get(path, headers=headers)).json()[
                "applied"
            ]

    async def stream_words(url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with plain_client(url, timeout=120) as client:
            asked = {"model": "m", "stream": True}
            body = (await client.post(CHAT, json=asked, headers=headers)).text
        outcomes["stream"] = body.count("chat.completion.chunk"), body.endswith("[DONE]\n\n")

    async def ask_idle(stream: trio.SocketStream, path: str, key: str) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n"
        await stream.send_all(head.encode())
        with trio.fail_after(60):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")

    async def hold_back(word: int) -> None:
        if word == 1:
            await upstream_may_go_on.wait()

    async with trio.open_nursery() as nursery:
        upstream: SimulatedUpstream = await nursery.start(
            partial(serve_simulated_upstream, "north")
        )
        upstream.before_word = hold_back
        store = str(folder / "store.db")
        options = ("--client-key-file", str(client_key))
        async with run_control(folder, store, *options) as control, control.gateway() as pending:
            draft = {
                "name": "ai", "type": "openai", "base_url": upstream.openai_url,
                "keys": [{"value": "sk-central"}], "allow_private": True,
            }  # fmt: skip
            revision = (await control.ask("POST", "/api/v1/providers", draft))["revision"]
            following = ("--control", control.rpc, "--key-file", str(folder / "gateway.key"))
            async with run_gateway_of(*following) as gateway:
                programs = Programs(control, gateway)

                async def is_ready() -> bool:
                    async with plain_client() as client:
                        return (await client.get(f"{gateway.url}/readyz")).is_success

                await wait_for(is_ready)
                nursery.start_soon(wait_applied, control, revision)
                nursery.start_soon(stream_words, gateway.url, client_key.read_text().strip())

                async def is_streaming() -> bool:
                    await trio.lowlevel.checkpoint()
                    return upstream.streaming == 1

                await wait_for(is_streaming)
                ports = programs.ports
                async with (
                    await trio.open_tcp_stream("127.0.0.1", ports["api"]) as idle_api,
                    await trio.open_tcp_stream("127.0.0.1", ports["gateway"]) as idle_gateway,
                ):
                    idle = (
                        (idle_api, "/api/v1/revision", control.admin_key),
                        (idle_gateway, "/ai/v1/models", client_key.read_text().strip()),
                    )
                    for stream, path, key in idle:
                        await ask_idle(stream, path, key)
                    since = pending.providers.status.since
                    yield programs
                    for stream, path, key in idle:
                        await ask_idle(stream, path, key)
                assert outcomes == {}
                assert pending.providers.status.since == since  # the same session
                await follow(pending, revision)
                upstream_may_go_on.set()

                async def has_ended() -> bool:
                    await trio.lowlevel.checkpoint()
                    return len(outcomes) == 2

                await wait_for(has_ended)
                assert outcomes["running request"] is True
                assert outcomes["stream"] == (len(WORDS) + 1, True)
                for run in (gateway, control.run):
                    run.signal(signal.SIGTERM)
                    assert await run.wait() == 0
                    await run.stderr.wait_end()
                    errors = [s for s in run.stderr.lines if as_json(s).get("level") == "error"]
                    assert errors == []
        nursery.cancel_scope.cancel()


async def test_no_packet_and_no_two_thousand_malformed_requests_end_a_program_for_everybody(
    tmp_path: Path,
) -> None:
    async with open_programs(tmp_path) as programs:

        async def attack_all(attacks: Iterable[tuple[int, Iterable[bytes]]]) -> None:
            async with trio.open_nursery() as nursery:
                for port, pieces in attacks:
                    nursery.start_soon(attack, port, pieces)
            await programs.check()

        for pieces in PACKETS.values():
            await attack_all((port, pieces) for port in programs.ports.values())
        targets = {"api": "/api/v1/providers", "rpc": "/", "gateway": CHAT}
        requests = [
            (port, [request])
            for name, port in programs.ports.items()
            for request in malformed(700, 1, targets[name])
        ]
        for start in range(4):
            await attack_all(requests[start::4])


async def test_bytes_that_are_not_tls_or_are_within_it_end_nothing(tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "all.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--tls-cert", str(pem), "--tls-key", str(pem))
    store = str(tmp_path / "store.db")
    requests = [(request,) for request in malformed(50, 2, "/api/v1/providers")]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    not_tls = [(hello,), (hello + b"\xff" * 600,), (b"\x15\x03\x03\x00\x02\x02\x28",), (b"\x80",)]
    async with run_control(tmp_path, store, *options, context=context) as control:
        async with trio.open_nursery() as nursery:
            for url, tls in product((control.api, control.rpc), (None, context)):
                port = int(url.rpartition(":")[2])
                for pieces in (*PACKETS.values(), *requests, *not_tls):
                    nursery.start_soon(partial(attack, port, pieces, tls=tls))
        await control.ask("GET", "/api/v1/revision")
        control.run.signal(signal.SIGTERM)
        assert await control.run.wait() == 0
        await control.run.stderr.wait_end()
        errors = [s for s in control.run.stderr.lines if as_json(s).get("level") == "error"]
        assert errors == []
