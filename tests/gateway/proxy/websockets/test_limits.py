"""What clients may on websockets: judged before the 101, then response by response."""

from __future__ import annotations

import json
from contextlib import suppress

import attrs
import pytest
import trio
from wsproto.events import BytesMessage, Request, TextMessage

from bridgepool.gateway import Outcome
from bridgepool.gateway.limits._limiter import Costs, Limiter, WholeScope, wall_clock
from bridgepool.gateway.limits._prices import parse_prices
from bridgepool.gateway.providers import (
    OPENAI,
    Caller,
    Route,
)
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy.websockets import _use
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, start_upstream
from tests.gateway.proxy.websockets.rig import (
    REALTIME,
    RESPONSES,
    SERVED,
    SETTINGS,
    TOKENS,
    Opened,
    Upstream,
    connected,
    create,
    events,
    opened,
    response,
)


async def test_rules_and_limits_are_judged_before_the_101_and_refused_as_http(
    nursery: trio.Nursery,
) -> None:
    only = {"models": ("gpt-*",)}
    async with opened(nursery) as both:
        for rules, target, refused in (
            ({"providers": ("other",)}, RESPONSES, (403, "provider_not_allowed")),
            ({"routes": ("/chat/*",)}, RESPONSES, (403, "route_not_allowed")),
            ({"expires": "2020-01-01T00:00:00Z"}, RESPONSES, (403, "key_expired")),
            ({"money_per_day": 1.0}, RESPONSES, (503, "no_price_table")),
            ({"models": ("gpt-*",)}, REALTIME, (403, "model_not_allowed")),
            (only, f"{REALTIME}?model=o3", (403, "model_not_allowed")),
            (
                {"models": ("gpt-*",)},
                f"{REALTIME}?model=gpt-5&model=o3",
                (400, "model_not_readable"),
            ),
            (
                {"models": ("gpt-*",)},
                f"{REALTIME}?model=gpt-5&Model=o3",
                (400, "model_not_readable"),
            ),
            (
                {"models": ("gpt-*",)},
                f"{REALTIME}?model=gpt-5;mod%65l=o3",
                (400, "model_not_readable"),
            ),
        ):
            both.rules(**rules)
            assert await both.refusal(target) == refused, rules
        assert not both.upstream.got
        both.rules(models=("gpt-*",))
        async with connected(both, f"{REALTIME}?model=gpt-5"):
            pass
        await both.rig.wait_records(10)
    assert both.rig.records[-1].model == "gpt-5"


