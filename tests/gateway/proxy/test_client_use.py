"""What clients may, on a served gateway: refusals, bodies that are read, lists, limits, headers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway import OnUsage
from bridgepool.gateway.limits._prices import PriceTable, parse_prices
from bridgepool.gateway.providers import Client, ClientRules, hash_key, new_client_key
from bridgepool.gateway.providers._access_keys import parse_hash
from bridgepool.http import Exchange, Headers, serve_http
from tests.gateway.proxy.rig import Answer, Rig, anthropic, open_rig, openai

KEY, OTHER = new_client_key(), new_client_key()
CHAT, MESSAGES = "/ai/v1/chat/completions", "/claude/v1/messages"
JSON: Headers = ((b"content-type", b"application/json"),)
MODELS = {"object": "list", "data": [{"id": "gpt-5"}, {"id": "gpt-4"}], "has_more": False}


@attrs.define(eq=False)
class Upstream:
    """Answers with a document; remembers what it was sent."""

    document: dict[str, Any] = attrs.field(factory=dict)
    headers: Headers = JSON
    status: int = 200
    gate: trio.Event | None = None
    begun: bytes = b""
    """Sent in place of the document; nothing follows."""
    asked: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    arrived: trio.Event = attrs.field(factory=trio.Event)

    async def handle(self, exchange: Exchange) -> None:
        body = b"".join([piece async for piece in exchange.body])
        self.asked.append((exchange.request.target, body))
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.begun:
            async with exchange.respond(self.status, self.headers, data=self.begun):
                await trio.sleep_forever()
        await exchange.answer(self.status, self.headers, json.dumps(self.document).encode())


@attrs.define(eq=False)
class Both:
    rig: Rig
    upstream: Upstream

    async def ask(
        self,
        target: str = CHAT,
        body: object = None,
        key: Secret = KEY,
        headers: Headers = JSON,
        method: str = "",
    ) -> Answer:
        own = ((b"authorization", b"Bearer " + key.reveal().encode()),)
        return await self.rig.ask(target, body, own + headers, method)

    def rules(self, rules: dict[str, Any] | None = None, **key_rules: Any) -> None:
        """Set the rules of the client, and of the second of its keys."""
        hashes = (hash_key(KEY), hash_key(OTHER))
        by_key = {parse_hash(hashes[1]).key_id: ClientRules(**key_rules)}
        client = Client(
            id="ada", key_hashes=hashes, rules=ClientRules(**(rules or {})), key_rules=by_key
        )
        self.rig.set_clients(client)


@asynccontextmanager
async def opened(
    nursery: trio.Nursery, prices: PriceTable | None = None, on_usage: OnUsage | None = None
) -> AsyncIterator[Both]:
    upstream = Upstream({"usage": {"prompt_tokens": 30, "completion_tokens": 10}, "model": "gpt-5"})
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    await nursery.start(partial(serve_http, upstream.handle, listeners))
    providers = openai(f"{url}/v1"), anthropic(url), openai(f"{url}/v1", "other")
    async with open_rig(*providers, nursery=nursery, prices=prices, on_usage=on_usage) as rig:
        yield Both(rig, upstream)
    nursery.cancel_scope.cancel()


async def test_a_rule_names_a_route_as_the_records_of_its_requests_do(
    nursery: trio.Nursery,
) -> None:
    """Whoever reads a route in the access log or a usage record can put it into a rule."""
    async with opened(nursery) as both:
        for number, target in enumerate((CHAT, MESSAGES, "/ai/v1/responses/resp_1/cancel")):
            both.rules()
            assert (await both.ask(target, {"model": "m"})).status == 200
            route = (await both.rig.wait_records(3 * number + 1))[-1].route
            both.rules({"routes": (route,)})
            assert (await both.ask(target, {"model": "m"})).status == 200, route
            refused = await both.ask("/ai/v1/embeddings", {"model": "m"})
            assert refused.code == "route_not_allowed"
            records = await both.rig.wait_records(3 * number + 3)
            assert records[-1].route == "/embeddings"
            assert "'/embeddings'" in refused.json["error"]["message"]


async def test_what_the_client_or_its_key_may_not_use_is_refused(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules(
            {"providers": ("ai", "claude"), "routes": ("/chat/*", "/v1/messages", "/models*")},
            routes=("/models*",),
        )
        body = {"model": "gpt-5"}
        assert (await both.ask(body=body)).status == 200
        assert (await both.ask(MESSAGES, body)).status == 200
        for target, key, code in (
            ("/other/v1/chat/completions", KEY, "provider_not_allowed"),
            ("/ai/v1/embeddings", KEY, "route_not_allowed"),
            (CHAT, OTHER, "route_not_allowed"),
            ("/claude/v1/messages/batches", KEY, "route_not_allowed"),
        ):
            refused = await both.ask(target, body, key)
            assert (refused.status, refused.code) == (403, code), target
            assert refused.headers[b"x-should-retry"] == b"false"
        assert (await both.ask("/ai/v1/models", key=OTHER)).status == 200
        unknown = await both.ask("/nobody/v1/models")
        assert "claude" in unknown.json["error"]["message"]
        assert "other" not in unknown.json["error"]["message"]
        assert len(both.upstream.asked) == 3
        [first, *_] = both.rig.records
        assert first.model == ""  # without a rule on models nothing is read


async def test_a_provider_that_the_client_may_not_use_does_not_stand_in(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        [_ai, _claude, other] = both.rig.gateway.pool.snapshot.providers
        dead = openai("http://127.0.0.1:9/v1", "ai", fallback=("other",))
        await both.rig.replace(dead, other)
        both.rules({"providers": ("ai",), "models": ("gpt-5",)})
        assert (await both.ask(body={"model": "gpt-5"})).code == "upstream_unreachable"
        both.rules({"providers": ("ai", "other"), "models": ("gpt-5",)})
        assert (await both.ask(body={"model": "gpt-5"})).status == 200


async def test_an_expired_key_is_refused_before_anything_else(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules({"expires": "2999-01-01T00:00:00Z"}, expires="2020-01-01T00:00:00Z")
        assert (await both.ask("/ai/v1/models")).status == 200
        refused = await both.ask("/ai/v1/models", key=OTHER)
        assert (refused.status, refused.code) == (403, "key_expired")


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_model_is_found_at_the_end_of_a_body_that_arrives_unchanged(
    nursery: trio.Nursery, framing: str
) -> None:
    async with opened(nursery) as both:
        both.rules({"models": ("gpt-5*",)})
        sent = json.dumps({"messages": ["é" * 100_000], "model": "gpt-5-mini"}).encode()
        if framing == "length":
            assert (await both.ask(body=sent)).status == 200
        else:
            own = ((b"authorization", b"Bearer " + KEY.reveal().encode()), *JSON)
            async with both.rig.client.request(b"POST", CHAT.encode(), own, Pieces(sent)) as got:
                assert got.status == 200
        [(_target, body)] = both.upstream.asked
        assert body == sent
        refused = await both.ask(body=sent.replace(b"gpt-5-mini", b"gpt-4-mini"))
        assert (refused.status, refused.code) == (403, "model_not_allowed")
        assert "gpt-4-mini" in refused.json["error"]["message"]
        records = await both.rig.wait_records(2)
        assert [record.model for record in records] == ["gpt-5-mini", "gpt-4-mini"]
        assert len(both.upstream.asked) == 1
        assert both.rig.gateway._uses.bodies.used == 0


@attrs.define
class Pieces:
    """A body in pieces of unknown number."""

    data: bytes
    trailers: Headers = ()

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self.data = self.data[:5000], self.data[5000:]
        return piece


@pytest.mark.parametrize(
    ("target", "body", "headers", "status", "code"),
    [
        (CHAT, {"messages": []}, JSON, 403, "model_not_allowed"),
        (CHAT + "?model=gpt-4", {"model": "gpt-5"}, JSON, 403, "model_not_allowed"),
        (CHAT + "?a=b&Mode%6C=gpt-4", {"model": "gpt-5"}, JSON, 400, "model_not_readable"),
        (CHAT + "?model=gpt-5", {"model": "gpt-5"}, JSON, 200, ""),
        (CHAT, {"model": "gpt-5", "models": ["gpt-5", "gpt-4"]}, JSON, 403, "model_not_allowed"),
        (CHAT, b'{"model": "gpt-5", "model": "gpt-4"}', JSON, 400, "model_not_readable"),
        (CHAT, b"{", JSON, 400, "model_not_readable"),
        (
            CHAT,
            {"model": "gpt-5"},
            (*JSON, (b"content-encoding", b"gzip")),
            400,
            "model_not_readable",
        ),
        (
            "/ai/v1/audio/transcriptions",
            b"--x\r\n\r\n--x--",
            ((b"content-type", b"multipart/form-data; boundary=x"),),
            400,
            "model_not_readable",
        ),
        ("/ai/v1/models/gpt-4", None, (), 403, "model_not_allowed"),
        ("/ai/v1/models/gpt%2D4", None, (), 403, "model_not_allowed"),
        (
            "/claude/v1/messages/batches",
            {"requests": [{"params": {"model": "gpt-5"}}, {"params": {"model": "gpt-4"}}]},
            JSON,
            403,
            "model_not_allowed",
        ),
        (CHAT, {"model": "gpt-5", "tools": [{"model": "gpt-4"}]}, JSON, 403, "model_not_allowed"),
        (CHAT, {"model": "gpt-5", "tools": [{"type": "function"}]}, JSON, 200, ""),
        (
            CHAT,  # in utf-7, the second name is the first one once more
            b'{"model": "gpt-5", "+AG0-odel": "gpt-4"}',
            ((b"content-type", b"application/json; charset=utf-7"),),
            400,
            "model_not_readable",
        ),
        (
            CHAT,
            {"model": "gpt-5"},
            ((b"content-type", b'Application/JSON ;charset="UTF-8"'),),
            200,
            "",
        ),
        (CHAT, b"", JSON, 403, "model_not_allowed"),
        ("/ai/v1/models/gpt-5", None, (), 200, ""),
        ("/ai/v1/responses/resp_1/cancel", {}, JSON, 200, ""),
        ("/ai/v1/responses/resp_1", None, (), 200, ""),
        ("/ai/v1/conversations", {"items": []}, JSON, 200, ""),
    ],
)
async def test_a_rule_on_models_holds_wherever_a_request_can_name_one(
    nursery: trio.Nursery,
    target: str,
    body: object,
    headers: Headers,
    status: int,
    code: str,
) -> None:
    async with opened(nursery) as both:
        both.rules({"models": ("gpt-5",)})
        got = await both.ask(target, body, headers=headers)
        assert got.status == status
        if code:
            assert got.code == code
            assert both.upstream.asked == []
        assert both.rig.gateway._uses.bodies.used == 0


async def test_a_list_of_models_has_those_that_the_client_may_use(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.upstream.document = MODELS
        both.rules({"models": ("gpt-*",)}, models=("gpt-5",))
        for target in ("/ai/v1/models", "/claude/v1/models?limit=2"):
            assert (await both.ask(target)).json == MODELS
            narrow = await both.ask(target, key=OTHER)
            assert narrow.json == {**MODELS, "data": [{"id": "gpt-5"}]}
        documents: tuple[dict[str, Any], ...] = ({"data": {}}, {}, {"data": [{"name": "x"}]})
        for document in documents:
            both.upstream.document = document
            assert (await both.ask("/ai/v1/models")).code == "upstream_bad_answer"
        both.upstream.status = 500
        assert (await both.ask("/ai/v1/models")).status == 500


async def test_beyond_a_rate_clients_are_told_when_to_retry_as_their_sdks_read_it(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules({"requests_per_minute": 3, "tokens_per_minute": 1000})
        operators = (
            (b"x-ratelimit-remaining-requests", b"999"),
            (b"x-ratelimit-remaining-images", b"5"),
            (b"anthropic-ratelimit-input-tokens-remaining", b"7"),
        )
        both.upstream.headers = (*JSON, *operators)
        first = await both.ask(body={"model": "gpt-5"})
        assert first.headers[b"x-ratelimit-limit-requests"] == b"3"
        assert first.headers[b"x-ratelimit-remaining-requests"] == b"2"
        assert first.headers[b"x-ratelimit-limit-tokens"] == b"1000"
        # A limit of the operator's account is not one of the client.
        assert not {name for name, _value in operators[1:]} & first.headers.keys()
        await both.rig.wait_records(1)
        second = await both.ask(MESSAGES, {"model": "gpt-5"})
        assert second.headers[b"anthropic-ratelimit-requests-remaining"] == b"1"
        assert second.headers[b"anthropic-ratelimit-requests-reset"].endswith(b"Z")
        assert int(second.headers[b"anthropic-ratelimit-tokens-remaining"]) < 970
        await both.ask(body={})
        refused = await both.ask(body={})
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert 15 <= int(refused.headers[b"retry-after"]) <= 20
        assert refused.headers[b"x-ratelimit-remaining-requests"] == b"0"
        assert refused.headers[b"x-ratelimit-reset-requests"].endswith(b"s")
        assert b"x-should-retry" not in refused.headers
        claude = await both.ask(MESSAGES, {})
        assert claude.json["error"]["type"] == "rate_limit_error"
        assert len(both.upstream.asked) == 3


async def test_a_budget_counts_what_answers_tell_and_is_not_retried(nursery: trio.Nursery) -> None:
    prices = parse_prices('[[models]]\nmodel = "gpt-5"\ninput = 1e6\noutput = 2e6')
    async with opened(nursery, prices) as both:
        both.rules({"tokens_per_day": 100}, money_per_day=60)
        for count in range(3):  # of 40 tokens each
            assert (await both.ask(body={})).status == 200
            await both.rig.wait_records(count + 1)
        refused = await both.ask(body={})
        assert (refused.status, refused.code) == (429, "budget_exceeded")
        assert refused.headers[b"x-should-retry"] == b"false"
        assert re.search(r"begins at \d{4}-\d\d-\d\dT00:00:00Z\.", str(refused.json))
        assert b"retry-after" not in refused.headers
        both.rules({}, money_per_day=60)
        for count in range(2):  # of 30 + twice 10 each
            assert (await both.ask(body={}, key=OTHER)).status == 200
            await both.rig.wait_records(count + 5)
        assert (await both.ask(body={}, key=OTHER)).code == "budget_exceeded"
        both.rig.gateway._uses.prices.table = None
        assert (await both.ask(body={}, key=OTHER)).code == "no_price_table"
        assert (await both.ask(body={})).status == 200


async def test_that_budgets_do_not_outlive_a_restart_is_logged_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    line = "budgets of clients are in memory; a restart begins them anew"
    async with opened(nursery) as both:
        both.rules({"tokens_per_minute": 1000})
        assert (await both.ask(body={})).status == 200
        assert line not in caplog.messages
        both.rules({"tokens_per_minute": 1000, "tokens_per_day": 1000})
        for _ in range(2):
            assert (await both.ask(body={})).status == 200
    assert caplog.messages.count(line) == 1


async def test_a_budget_of_no_money_is_spent_from_the_first_request(nursery: trio.Nursery) -> None:
    prices = parse_prices('[[models]]\nmodel = "*"\ninput = 1\noutput = 1')
    async with opened(nursery, prices) as both:
        both.rules({"money_per_day": 0})
        refused = await both.ask(body={})
        assert refused.code == "budget_exceeded"
        assert "budget is 0 (money per day): only lists of models" in str(refused.json)
        assert "begins" not in str(refused.json)  # as no time helps
        assert both.upstream.asked == []


async def test_limits_survive_changes_of_providers_and_rules_and_count_what_runs(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules({"max_concurrent": 1, "requests_per_minute": 4})
        both.upstream.gate = trio.Event()
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await both.ask(body={}))

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await both.upstream.arrived.wait()
            refused = await both.ask(body={})
            assert (refused.status, refused.code) == (429, "rate_limited")
            await both.rig.replace(*both.rig.gateway.pool.snapshot.providers[:2])
            assert (await both.ask(body={})).code == "rate_limited"
            both.rules({"max_concurrent": 2, "requests_per_minute": 2})
            both.upstream.gate.set()
        assert [answer.status for answer in answers] == [200]
        assert (await both.ask(body={})).status == 200
        assert (await both.ask(body={})).code == "rate_limited"
