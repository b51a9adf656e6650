"""What a gateway counts, as Prometheus would read it."""

from __future__ import annotations

import re

import trio
from prometheus_client.parser import text_string_to_metric_families

from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.metrics._declarations import (
    GATEWAY_METRICS,
    MODELS_WITHOUT_PRICE,
    TOKENS,
    WEBSOCKETS_CLOSED,
)
from bridgepool.gateway.metrics._gateway import GatewayMetrics, RequestMetrics
from bridgepool.gateway.metrics._program import ProgramMetrics
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.usage._spool import UsageSpool, open_usage_spool
from bridgepool.gateway.usage._tokens import Tokens, Usage
from tests.gateway.proxy.dying import answer, start_dying
from tests.gateway.proxy.rig import Rig, open_rig, openai, start_upstream

Found = dict[str, dict[tuple[str, ...], float]]
CHAT = "/ai/v1/chat/completions"


async def scrape(
    rig: Rig,
    requests: RequestMetrics,
    *,
    connected: bool | None = None,
    spool: UsageSpool | None = None,
) -> Found:
    """Return the samples by name, then by the values of their labels in the order of names."""
    program = ProgramMetrics(
        program="gateway", limiters={"main": ConnectionLimiter()}, log_lines_dropped=lambda: 3
    )
    _, _, body = await GatewayMetrics(rig.gateway, requests, program, spool).page(connected)
    found: Found = {}
    for metric in text_string_to_metric_families(body.decode()):
        for sample in metric.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[values] = sample.value
    return found


