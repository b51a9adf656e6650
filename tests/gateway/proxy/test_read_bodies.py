"""Bodies that are held whole because of rules on models: how much of them, and of whom."""

from __future__ import annotations

import attrs
import pytest
import trio

from bridgepool.gateway.limits._limiter import Costs, Limiter, Scope
from bridgepool.gateway.limits._model_reader import ModelReader
from bridgepool.gateway.providers import Caller, Client, ClientRules, hash_key
from bridgepool.gateway.proxy._model_bodies import feed_models
from bridgepool.gateway.proxy._replay import ReplayBudget
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.test_client_use import CHAT, KEY, OTHER, opened
from tests.waiting import wait_until


async def test_a_body_that_is_too_large_to_be_read_is_refused(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(nursery) as both:
        both.rules({"models": ("gpt-5",)})
        body = {"messages": "a" * 1000, "model": "gpt-5"}
        both.rig.gateway._uses.bodies = ReplayBudget(100)
        busy = await both.ask(body=body)
        assert (busy.status, busy.code) == (503, "too_many_bodies")
        assert b"retry-after" in busy.headers
        monkeypatch.setattr("bridgepool.gateway.proxy._model_bodies.MAX_BODY_BYTES", 500)
        large = await both.ask(body=body)
        assert (large.status, large.code) == (413, "model_not_readable")
        assert both.rig.gateway._uses.bodies.used == 0


async def test_a_client_that_sends_slowly_leaves_others_the_memory_for_theirs(
    nursery: trio.Nursery,
) -> None:
    """One client could hold all of it, and others were refused for as long as it liked."""
    async with opened(nursery) as both:
        rules = ClientRules(models=("gpt-5",))
        both.rig.set_clients(
            Client(id="ada", key_hashes=(hash_key(KEY),), rules=rules),
            Client(id="eve", key_hashes=(hash_key(OTHER),), rules=rules),
        )
        bodies = both.rig.gateway._uses.bodies = ReplayBudget(100_000)
        body = {"messages": "a" * 30_000, "model": "gpt-5"}
        own = b"authorization: Bearer %b\r\ncontent-type: application/json\r\n"
        async with connect(both.rig.address) as slow:
            sent = post(CHAT, b" " * 30_000, own % OTHER.reveal().encode())
            await slow.send(sent[:-1])
            await wait_until(lambda: bodies.used >= 29_000)
            refused = await both.ask(body=body, key=OTHER)
            assert (refused.status, refused.code) == (503, "too_many_bodies")
            assert (await both.ask(body=body)).status == 200
        await both.rig.wait_records(3)
        assert bodies.used == 0
        assert (await both.ask(body=body, key=OTHER)).status == 200


async def test_a_body_is_held_until_its_answer_begins(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both, connect(both.rig.address) as client:
        both.rules({"models": ("gpt-5",)})
        both.upstream.begun = b"begun"
        own = b"authorization: Bearer %b\r\ncontent-type: application/json\r\n"
        await client.send(post(CHAT, b'{"model": "gpt-5"}', own % KEY.reveal().encode()))
        await client.read_until(b"begun")  # it goes on
        assert both.rig.gateway._uses.bodies.used == 0


@attrs.define(eq=False)
class Unanswered:
    """Limits of which a control plane is asked, and never answers."""

    limiter: Limiter[Scope]
    asked: trio.Event = attrs.field(factory=trio.Event)
    in_memory: bool = False

    async def prepare(self, caller: Caller, costs: Costs) -> None:
        self.asked.set()
        await trio.sleep_forever()

    async def refresh(self, caller: Caller) -> bool:
        raise AssertionError("nothing was admitted")


async def test_a_client_that_leaves_while_it_waits_for_a_share_holds_no_body(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules({"models": ("gpt-5",), "requests_per_minute": 10})
        uses = both.rig.gateway._uses
        uses.shared = limits = Unanswered(uses.limiter)
        own = b"authorization: Bearer %b\r\ncontent-type: application/json\r\n"
        async with connect(both.rig.address) as client:
            await client.send(post(CHAT, b'{"model": "gpt-5"}', own % KEY.reveal().encode()))
            with trio.fail_after(30):
                await limits.asked.wait()
            assert uses.bodies.used > 0
        await both.rig.wait_records(1)
        assert uses.bodies.used == 0


async def test_a_body_of_many_short_values_lets_other_requests_run(nursery: trio.Nursery) -> None:
    """64 kB of empty lists held the loop for 85 ms, and a body has up to 32 MB of them."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(count)
    reader = ModelReader((("model",),))
    await feed_models(reader, b'{"model":"m","x":[' + b"[]," * 100_000 + b"1]}")
    nursery.cancel_scope.cancel()
    assert reader.finish() == ("m",)
    assert turns > 5
