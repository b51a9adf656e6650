"""What `/readyz` of a control plane reports of its store."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.gateway.control.planes import DRAFT, Plane, open_plane, wait_for
from tests.plain_http import plain_client
from tests.postgres import PostgresServer


async def _readiness(plane: Plane) -> tuple[int, dict[str, Any]]:
    async with plain_client(plane.url) as client:
        response = await client.get("/readyz")
    return response.status_code, response.json()


async def _wait_writing(plane: Plane, access: str) -> dict[str, Any]:
    async def is_so() -> bool:
        return bool((await _readiness(plane))[1]["store"]["write"] == access)

    await wait_for(is_so)
    status, answer = await _readiness(plane)
    assert status == (200 if access == "ok" else 503)
    return answer


async def _check_refused(plane: Plane) -> None:
    """Check what is reported while the store can be read only."""
    answer = await _wait_writing(plane, "failed")
    assert answer == {
        "error": {
            "code": "store_unavailable",
            "message": "the store cannot be written; the log of the control plane has the reason",
        },
        "store": {"read": "ok", "write": "failed"},
    }
    await plane.good("GET", "/api/v1/providers", role="read")


async def test_a_server_that_cannot_be_written_is_reported_before_anybody_makes_a_change(
    own_postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_postgres_server

    def set_read_only(value: str) -> None:
        server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        server.execute("SELECT pg_reload_conf()")

    async with open_plane(server.url(), write_interval=0.05, clock=time.time) as plane:
        await plane.key("write")
        await plane.key("read")
        await trio.to_thread.run_sync(set_read_only, "on")
        await _check_refused(plane)
        response = await plane.ask("POST", "/api/v1/providers", DRAFT)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (503, "store_unavailable")
        assert "cannot be written" in error["message"]
        await trio.to_thread.run_sync(set_read_only, "off")
        await _wait_writing(plane, "ok")
        await plane.good("POST", "/api/v1/providers", DRAFT)
    logged = [record.getMessage() for record in caplog.records if "written" in record.getMessage()]
    assert logged == ["store cannot be written; changes are refused", "store can be written again"]


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let writes fail; the limit on the size of files stands in for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_full_disk_is_reported_before_anybody_makes_a_change(tmp_path: Path) -> None:
    async with open_plane(
        str(tmp_path / "store.db"), write_interval=0.05, clock=time.time
    ) as plane:
        await plane.key("write")
        await plane.key("read")
        with _full_disk():
            await _check_refused(plane)
            response = await plane.ask("POST", "/api/v1/providers", DRAFT)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (503, "store_unavailable")
            assert "cannot be written" in error["message"]
        await _wait_writing(plane, "ok")
        await plane.good("POST", "/api/v1/providers", DRAFT)


async def test_a_store_that_is_away_is_reported_without_the_address_of_its_database(
    own_postgres_server: PostgresServer,
) -> None:
    async with open_plane(own_postgres_server.url(), write_interval=0.05, clock=time.time) as plane:
        await trio.to_thread.run_sync(own_postgres_server.stop)
        async with plain_client(plane.url) as client:

            async def is_away() -> bool:
                store = (await client.get("/readyz")).json()["store"]
                return bool(store == {"read": "failed", "write": "failed"})

            await wait_for(is_away)
            response = await client.get("/readyz")
        assert "cannot be read or written" in response.json()["error"]["message"]
        assert str(own_postgres_server.port) not in response.text
