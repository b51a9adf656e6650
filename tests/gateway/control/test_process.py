"""The real `bridgepool control-plane` process, with gateways' ends of the real kind."""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
import trustme

from bridgepool import ReloadError, Secret
from bridgepool.gateway import ControlPlane, open_control_plane
from bridgepool.remote import websocket_connector
from tests.e2e.process import GatewayProcess, run_command
from tests.gateway.control.planes import DRAFT, SECRET, wait_for
from tests.plain_http import plain_client
from tests.postgres import PostgresServer

ANY = ("--listen", "127.0.0.1:0", "--rpc-listen", "127.0.0.1:0", "--log-format", "json")
KEYS = "BRIDGEPOOL_ENCRYPTION_KEYS"
ENCRYPTION_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@attrs.define(eq=False)
class Control:
    """A control plane that runs, and what its files say."""

    run: GatewayProcess
    folder: Path
    api: str
    rpc: str
    context: ssl.SSLContext | None = None

    @property
    def admin_key(self) -> str:
        return (self.folder / "admin.key").read_text().strip()

    @property
    def gateway_key(self) -> Secret:
        return Secret((self.folder / "gateway.key").read_text().strip())

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Make one request of the API that has to succeed."""
        headers = {"Authorization": f"Bearer {self.admin_key}"}
        async with plain_client(self.api, self.context, headers=headers) as client:
            response = await client.request(method, path, json=body)
        assert response.is_success, response.text
        return response.json()

    @asynccontextmanager
    async def gateway(self, name: str = "front") -> AsyncIterator[ControlPlane]:
        """Connect as a gateway."""
        connect = websocket_connector(self.rpc, self.gateway_key, ssl_context=self.context)
        async with open_control_plane(connect, name=name) as remote:
            yield remote


@asynccontextmanager
async def run_control(
    folder: Path,
    url: str,
    *options: str,
    context: ssl.SSLContext | None = None,
    open_files: int | None = None,
) -> AsyncIterator[Control]:
    """Run a control plane on free ports, and wait until it serves."""
    files: tuple[str, ...] = ("--admin-key-file", str(folder / "admin.key"))
    files += ("--gateway-key-file", str(folder / "gateway.key"))
    env = {"BRIDGEPOOL_STORE": url, KEYS: ENCRYPTION_KEY}
    command = ("control-plane", *ANY, *files, *options)
    async with run_command(*command, env=env, open_files=open_files) as run:
        api = await run.stdout.wait_for(lambda line: line.startswith("listening on "))
        rpc = await run.stdout.wait_for(lambda line: line.startswith("serving gateways on "))
        yield Control(run, folder, api.split()[-1], rpc.split()[-1], context)


async def follow(remote: ControlPlane, revision: int) -> list[str]:
    """Reload until that revision is there, and acknowledge it; return the providers' names."""
    with trio.fail_after(60):
        while True:
            await remote.providers.changes.receive()
            try:
                snapshot = await remote.providers.reload()
            except ReloadError:
                continue
            assert snapshot.revision is not None
            remote.providers.acknowledge(snapshot.revision)
            if snapshot.revision >= revision:
                return sorted(provider.name for provider in snapshot.providers)


async def _is_apart(remote: ControlPlane) -> bool:
    await trio.lowlevel.checkpoint()
    return not remote.providers.status.connected


async def test_a_change_goes_from_the_api_to_a_gateway_until_its_key_is_revoked(
    database_url: str, tmp_path: Path
) -> None:
    async with run_control(tmp_path, database_url) as control, control.gateway() as remote:
        change = await control.ask("POST", "/api/v1/providers", DRAFT)
        revision = change["revision"]
        assert await follow(remote, revision) == ["openai"]
        told = await control.ask("GET", f"/api/v1/revisions/{revision}/applied?wait=20")
        assert (told["complete"], told["applied"]) == (True, True)
        assert [row["state"] for row in told["gateways"]] == ["applied"]
        client = await control.ask("POST", "/api/v1/clients", {"id": "alice"})
        await follow(remote, client["revision"])
        caller = await remote.clients.authorize(client["key"].encode())
        assert caller is not None
        assert caller.client_id == "alice"
        gateway_key = control.gateway_key.reveal()
        await control.ask("DELETE", "/api/v1/gateway-keys/first")
        with trio.fail_after(10):  # alone on a machine far less than 1; a heartbeat takes 20
            await wait_for(partial(_is_apart, remote))

        control.run.signal(signal.SIGTERM)
        assert await control.run.wait() == 0
        await control.run.stderr.wait_end()
        said = control.run.everything
        for secret in (
            SECRET, "header-value-that-is-secret", client["key"], control.admin_key,
            gateway_key, ENCRYPTION_KEY, "pg-password-of-the-tests",
        ):  # fmt: skip
            assert secret not in said
        if database_url.startswith("sqlite:"):
            for file in await trio.Path(tmp_path).glob("store.db*"):
                assert SECRET.encode() not in await file.read_bytes()


