"""The websockets of the OpenAI Python SDK, over a change of their provider."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.e2e.files import provider, write
from tests.e2e.process import run_gateway
from tests.e2e.sdk_sockets import sdk_socket
from tests.e2e.talking import start_talking_upstream
from tests.waiting import wait_until

pytestmark = pytest.mark.clients


async def test_a_socket_outlives_its_provider_until_the_drain_deadline_and_is_opened_anew(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    south = await start_talking_upstream(nursery, "south")
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with (
        run_gateway(file, "--drain-timeout", "10") as gateway,
        sdk_socket(gateway.url, realtime=False) as responses,
        sdk_socket(gateway.url, realtime=True) as realtime,
    ):
        sockets = (responses, realtime)
        assert [await socket.ask("One.") for socket in sockets] == ["m@north"] * 2
        write(file, provider("ai", "openai", south.openai_url))
        await gateway.wait_event("providers replaced", generation=2)
        assert [await socket.ask("Two.") for socket in sockets] == ["m@north"] * 2
        assert not south.sockets
        await wait_until(lambda: south.sockets >= 2)
        for text in ("Three.", "Four."):
            assert [await socket.ask(text) for socket in sockets] == ["m@south"] * 2
        assert [socket.closed_with for socket in sockets] == [[1012], [1012]]
    assert (north.sockets, south.sockets) == (2, 2)
