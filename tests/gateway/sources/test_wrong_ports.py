"""`--control` with the address of something that is not a control plane's port for gateways."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bridgepool import ReloadError
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.sources._control_source import open_control_source
from tests.gateway.control.planes import open_plane
from tests.gateway.proxy.rig import open_rig


def options(tmp_path: Path, url: str) -> GatewayOptions:
    """Return the options of a gateway that is to connect there."""
    file = tmp_path / "gateway.key"
    file.write_text("bpg_a_b")
    file.chmod(0o600)
    return GatewayOptions(
        control=url.replace("http://", "ws://"), key_file=file, name="front", drain_timeout=1
    )


async def test_the_port_of_the_api_refuses_a_gateway_and_names_the_option_of_the_right_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        async with open_control_source(options(tmp_path, plane.url)) as source:
            with trio.fail_after(60):
                reason = await source.wait_refused()
            with pytest.raises(ReloadError, match="the control plane cannot be asked: refused"):
                await source.reloader.reload()
        assert reason.startswith("the control plane refused (wrong_port): this is the port of")
        assert "--rpc-listen" in reason
        assert [record.code for record in plane.records] == ["wrong_port"]
    assert "owner" not in caplog.text


async def test_what_another_server_says_is_shown_with_the_option_and_is_no_refusal(
    nursery: trio.Nursery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A balancer may answer so for a moment: the gateway goes on trying."""
    async with (
        open_rig(nursery=nursery) as rig,  # a gateway
        open_control_source(options(tmp_path, f"http://{rig.address}")) as source,
    ):
        with pytest.raises(ReloadError) as caught, trio.fail_after(60):
            await source.reloader.reload()
        assert source.report().problem is None
    for text in (str(caught.value), caplog.text):
        assert "The gateway does not relay websockets on this path; use HTTP." in text
        assert "--control takes the address of the control plane's --rpc-listen" in text
    assert "connection to the control plane failed: refused with status 426" in caplog.text
    assert "owner" not in caplog.text
