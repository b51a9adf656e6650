"""What requests of clients with budgets are charged, however they end."""

from __future__ import annotations

import gzip
import re
import tomllib

import pytest
import trio

from bridgepool.gateway import parse_prices
from bridgepool.gateway.limits._limiter import Exceeded
from bridgepool.gateway.providers._rate_status import RateStatus
from bridgepool.gateway.proxy._client_use import ClientUses, exceeded
from bridgepool.gateway.proxy._prices import Prices
from bridgepool.gateway.sources._limit_leases import LimitLeases
from bridgepool.gateway.usage._tokens import Tokens, Usage
from tests.examples.support import ROOT
from tests.gateway.proxy.rig import openai
from tests.gateway.proxy.test_client_use import CHAT, JSON, KEY, MODELS, Pieces, opened


async def test_requests_that_the_provider_refuses_cost_no_tokens(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules({"tokens_per_day": 40})
        both.upstream.status = 400
        for count in range(3):
            assert (await both.ask(body={"x": "a" * 1000})).status == 400
            await both.rig.wait_records(count + 1)
        both.upstream.status = 200
        assert (await both.ask(body={})).status == 200


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("size", [3000, 200_000])
async def test_a_request_whose_client_leaves_before_the_answer_is_charged_its_input(
    nursery: trio.Nursery, framing: str, size: int
) -> None:
    """The provider got all of it, and may have served it: leaving early must not be free."""
    async with opened(nursery) as both:
        both.rules({"tokens_per_day": size // 5})
        both.upstream.gate = trio.Event()
        own = ((b"authorization", b"Bearer " + KEY.reveal().encode()), *JSON)
        if framing == "length":
            own += ((b"content-length", b"%d" % size),)

        async def ask() -> None:
            async with both.rig.client.request(b"POST", CHAT.encode(), own, Pieces(b"a" * size)):
                raise AssertionError("there is no answer")

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            with trio.fail_after(60):
                await both.upstream.arrived.wait()
            asking.cancel_scope.cancel()
        [record] = await both.rig.wait_records(1)
        assert (record.outcome.value, record.upstream_status) == ("client_gone", 0)
        both.upstream.gate.set()
        assert (await both.ask(body={})).code == "budget_exceeded"


async def test_lists_of_models_are_no_use_of_tokens_and_money(nursery: trio.Nursery) -> None:
    """They were charged by their size, and refused when a budget was spent."""
    prices = parse_prices('[[models]]\nmodel = "*"\ninput = 1e6\noutput = 1e6')
    async with opened(nursery, prices) as both:
        both.rules({"money_per_day": 30, "tokens_per_minute": 1000, "requests_per_minute": 4})
        both.upstream.document = MODELS
        for count in range(2):
            assert (await both.ask("/ai/v1/models")).status == 200
            await both.rig.wait_records(count + 1)
        both.upstream.document = {"usage": {"prompt_tokens": 30, "completion_tokens": 10}}
        assert (await both.ask(body={})).status == 200
        await both.rig.wait_records(3)
        assert (await both.ask(body={})).code == "budget_exceeded"
        assert (await both.ask("/ai/v1/models")).status == 200
        assert (await both.ask("/ai/v1/models")).code == "rate_limited"  # the fifth request


async def test_a_request_that_does_not_reach_its_provider_costs_no_tokens(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        [_ai, _claude, other] = both.rig.gateway.pool.snapshot.providers
        await both.rig.replace(openai("http://127.0.0.1:9/v1", "ai"), other)
        both.rules({"tokens_per_day": 100})
        for count in range(2):
            refused = await both.ask(body={"x": "a" * 1000})
            assert refused.code == "upstream_unreachable"
            await both.rig.wait_records(count + 1)
        assert (await both.ask("/other/v1/chat/completions", {})).status == 200


async def test_an_input_of_unknown_length_is_estimated_by_what_came(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules({"tokens_per_day": 20_000})
        both.upstream.document = {"text": "a"}
        own = ((b"authorization", b"Bearer " + KEY.reveal().encode()), *JSON)
        body = Pieces(b'"' + b"a" * 100_000 + b'"')
        async with both.rig.client.request(b"POST", CHAT.encode(), own, body) as got:
            assert got.status == 200
        await both.rig.wait_records(1)
        assert (await both.ask(body={})).code == "budget_exceeded"


async def test_an_input_of_unknown_length_takes_tokens_before_it_has_come(
    nursery: trio.Nursery,
) -> None:
    """Any number of them ran at the same time, whatever the limit was."""
    async with opened(nursery) as both, trio.open_nursery() as asking:
        both.rules({"tokens_per_minute": 1500})
        both.upstream.gate = trio.Event()
        own = ((b"authorization", b"Bearer " + KEY.reveal().encode()), *JSON)

        async def ask() -> int:
            body = Pieces(b"{}")
            async with both.rig.client.request(b"POST", CHAT.encode(), own, body) as got:
                return got.status

        asking.start_soon(ask)
        with trio.fail_after(60):
            await both.upstream.arrived.wait()
            assert await ask() == 429
        both.upstream.gate.set()


async def test_an_answer_that_tells_no_tokens_is_estimated(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules({"tokens_per_day": 400})
        both.upstream.document = {"text": "a" * 2000}
        assert (await both.ask(body={})).status == 200
        await both.rig.wait_records(1)
        assert (await both.ask(body={})).code == "budget_exceeded"


async def test_the_routes_of_the_page_close_what_budgets_do_not_count(
    nursery: trio.Nursery,
) -> None:
    page = (ROOT / "docs" / "howto" / "client-limits.md").read_text(encoding="utf-8")
    section = page.partition("## What is not counted\n")[2].partition("\n## ")[0]
    [text] = re.findall(r"^```toml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    async with opened(nursery) as both:
        both.rules({"routes": tuple(tomllib.loads(text)["routes"])})
        body = {"model": "gpt-5", "background": True}
        for target in (
            CHAT,
            "/ai/v1/responses",
            "/ai/v1/models",
            "/claude/v1/messages",
            "/claude/v1/models",
        ):
            method = "GET" if target.endswith("models") else "POST"
            sent = None if method == "GET" else body
            assert (await both.ask(target, sent, method=method)).status == 200, target
        for target, method in (
            ("/ai/v1/responses/resp_1", "GET"),
            ("/ai/v1/responses/resp_1/cancel", "POST"),
            ("/claude/v1/messages/batches", "POST"),
            ("/claude/v1/messages/batches/b_1/results", "GET"),
        ):
            sent = None if method == "GET" else body
            refused = await both.ask(target, sent, method=method)
            assert refused.code == "route_not_allowed", target
        refused = await both.ask("/ai/v1/batches", body)
        assert refused.code == "unknown_route"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_stream_that_its_client_leaves_is_charged_by_its_events_packed_or_not(
    nursery: trio.Nursery, encoding: str
) -> None:
    """By the bytes of gzip it was a thirtieth: leaving early made 30 budgets of one."""
    begun = b"".join(
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5",'
        b'"choices":[{"index":0,"delta":{"content":" %d"},"finish_reason":null}]}\\n\\n' % number
        for number in range(1000)
    )
    if encoding == "gzip":
        begun = gzip.compress(begun)
    async with opened(nursery) as both:
        both.rules({"tokens_per_day": 500})
        both.upstream.begun = begun
        encodings = ((b"content-encoding", encoding.encode()),)
        both.upstream.headers = ((b"content-type", b"text/event-stream"), *encodings)
        own = ((b"authorization", b"Bearer " + KEY.reveal().encode()), *JSON)
        async with both.rig.client.request(b"POST", CHAT.encode(), own, b"{}") as got:
            received = 0
            while received < len(begun):
                received += len(await got.receive_some())
        await both.rig.wait_records(1)
        assert (await both.ask(body={})).code == "budget_exceeded"


async def test_a_client_whose_gateway_gets_no_share_of_a_budget_has_not_reached_it(
    nursery: trio.Nursery,
) -> None:
    """It was told so, though only the control plane, or its store, could not be reached."""
    async with opened(nursery) as both:
        both.rules({"tokens_per_day": 1000})
        shared = both.rig.gateway._uses.shared = LimitLeases()  # has no session
        both.rig.gateway._uses.limiter = shared.limiter
        assert (await both.ask(body={})).status == 200
        await both.rig.wait_records(1)
        refused = await both.ask(body={})
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert refused.headers[b"retry-after"] == b"1"
        assert refused.json["error"]["message"] == (
            "The gateway cannot get a share of this client's budget of tokens per day at the "
            "moment; retry in 1 s."
        )


def test_cached_tokens_are_charged_at_their_own_prices() -> None:
    prices = "input = 10e6\noutput = 20e6\ncached_read = 1e6\ncached_write = 12e6"
    uses = ClientUses(Prices(parse_prices(f'[[models]]\nmodel = "*"\n{prices}')))
    usage = Usage(Tokens(input=100, output=10, cached_read=60, cached_write=30), complete=True)
    costs = uses.costs_of_answer(usage, "ai", "m", 0.0, 0.0)
    assert costs["money_per_day"] == 10 * 10 + 10 * 20 + 60 * 1 + 30 * 12


@pytest.mark.parametrize(("estimated", "output"), [(10.0, 50), (80.0, 80)])
def test_an_answer_that_was_cut_is_charged_what_it_told_at_least(
    estimated: float, output: int
) -> None:
    usage = Usage(Tokens(input=100, output=50), complete=False)
    costs = ClientUses().costs_of_answer(usage, "ai", "m", 7.0, estimated)
    assert costs["tokens_per_day"] == 100 + output


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, 1), (1.2, 2), (60.0, 60)])
def test_a_client_is_told_to_come_back_when_there_is_room_not_before(
    seconds: float, shown: int
) -> None:
    found = Exceeded("requests_per_minute", seconds, False, 60.0, RateStatus())
    assert exceeded(found, ()).retry_after == shown
