"""A gateway process with a snapshot file whose control plane is down at its start, or refuses it.

What else a start from such a file is, `tests/system/test_starts.py` shows.
"""

from __future__ import annotations

import stat
from pathlib import Path

from bridgepool.gateway.control._encryption import generate_encryption_key
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.e2e.asking import ask, ready, wait_model, wait_ready
from tests.e2e.plane import make_plane, row
from tests.e2e.process import run_gateway_of


async def test_it_serves_from_its_file_until_the_control_plane_confirms_it_and_after_a_refusal(
    north: SimulatedUpstream, south: SimulatedUpstream, tmp_path: Path
) -> None:
    plane = await make_plane(tmp_path / "plane")
    key, file, keys = plane.client_key.reveal(), tmp_path / "snapshot", tmp_path / "keys"
    keys.write_text(generate_encryption_key().reveal())
    keys.chmod(0o600)
    options = plane.options("--snapshot-file", str(file), "--snapshot-key-file", str(keys))
    plane.backend.set_rows([row(north)])
    async with plane.up(), run_gateway_of(*options) as gateway:
        await wait_model(gateway.url, key, "m@north")
        await gateway.stop()
    assert "5ecre7" not in gateway.everything
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"5ecre7" not in file.read_bytes()
    assert key.encode() not in file.read_bytes()

    plane.backend.set_rows([row(south)])
    async with run_gateway_of(*options) as gateway:
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

    plane.backend.revoke_gateway_key(plane.key_file.read_text().split("_")[1])
    async with plane.up(), run_gateway_of(*options) as gateway:
        answer = await wait_ready(gateway.url, ready=False)
        assert "unknown_key" in str(answer.document["reason"])
        assert (await ask(gateway.url, key)).model == "m@south", "it does not end"
        await gateway.stop()