async def test_each_response_on_a_websocket_is_a_request_of_the_limits(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(requests_per_minute=2)
        async with connected(both) as socket:
            for _ in range(2):  # the first is the request that the handshake was
                await socket.send_text(create())
                assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            error = json.loads(await socket.receive())
            assert (error["type"], error["status"], error["code"]) == ("error", 429, "rate_limited")
            await socket.send_text('{"type": "response.cancel"}')  # what asks for none passes
            assert await both.refusal() == (429, "rate_limited")
        assert len(both.upstream.got) == 3


@pytest.mark.parametrize("tells_status", [True, False], ids=["status", "no status"])
async def test_responses_are_charged_what_they_tell(
    nursery: trio.Nursery, tells_status: bool
) -> None:
    """Without a status none had ended until the websocket did, so the next ones cost nothing."""
    async with opened(nursery) as both:
        both.upstream.tells_status = tells_status
        both.rules(tokens_per_day=TOKENS + 1)
        async with connected(both) as socket:
            for _ in range(2):
                await socket.send_text(create())
                assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            assert await events(socket, 1) == ["budget_exceeded"]
            assert await both.refusal() == (429, "budget_exceeded")
        both.rules(money_per_day=1.0)
        row = '[[models]]\nmodel = "gpt-5"\ninput = 30000\noutput = 20000\n'
        both.rig.gateway._uses.prices.table = parse_prices(f'currency = "EUR"\n{row}')
        async with connected(both) as socket:
            await socket.send_text(create())  # 30 and 10 tokens: 0.9 + 0.2
            assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            assert await events(socket, 1) == ["budget_exceeded"]


@pytest.mark.parametrize("target", [RESPONSES, f"{REALTIME}?model=gpt-5"])
async def test_a_budget_of_money_pays_for_the_model_of_each_response_without_rules_on_models(
    nursery: trio.Nursery, target: str
) -> None:
    """It paid the price of unknown models."""
    async with opened(nursery) as both:
        both.rules(money_per_day=1.0)
        row = '[[models]]\nmodel = "gpt-5"\ninput = 13000\noutput = 13000\n'
        both.rig.gateway._uses.prices.table = parse_prices(
            f"{row}[unknown]\ninput = 1e6\noutput = 1e6"
        )
        async with connected(both, target) as socket:
            for _ in range(2):
                await socket.send_text(create())  # 40 tokens: 0.52
                assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            assert await events(socket, 1) == ["budget_exceeded"]


async def test_responses_at_the_same_time_are_counted_and_idle_websockets_are_not(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(max_concurrent=1)
        both.upstream.hold = trio.Event()
        async with connected(both) as first, connected(both) as second:
            await first.send_text(create())
            assert await events(first, 1) == SERVED[:1]
            await second.send_text(create())
            assert await events(second, 1) == ["rate_limited"]
            assert await both.refusal() == (429, "rate_limited")
            both.upstream.hold.set()
            assert await events(first, 1) == SERVED[1:]
            await second.send_text(create())
            assert await events(second, 2) == SERVED
        # One that the provider does not take, and one that is cut, give their place back.
        both.upstream.fails = True
        async with connected(both) as socket:
            for _ in range(2):
                await socket.send_text(create())
                assert await events(socket, 1) == ["error"]
            both.upstream.fails, both.upstream.hold = False, trio.Event()
            await socket.send_text(create())
            assert await events(socket, 1) == SERVED[:1]
        await both.rig.wait_records(4)
        async with connected(both):
            pass


async def test_what_a_cut_response_used_is_estimated(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules(tokens_per_day=100)
        both.upstream.hold = trio.Event()
        async with connected(both) as socket:
            await socket.send_text(create(input="x" * 400))
            assert await events(socket, 1) == SERVED[:1]
        await both.rig.wait_records(1)
        assert await both.refusal() == (429, "budget_exceeded")


async def test_a_cut_response_is_charged_what_came_since_its_own_beginning(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(tokens_per_day=10_000)
        both.upstream.error = json.dumps({"type": "error", "status": 400, "error": "x" * 100_000})
        both.upstream.fails, both.upstream.hold = True, trio.Event()
        async with connected(both) as socket:
            await socket.send_text(create())
            assert await events(socket, 1) == ["error"]
            both.upstream.fails = False
            await socket.send_text(create())
            assert await events(socket, 1) == SERVED[:1]
        await both.rig.wait_records(1)
        [scope] = both.rig.gateway._uses.limiter.scopes.values()
        [budget] = scope.budgets.values()  # type: ignore[attr-defined]
        assert 10 < budget.spent < 100


async def test_a_response_whose_beginning_is_not_told_gives_its_place_back(
    nursery: trio.Nursery,
) -> None:
    async def answer_briefly(socket: Socket, _request: Request) -> None:
        with suppress(AssertionError):  # it is closed
            while await socket.receive():
                await socket.send_text(response("response.completed", 1, "completed"))

    north = await start_upstream(nursery, answer_briefly)
    async with open_rig(openai(north.url), nursery=nursery, settings=SETTINGS) as rig:
        both = Opened(rig, Upstream())
        both.rules(max_concurrent=1)
        async with connected(both) as socket:
            for _ in range(2):
                await socket.send_text(create())
                assert await events(socket, 1) == SERVED[1:]


async def test_a_response_that_nobody_asked_for_counts_and_ends_the_websocket_beyond_the_limit(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(requests_per_minute=2)
        both.upstream.unasked = True
        async with connected(both, f"{REALTIME}?model=gpt-5") as socket:
            for _ in range(2):
                await socket.send_text('{"type": "input_audio_buffer.append"}')
                assert await events(socket, 2) == SERVED
            both.upstream.hold = trio.Event()
            # Written so that only a lenient parser finds what it asks for.
            await socket.send_text('{"type": "x", "type": "response.create"}')
            assert await events(socket, 1) == SERVED[:1]
            assert await socket.receive_close() == (1008, "rate_limited")
        [record] = await both.rig.wait_records(1)
    assert (record.outcome, record.code) == (Outcome.REFUSED, "rate_limited")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (create("o3"), "model_not_allowed"),
        (create(None), "model_not_allowed"),
        (create("gpt-5", tools=[{"model": "o3"}]), "model_not_allowed"),
        (create(None, response={"model": "o3"}), "model_not_allowed"),
        ('{"type": "response\\u002ecreate", "model": "o3"}', "model_not_allowed"),
        ('{"type": "session.update", "model": "o3"}', "model_not_allowed"),
        ('{"model": "gpt-5", "model": "o3"}', "model_not_readable"),
        ('{"type": "response.create", "model": "gpt-5", "Model": "o3"}', "model_not_readable"),
        ("no JSON", "model_not_readable"),
        (bytearray(b"{}"), "model_not_readable"),
        (create("o3", input="x" * 200_000), "model_not_allowed"),
        ('{"input": "' + "x" * 200_000, "model_not_readable"),
    ],
)
async def test_a_message_that_a_rule_on_models_forbids_does_not_reach_the_provider(
    nursery: trio.Nursery, message: str | bytearray, code: str
) -> None:
    async with opened(nursery) as both:
        both.rules(models=("gpt-*",))
        async with connected(both) as socket:
            event = TextMessage if isinstance(message, str) else BytesMessage
            await socket.send(event(message))  # type: ignore[arg-type] # each takes its own
            assert await events(socket, 1) == [code]
            half = len(message) // 2
            await socket.send(
                event(message[:half], message_finished=False),  # type: ignore[arg-type]
                event(message[half:]),  # type: ignore[arg-type]
            )
            assert await events(socket, 1) == [code]
            assert not both.upstream.got
            allowed = create("gpt-5", input="x" * 200_000)
            await socket.send(
                TextMessage(allowed[:70_000], message_finished=False), TextMessage(allowed[70_000:])
            )
            assert await events(socket, 2) == SERVED
            assert both.upstream.got == [allowed]
        [record] = await both.rig.wait_records(1)
        assert record.model == "gpt-5"
        assert both.rig.gateway._uses.bodies.used == 0


async def test_messages_that_are_held_have_a_limit_over_all_websockets(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(models=("gpt-*",))
        both.rig.gateway._uses.bodies = ReplayBudget(200_000)
        async with connected(both) as socket:
            await socket.send_text(create(input="x" * 200_000))
            assert await events(socket, 1) == ["too_many_bodies"]
            await socket.send_text(create(input="x" * 80_000))
            assert await events(socket, 2) == SERVED
        async with connected(both) as socket:
            await socket.send(TextMessage("x" * 70_000, message_finished=False))
        await both.rig.wait_records(2)
        assert both.rig.gateway._uses.bodies.used == 0


@pytest.mark.parametrize("code", ["too_many_bodies", "model_not_readable"])
async def test_empty_frames_of_a_message_that_is_held_take_no_memory_without_end(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """They counted as nothing: 200 bytes of memory for 6 that were sent."""
    async with opened(nursery) as both:
        both.rules(models=("gpt-*",))
        if code == "too_many_bodies":
            both.rig.gateway._uses.bodies = ReplayBudget(100_000)
        else:
            monkeypatch.setattr(_use, "MAX_BODY_BYTES", 100_000)
        async with connected(both) as socket:
            for count in (1000, 10):
                await socket.send(TextMessage(create(), message_finished=False))
                await socket.send(*[TextMessage("", message_finished=False)] * count)
                await socket.send(TextMessage(""))
                expected = [code] if count == 1000 else SERVED
                assert await events(socket, len(expected)) == expected
        await both.rig.wait_records(1)
        assert both.rig.gateway._uses.bodies.used == 0


async def test_where_responses_cannot_be_judged_limited_clients_use_http(
    nursery: trio.Nursery,
) -> None:
    kind = attrs.evolve(OPENAI, routes=(Route(b"/own", frozenset(), websocket=True),))
    upstream = Upstream()
    north = await start_upstream(nursery, upstream.serve)
    async with open_rig(openai(north.url), nursery=nursery, settings=SETTINGS, types=[kind]) as rig:
        both = Opened(rig, upstream)
        for rules in ({"models": ("*",)}, {"requests_per_minute": 9}):
            both.rules(**rules)
            assert await both.refusal("/ai/v1/own") == (426, "websocket_not_supported")
        both.rules(providers=("ai",))
        async with connected(both, "/ai/v1/own"):
            pass


async def test_an_error_in_place_of_a_response_waits_for_the_message_that_is_under_way(
    nursery: trio.Nursery,
) -> None:
    go_on = trio.Event()

    async def slow(socket: Socket, _request: Request) -> None:
        await socket.receive()
        await socket.send(TextMessage("one", message_finished=False))
        await go_on.wait()
        await socket.send(TextMessage(" message", message_finished=True))
        await socket.next_event()

    north = await start_upstream(nursery, slow)
    async with open_rig(openai(north.url), nursery=nursery, settings=SETTINGS) as rig:
        both = Opened(rig, Upstream())
        both.rules(requests_per_minute=1)
        async with connected(both) as socket:
            await socket.send_text(create())
            assert isinstance(begun := await socket.next_event(), TextMessage)
            assert begun.data == "one"
            await socket.send_text(create())
            await rig.wait_requests(1)
            go_on.set()
            assert await socket.receive() == " message"
            assert await events(socket, 1) == ["rate_limited"]


@attrs.define(eq=False)
class Generous:
    """Limits that are shared with other gateways, of which there is more when it is asked for."""

    limiter: Limiter[WholeScope] = attrs.field(
        factory=lambda: Limiter(trio.current_time, wall_clock, WholeScope)
    )
    asked: int = 0
    in_memory: bool = False

    async def prepare(self, _caller: Caller, _costs: Costs) -> None:
        pass

    async def refresh(self, _caller: Caller) -> bool:
        self.asked += 1
        self.limiter.scopes.clear()
        return True


async def test_a_response_waits_for_a_larger_share_of_a_limit_asked_for_or_not(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(requests_per_minute=1)
        shared = both.rig.gateway._uses.shared = Generous()
        both.rig.gateway._uses.limiter = shared.limiter
        both.upstream.unasked = True
        async with connected(both, f"{REALTIME}?model=gpt-5") as socket:
            for message in (create(), create(), '{"type": "input_audio_buffer.append"}'):
                await socket.send_text(message)
                assert await events(socket, 2) == SERVED
        assert shared.asked == 2
