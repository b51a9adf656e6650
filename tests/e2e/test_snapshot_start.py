"""Gateway processes that start while the control plane is down."""

from __future__ import annotations

import stat
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control._encryption import generate_encryption_key
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.sources._snapshot_file import (
    decode_snapshot,
    encode_snapshot,
    read_snapshot_keys,
)
from tests.e2e.asking import ask, ready, wait_model, wait_ready
from tests.e2e.plane import Plane, make_plane, row
from tests.e2e.process import run_gateway_of


@pytest.fixture
async def plane(tmp_path: Path) -> Plane:
    return await make_plane(tmp_path / "plane")


async def fill(plane: Plane, upstream: SimulatedUpstream, *options: str) -> None:
    """Have a gateway serve one client, and end."""
    plane.backend.set_rows([row(upstream)])
    async with plane.up(), run_gateway_of(*plane.options(*options)) as gateway:
        await wait_model(gateway.url, plane.client_key.reveal(), "m@north")
        await gateway.stop()
    assert "5ecre7" not in gateway.everything


@pytest.mark.parametrize("encrypted", [False, True])
async def test_it_serves_from_the_file_until_the_control_plane_has_confirmed_it(
    plane: Plane,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
    tmp_path: Path,
    encrypted: bool,
) -> None:
    key, file = plane.client_key.reveal(), tmp_path / "snapshot"
    options = ["--snapshot-file", str(file)]
    if encrypted:
        keys = tmp_path / "keys"
        keys.write_text(generate_encryption_key().reveal())
        keys.chmod(0o600)
        options += ["--snapshot-key-file", str(keys)]
    await fill(plane, north, *options)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (b"5ecre7" in file.read_bytes()) is not encrypted
    assert key.encode() not in file.read_bytes()
    plane.backend.set_rows([row(south)])
    async with run_gateway_of(*plane.options(*options)) as gateway:
        answer = await ready(gateway.url)
        assert answer.status == 200
        assert answer.document["source"] == "snapshot file"
        assert answer.document["connected"] is False
        assert (await ask(gateway.url, key)).model == "m@north", "a client known from before"
        assert (await ask(gateway.url, "other")).code == "authorization_unavailable"
        async with plane.up():
            await wait_ready(gateway.url, source="control plane", connected=True)
            assert (await ask(gateway.url, key)).model == "m@south"
            await gateway.stop()
    assert "5ecre7" not in gateway.everything


async def test_who_was_taken_out_meanwhile_is_refused_once_it_can_be_asked(
    plane: Plane, north: SimulatedUpstream, tmp_path: Path
) -> None:
    key, options = plane.client_key.reveal(), ("--snapshot-file", str(tmp_path / "snapshot"))
    await fill(plane, north, *options)
    plane.know()
    async with run_gateway_of(*plane.options(*options)) as gateway:
        assert (await ask(gateway.url, key)).status == 200
        async with plane.up():
            await wait_ready(gateway.url, source="control plane")
            assert (await ask(gateway.url, key)).status == 401


async def test_a_damaged_file_is_said_and_costs_only_the_early_start(
    plane: Plane, north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot"
    options = ("--snapshot-file", str(file))
    await fill(plane, north, *options)
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    async with run_gateway_of(*plane.options(*options)) as gateway:
        await gateway.wait_event("snapshot file ignored: it is damaged", level="warning")
        assert (await ask(gateway.url)).code == "not_ready"
        async with plane.up():
            await wait_model(gateway.url, plane.client_key.reveal(), "m@north")
        await gateway.stop()
    assert len(file.read_bytes()) > len(data) - 100, "it is written anew"


async def test_too_old_a_file_is_served_and_not_ready_across_restarts(
    plane: Plane, north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot"
    options = ("--snapshot-file", str(file), "--max-stale", "3600")
    await fill(plane, north, *options)
    saved = decode_snapshot(file.read_bytes(), read_snapshot_keys(None))
    file.write_bytes(encode_snapshot(attrs.evolve(saved, known_age=7200.0), None))
    for _ in range(2):
        async with run_gateway_of(*plane.options(*options)) as gateway:
            answer = await ready(gateway.url)
            assert answer.status == 503
            assert answer.document["reason"] == "the providers are too old"
            assert float(str(answer.document["age"])) >= 7200
            assert (await ask(gateway.url, plane.client_key.reveal())).status == 200
            await gateway.stop()
    async with plane.up(), run_gateway_of(*plane.options(*options)) as gateway:
        await wait_ready(gateway.url, ready=True)


async def test_a_refusal_does_not_end_a_gateway_that_has_a_file(
    plane: Plane, north: SimulatedUpstream, tmp_path: Path
) -> None:
    options = ("--snapshot-file", str(tmp_path / "snapshot"))
    await fill(plane, north, *options)
    plane.backend.revoke_gateway_key(plane.key_file.read_text().split("_")[1])
    async with plane.up(), run_gateway_of(*plane.options(*options)) as gateway:
        answer = await wait_ready(gateway.url, ready=False)
        assert "unknown_key" in str(answer.document["reason"])
        with trio.fail_after(60):
            assert (await ask(gateway.url, plane.client_key.reveal())).status == 200
        await gateway.stop()