async def test_while_postgresql_is_away_gateways_are_served_what_was_read_last(
    own_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = own_postgres_server.create_database()
    async with run_control(tmp_path, url) as control:
        change = await control.ask("POST", "/api/v1/providers", DRAFT)

        async def is_read() -> bool:
            ready: bool = (await control.ask("GET", "/readyz"))["revision"] == change["revision"]
            return ready

        await wait_for(is_read)
        await trio.to_thread.run_sync(own_postgres_server.stop)
        async with control.gateway() as remote:  # one that comes only now
            assert await follow(remote, change["revision"]) == ["openai"]
            async with plain_client(control.api, timeout=30) as client:
                headers = {"Authorization": f"Bearer {control.admin_key}"}
                answer = await client.post("/api/v1/providers", json=DRAFT, headers=headers)
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "store_unavailable"
                await control.run.wait_event("store unavailable")
                assert (await client.get("/readyz")).status_code == 503
            await trio.to_thread.run_sync(own_postgres_server.start)
            await control.run.wait_event("store available again")
            gone = await control.ask("DELETE", "/api/v1/providers/openai?allow_empty=true")
            assert await follow(remote, gone["revision"]) == []


async def test_after_a_failover_changes_are_made_and_followed_without_a_restart(
    own_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    primary = own_postgres_server
    with primary.lend_standby() as standby:
        url = primary.url().replace(f":{primary.port}", f":{standby.port},127.0.0.1:{primary.port}")
        async with run_control(tmp_path, url) as control, control.gateway() as remote:
            change = await control.ask("POST", "/api/v1/providers", DRAFT)
            assert await follow(remote, change["revision"]) == ["openai"]
            await trio.to_thread.run_sync(primary.stop)
            await control.run.wait_event("store unavailable")
            await trio.to_thread.run_sync(standby.promote)
            await control.run.wait_event("store available again")
            gone = await control.ask("DELETE", "/api/v1/providers/openai?allow_empty=true")
            assert await follow(remote, gone["revision"]) == []

            async def is_ready() -> bool:
                async with plain_client(control.api) as client:
                    return (await client.get("/readyz")).status_code == 200

            await wait_for(is_ready)
            path = f"/api/v1/revisions/{gone['revision']}/applied?wait=20"
            assert (await control.ask("GET", path))["applied"]


async def test_tls_for_both(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem = tmp_path / "all.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--tls-cert", str(pem), "--tls-key", str(pem))
    url = str(tmp_path / "store.db")
    async with run_control(tmp_path, url, *options, context=context) as control:
        assert control.api.startswith("https://")
        assert control.rpc.startswith("wss://")
        change = await control.ask("POST", "/api/v1/providers", DRAFT)
        async with control.gateway() as remote:
            assert await follow(remote, change["revision"]) == ["openai"]


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with (
        run_control(tmp_path, str(tmp_path / "store.db"), "--drain-timeout", "600") as control,
        await trio.open_tcp_stream("127.0.0.1", int(control.api.rpartition(":")[2])) as stream,
    ):
        # A request whose body does not come holds up the end.
        head = f"POST /api/v1/providers HTTP/1.1\r\nAuthorization: Bearer {control.admin_key}\r\n"
        await stream.send_all(f"{head}Host: a\r\nContent-Length: 10\r\n\r\n".encode())
        await control.ask("GET", "/api/v1/revision")
        control.run.signal(signal.SIGTERM)
        await control.run.wait_event("draining")
        control.run.signal(signal.SIGTERM)
        assert await control.run.wait() == 1


async def test_in_the_shutdown_delay_a_control_plane_serves_on_and_is_not_ready(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "control.db")
    async with run_control(tmp_path, url, "--shutdown-delay", "600") as control:
        control.run.signal(signal.SIGTERM)
        await control.run.wait_event("draining", shutdown_delay=600.0)
        async with plain_client(control.api) as client:
            response = await client.get("/readyz")
        assert (response.status_code, response.headers["connection"]) == (503, "close")
        revision = (await control.ask("POST", "/api/v1/providers", DRAFT))["revision"]
        async with control.gateway() as remote:
            assert await follow(remote, revision) == ["openai"]
        control.run.signal(signal.SIGTERM)
        assert await control.run.wait() == 1
