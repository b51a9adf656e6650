"""Gateway processes that follow a control plane over real websockets."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.e2e.asking import ask, ready, wait_model, wait_ready
from tests.e2e.plane import Plane, make_plane, row
from tests.e2e.process import run_command, run_gateway_of


@pytest.fixture
async def plane(tmp_path: Path) -> Plane:
    return await make_plane(tmp_path / "plane")


async def test_it_listens_at_once_follows_changes_and_tells_what_it_serves(
    plane: Plane, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    key = plane.client_key.reveal()
    plane.backend.set_rows([row(north)])
    async with run_gateway_of(*plane.options()) as gateway:
        early = await ask(gateway.url, key)
        assert (early.status, early.code) == (503, "not_ready")
        assert b"retry-after" in early.headers
        answer = await ready(gateway.url)
        assert answer.status == 503
        assert answer.document.pop("failed_reloads") is not None  # as many as there was time for
        assert answer.document == {
            "ready": False,
            "reason": "no snapshot of providers yet",
            "source": "control plane",
            "connected": False,
            "log_lines_dropped": 0,
        }
        async with plane.up():
            await wait_ready(gateway.url, ready=True, source="control plane", connected=True)
            assert (await ask(gateway.url, key)).model == "m@north"
            assert (await ask(gateway.url, "wrong")).status == 401
            revision = plane.backend.set_rows([row(south)])
            assert (await plane.wait_receipt(revision)).rejected == ()
            assert (await ask(gateway.url, key)).model == "m@south"
            revision = plane.backend.set_rows([], allow_empty=True)
            await plane.wait_receipt(revision)
            assert (await ask(gateway.url, key)).code == "unknown_provider"
            assert (await ready(gateway.url)).status == 200, "no providers is an answer"
        await gateway.stop()
    assert "5ecre7" not in gateway.everything
    assert key not in gateway.everything
    assert plane.key_file.read_text().strip() not in gateway.everything


async def test_a_key_that_is_refused_ends_it_with_status_2_and_the_reason(plane: Plane) -> None:
    plane.key_file.write_text("bpg_aaaaaaaaaaaa_" + "5ecre7x" * 6 + "x\n")
    async with plane.up():
        async with run_command(
            "gateway", *plane.options(), "--listen", "127.0.0.1:0", "--log-format", "json"
        ) as run:
            assert await run.wait() == 2
            await run.stderr.wait_end()
        assert run.stdout.lines[0].startswith("listening on ")
        assert run.stderr.lines[-1].startswith("bridgepool: the control plane refused")
        assert "unknown_key" in run.stderr.lines[-1]
        assert "5ecre7" not in run.everything
        assert "Traceback" not in run.everything


async def test_over_tls_with_an_authority_of_ones_own(
    plane: Plane, north: SimulatedUpstream, tmp_path: Path
) -> None:
    authority, pem = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    plane.backend.set_rows([row(north)])
    options = plane.options("--ca-file", str(pem), scheme="wss")
    async with plane.up(context), run_gateway_of(*options) as gateway:
        await wait_model(gateway.url, plane.client_key.reveal(), "m@north")
        await gateway.stop()
    assert "reload failed" not in gateway.everything, "a start without trouble is quiet"
