"""`realtime.connect` and `responses.connect` of the OpenAI Python SDK, through a real gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from websockets.exceptions import InvalidStatus

from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import run_gateway
from tests.e2e.sdk_sockets import sdk_socket
from tests.e2e.talking import start_talking_upstream


async def test_turns_of_both_apis_pass_and_a_limit_is_refused_before_the_websocket_opens(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    file = tmp_path / "providers.toml"
    (ada, ada_key), (eve, eve_key) = client_row_and_key("ada"), client_row_and_key("eve")
    usage = tmp_path / "usage.jsonl"
    write(
        file,
        provider("ai", "openai", north.openai_url),
        ada,
        f'{eve}\nrequests_per_minute = 2\nmodels = ["m"]',
    )
    options = ("--usage-log", str(usage), "--max-websockets-per-client", "2")
    async with run_gateway(file, *options) as gateway:
        async with (
            sdk_socket(gateway.url, realtime=False, key=ada_key) as responses,
            sdk_socket(gateway.url, realtime=True, key=ada_key) as realtime,
        ):
            for text in ("One.", "Two.", "Three."):
                assert await responses.ask(text) == "m@north"
                assert await realtime.ask(text) == "m@north"
            async with sdk_socket(gateway.url, realtime=False, key=eve_key) as limited:
                for text in ("One.", "Two."):
                    assert await limited.ask(text) == "m@north"
                assert await limited.ask_in_vain("Three.") == "rate_limited"
            for key, status, code in (
                (ada_key, 426, "too_many_websockets"),
                (eve_key, 429, "rate_limited"),
                ("wrong", 401, "invalid_api_key"),
            ):
                with pytest.raises(InvalidStatus) as refused:
                    async with sdk_socket(gateway.url, realtime=True, key=key):
                        pytest.fail("it was opened")
                response = refused.value.response
                assert response.status_code == status
                assert json.loads(response.body or b"")["error"]["code"] == code
                assert ("retry-after" in response.headers) == (status == 429)
        assert north.sockets == 3
        assert [closed.closed_with for closed in (responses, realtime, limited)] == [[]] * 3
        await gateway.stop()
    records = [json.loads(line) for line in usage.read_text().splitlines()]
    tokens = [record["output_tokens"] for record in records if record["status"] == 101]
    assert tokens == [7] * 8, records
