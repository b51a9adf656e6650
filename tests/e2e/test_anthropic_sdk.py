"""The Anthropic Python SDK, unmodified, against the real gateway process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anthropic
import pytest
import trio
from anthropic.types import MessageParam, TextBlock

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.http import Exchange, get_header, serve_http
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import GatewayProcess, run_gateway

# The SDK and its HTTP library leave async generators unfinished; Trio tells.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

TEXT = "".join(WORDS)
HELLO: list[MessageParam] = [{"role": "user", "content": "Hello."}]


def sdk(
    gateway: GatewayProcess, name: str = "claude", key: str = "anything"
) -> anthropic.AsyncAnthropic:
    """The SDK as a user makes it: only the base URL and a key are given."""
    return anthropic.AsyncAnthropic(base_url=f"{gateway.url}/{name}", api_key=key)


async def test_calls_are_answered_and_streams_come_whole(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("claude", "anthropic", north.anthropic_url, key="sk-ant-central"))

    def stream_sync(url: str) -> str:
        with (
            anthropic.Anthropic(base_url=url, api_key="anything") as client,
            client.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream,
        ):
            return "".join(stream.text_stream)

    async with run_gateway(file) as gateway, sdk(gateway) as client:
        answer = await client.messages.create(model="m", max_tokens=9, messages=HELLO)
        block = answer.content[0]
        assert isinstance(block, TextBlock)
        assert block.text == TEXT
        assert answer.model == "m@north"
        counted = await client.messages.count_tokens(model="m", messages=HELLO)
        assert counted.input_tokens == len(WORDS)
        async with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
            message = await stream.get_final_message()
        assert message.stop_reason == "end_turn"
        url = f"{gateway.url}/claude"
        assert await trio.to_thread.run_sync(stream_sync, url) == TEXT, "the sync SDK, too"
    seen = north.received[0]
    assert seen.header(b"x-api-key") == b"sk-ant-central"
    assert seen.header(b"authorization") is None
    assert seen.header(b"anthropic-version") is not None


async def test_the_next_key_is_used_after_a_429_and_no_key_left_is_a_rate_limit(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    keys = ["sk-ant-first", "sk-ant-second"]
    write(file, provider("claude", "anthropic", north.anthropic_url, keys=keys))
    later = (datetime.now(UTC) + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    limited = (
        429,
        (
            (b"anthropic-ratelimit-input-tokens-remaining", b"0"),
            (b"anthropic-ratelimit-input-tokens-reset", later),
        ),
    )
    north.key_answers = {b"sk-ant-first": limited}
    async with run_gateway(file) as gateway, sdk(gateway) as client:
        once = client.with_options(max_retries=0)
        async with once.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
        assert [seen.header(b"x-api-key") for seen in north.received] == [
            name.encode() for name in keys
        ]
        north.key_answers[b"sk-ant-second"] = (401, ())
        with pytest.raises(anthropic.RateLimitError) as refused:
            await once.messages.create(model="m", max_tokens=9, messages=HELLO)
        assert 60 < int(refused.value.response.headers["retry-after"]) <= 120
        assert refused.value.body["error"]["code"] == "provider_keys_exhausted"  # type: ignore[index]  # an object


async def test_it_knows_what_a_client_may_not_and_when_a_budget_or_a_rate_is_used_up(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    (ada, ada_key), (eve, eve_key) = client_row_and_key("ada"), client_row_and_key("eve")
    ada += '\nmodels = ["m*"]\nrequests_per_minute = 3'
    write(
        file,
        provider("claude", "anthropic", north.anthropic_url),
        ada,
        f"{eve}\ntokens_per_day = 1",
    )
    async with run_gateway(file) as gateway, sdk(gateway, key=ada_key) as client:
        raw = await client.messages.with_raw_response.create(
            model="m", max_tokens=16, messages=HELLO
        )
        assert raw.headers["anthropic-ratelimit-requests-limit"] == "3"
        assert raw.headers["anthropic-ratelimit-requests-remaining"] == "2"
        with pytest.raises(anthropic.PermissionDeniedError):
            await client.messages.create(model="other", max_tokens=16, messages=HELLO)
        once = client.with_options(max_retries=0)
        for _ in range(2):
            await once.messages.create(model="m", max_tokens=16, messages=HELLO)
        with pytest.raises(anthropic.RateLimitError) as limited:
            await once.messages.create(model="m", max_tokens=16, messages=HELLO)
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 20
        spender = client.with_options(api_key=eve_key)  # it would retry twice
        await spender.messages.create(model="m", max_tokens=16, messages=HELLO)
        with pytest.raises(anthropic.RateLimitError, match="budget"):
            await spender.messages.create(model="m", max_tokens=16, messages=HELLO)
        codes = [line["code"] for line in await gateway.stop()]
    assert codes.count("budget_exceeded") == 1  # it was not retried


async def test_it_knows_the_errors_of_providers_that_cannot_be_used(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(
        file,
        provider("off", "anthropic", north.anthropic_url, enabled=False),
        provider("broken", "anthropic", north.anthropic_url, key_env="BRIDGEPOOL_TEST_NOT_SET"),
        provider("claude", "anthropic", north.anthropic_url),
    )
    async with run_gateway(file) as gateway:
        ask = partial(_ask, gateway)
        disabled = await ask("off", anthropic.InternalServerError)
        assert (disabled.status_code, disabled.type, _code(disabled)) == (
            503,
            "api_error",
            "provider_disabled",
        )
        broken = await ask("broken", anthropic.InternalServerError)
        assert (broken.status_code, _code(broken)) == (503, "provider_misconfigured")
        unknown = await ask("nobody", anthropic.NotFoundError)
        assert (unknown.status_code, unknown.type) == (404, "not_found_error")
        north.scope.cancel()  # its port is closed from here on
        async with anthropic.AsyncAnthropic(
            base_url=f"{gateway.url}/claude", api_key="anything", max_retries=1
        ) as client:
            with pytest.raises(anthropic.InternalServerError) as caught:
                await client.messages.create(model="m", max_tokens=9, messages=HELLO)
        assert (caught.value.status_code, _code(caught.value)) == (502, "upstream_unreachable")
        codes = [request["code"] for request in await gateway.stop()]
        assert len(codes[:-2]) == 3, "the SDK retried although that is useless"
        assert codes[-2:] == ["upstream_unreachable"] * 2, "that is worth a retry"
    assert not north.received


def _code(error: anthropic.APIStatusError) -> str:
    assert isinstance(error.body, dict)
    assert error.request_id == error.body["request_id"]
    return str(error.body["error"]["code"])


async def _ask(
    gateway: GatewayProcess,
    name: str,
    kind: type[anthropic.APIStatusError],
    key: str = "anything",
) -> anthropic.APIStatusError:
    async with sdk(gateway, name, key) as client:
        with pytest.raises(kind) as caught:
            await client.messages.create(model="m", max_tokens=9, messages=HELLO)
    return caught.value


async def test_a_stream_cut_by_the_upstream_raises_its_api_error(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("claude", "anthropic", north.anthropic_url))
    north.cut_after = 3
    async with run_gateway(file) as gateway, sdk(gateway) as client:
        words: list[str] = []
        with pytest.raises(anthropic.APIStatusError) as caught:  # noqa: PT012 -- words before it
            async with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
                async for text in stream.text_stream:
                    words.append(text)  # it is to keep what came before the error
        assert words == list(WORDS[:3])
        assert caught.value.type == "api_error"
        await gateway.wait_request(outcome="upstream_cut")


async def test_a_wrong_client_key_is_an_authentication_error(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    client_row, key = client_row_and_key("ada")
    write(file, provider("claude", "anthropic", north.anthropic_url), client_row)
    async with run_gateway(file) as gateway:
        error = await _ask(gateway, "claude", anthropic.AuthenticationError, key="bp_wrong")
        assert (error.status_code, error.type) == (401, "authentication_error")
        assert not north.received
        async with sdk(gateway, key=key) as client:
            await client.messages.create(model="m", max_tokens=9, messages=HELLO)
        token = anthropic.AsyncAnthropic(base_url=f"{gateway.url}/claude", auth_token=key)
        async with token as client:
            await client.messages.create(model="m", max_tokens=9, messages=HELLO)
    assert len(north.received) == 2
    assert all(key.encode() not in value for _, value in north.received[-1].headers)


async def test_the_results_of_a_batch_are_fetched_through_the_gateway(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """The batch holds an absolute address; the SDK would take its gateway key there."""
    file = tmp_path / "providers.toml"
    asked: list[tuple[bytes, bytes | None]] = []
    line = b'{"custom_id": "a", "result": {"type": "canceled"}}\n'
    batch = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "results_url": "https://api.anthropic.invalid/v1/messages/batches/msgbatch_1/results",
    }

    async def upstream(exchange: Exchange) -> None:
        key = get_header(exchange.request.headers, b"x-api-key")
        asked.append((exchange.request.target, key))
        if exchange.request.target.endswith(b"/results"):
            headers = ((b"content-type", b"application/x-jsonl"),)
            await exchange.answer(200, headers, line)
        else:
            headers = ((b"content-type", b"application/json"),)
            await exchange.answer(200, headers, json.dumps(batch).encode())

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(partial(serve_http, upstream, listeners))
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    write(file, provider("claude", "anthropic", url, key="sk-ant-central"))
    async with run_gateway(file) as gateway, sdk(gateway) as client:
        results = await client.messages.batches.results("msgbatch_1")
        assert [each.custom_id async for each in results] == ["a"]
    path = b"/v1/messages/batches/msgbatch_1"
    assert asked == [(path, b"sk-ant-central"), (path + b"/results", b"sk-ant-central")]