async def test_requests_pool_providers_and_reloads_are_counted(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    requests = RequestMetrics()
    off = openai(north, name="off", enabled=False)
    bad = openai(north, name="bad", key_env="BRIDGEPOOL_TEST_NO_SUCH_VARIABLE")
    async with open_rig(
        openai(north, keys=["sk-1", "sk-2"]),
        off,
        bad,
        nursery=nursery,
        observers=[requests.observe],
    ) as rig:
        for _ in range(3):
            await rig.ask(CHAT, {})
        await rig.ask("/ai/v1/files")
        await rig.ask("/nowhere/v1/models")
        await rig.wait_records(5)
        found = await scrape(rig, requests, connected=True)
    # outcome, provider, route, status
    assert found["bridgepool_requests_total"] == {
        ("complete", "ai", "/chat/completions", "2xx"): 3,
        ("refused", "ai", "", "4xx"): 1,
        ("refused", "", "", "4xx"): 1,
    }
    # code, provider
    assert found["bridgepool_refusals_total"] == {
        ("unknown_route", "ai"): 1,
        ("unknown_provider", ""): 1,
    }
    assert found["bridgepool_request_duration_seconds_count"] == {("ai",): 4, ("",): 1}
    assert 0 < found["bridgepool_request_first_byte_seconds_sum"][("ai",)] < 10
    assert found["bridgepool_requests_in_flight"] == dict.fromkeys(
        [("",), ("ai",), ("off",), ("bad",)], 0
    )
    assert found["bridgepool_provider_state"][("ai", "usable")] == 1
    assert found["bridgepool_provider_state"][("off", "disabled")] == 1
    assert found["bridgepool_provider_state"][("bad", "misconfigured")] == 1
    assert sum(found["bridgepool_provider_state"].values()) == 3
    assert found["bridgepool_provider_keys"][("ai", "free")] == 2
    assert found["bridgepool_upstream_connections"][("ai", "idle")] == 1
    assert found["bridgepool_pool_acquires_total"][("miss",)] == 1
    assert found["bridgepool_pool_acquires_total"][("hit",)] == 4
    assert found["bridgepool_pool_bridges"][("listed",)] == 1
    assert found["bridgepool_control_connected"] == {(): 1}
    assert found["bridgepool_ready"] == {(): 1}
    assert found["bridgepool_log_lines_dropped_total"] == {(): 3}
    declared = {metric.name for metric in GATEWAY_METRICS}
    shown = {
        name.removesuffix("_bucket") for name in found if not name.endswith(("_sum", "_count"))
    }
    assert shown <= declared
    # Without tokens, a certificate, a revision of the source, and what providers did not ask for.
    assert declared - shown == {
        *(
            name
            for name in declared
            if re.search("_(breaker|retries|fallbacks|admission|usage)_", name)
        ),
        TOKENS.name,
        MODELS_WITHOUT_PRICE.name,
        WEBSOCKETS_CLOSED.name,
        "bridgepool_certificate_end_timestamp_seconds",
        "bridgepool_revision",
        "bridgepool_providers_age_seconds",
    } - ({"bridgepool_providers_age_seconds"} & shown)


async def test_breakers_retries_fallbacks_and_limits_are_counted(nursery: trio.Nursery) -> None:
    dying, north = await start_dying(nursery, then=answer(503)), await start_upstream(nursery)
    requests = RequestMetrics()
    first = openai(
        dying.url, breaker=True, breaker_failures=1, retries=1, retry_budget=0, fallback=["north"]
    )
    async with open_rig(
        first,
        openai(north, "north", max_concurrent=5, max_waiting=0),
        nursery=nursery,
        settings=GatewaySettings(allow_anonymous=True, max_concurrent=9),
        observers=[requests.observe],
    ) as rig:
        for _ in range(3):
            assert (await rig.ask(CHAT, {})).status == 200
        await rig.wait_records(3)
        found = await scrape(rig, requests)
    states = {"closed": 0, "open": 1, "half_open": 0}
    assert found["bridgepool_breaker_state"] == {
        ("ai", "generate", state): value for state, value in states.items()
    }
    assert found["bridgepool_breaker_openings_total"] == {("ai", "generate"): 1}
    assert found["bridgepool_retries_total"] == {("ai", "sent"): 0, ("ai", "over_budget"): 0}
    assert found["bridgepool_fallbacks_total"] == {("north", "ai"): 3}  # fallback, provider
    assert found["bridgepool_admission_requests"] == {
        (provider, state): 0 for provider in ("", "north") for state in ("running", "waiting")
    }
    assert found["bridgepool_admission_refused_total"] == {("",): 0, ("north",): 0}


async def test_the_spool_is_shown(nursery: trio.Nursery) -> None:
    async with open_rig(nursery=nursery) as rig, open_usage_spool(None) as spool:
        found = await scrape(rig, RequestMetrics(), spool=spool)
    assert found["bridgepool_usage_spool_records"] == {(): 0}
    assert found["bridgepool_usage_records_dropped_total"] == {(): 0}


async def test_clients_are_a_label_only_if_asked_for(nursery: trio.Nursery) -> None:
    north, key = await start_upstream(nursery), new_client_key()
    clients = [Client(id="ada", key_hashes=(hash_key(key),))]
    plain, by_client = RequestMetrics(), RequestMetrics(by_client=True)
    observers = [plain.observe, by_client.observe]
    header = ((b"x-api-key", key.reveal().encode()),)
    async with open_rig(
        openai(north), nursery=nursery, clients=clients, observers=observers
    ) as rig:
        await rig.ask(CHAT, {}, header)
        await rig.wait_records(1)
        without, with_client = await scrape(rig, plain), await scrape(rig, by_client)
    assert "ada" not in str(without)
    # client, outcome, provider, route, status
    assert with_client["bridgepool_requests_total"] == {
        ("ada", "complete", "ai", "/chat/completions", "2xx"): 1
    }


async def test_tokens_are_counted_by_type_and_old_providers_are_forgotten(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    requests = RequestMetrics()
    record = AccessRecord("POST", provider="ai", route="/responses", status=200)
    record.usage = Usage(Tokens(input=10, output=5, cached_read=4))
    record.outcome, record.ended = Outcome.COMPLETE, record.started + 1
    requests.observe(record)
    requests.observe(record)
    async with open_rig(openai(north), nursery=nursery) as rig:
        found = await scrape(rig, requests)
        assert found["bridgepool_tokens_total"] == {
            ("ai", "input"): 20,
            ("ai", "output"): 10,
            ("ai", "cached_read"): 8,
        }
    now = trio.current_time()
    requests.forget_providers(["other"], now + 3599)
    assert "ai" in "".join(requests.lines())
    requests.forget_providers(["other"], now + 7300)
    assert "ai" not in "".join(requests.lines())
    requests.observe(record)
    assert 'provider="ai"' in "".join(requests.lines())
    refused = AccessRecord("POST", status=401, outcome=Outcome.REFUSED, code="no_api_key")
    requests.observe(refused)
    for later in (8000, 11601):  # it was in force for a moment between two looks
        requests.forget_providers(["other"], now + later)
    lines = "".join(requests.lines())
    assert 'provider="ai"' not in lines
    assert 'bridgepool_refusals_total{provider="",code="no_api_key"} 1' in lines
