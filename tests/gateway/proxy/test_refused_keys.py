"""Unknown keys of clients are counted, logged at a bounded rate, and refused ever later."""

from __future__ import annotations

import pytest
import trio

from tests.gateway.proxy.rig import open_rig, openai, start_upstream
from tests.gateway.proxy.test_fairness import bearer, client_with_key
from tests.waiting import wait_until


async def test_unknown_keys_are_refused_ever_later_and_a_good_one_is_served_at_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    north = await start_upstream(nursery)
    ada, key = client_with_key("ada")
    async with open_rig(openai(north), nursery=nursery, clients=[ada]) as rig:
        refused = rig.gateway._refused_keys
        refused.burst = 0
        answered = 0

        async def guess(number: int) -> None:
            nonlocal answered
            answer = await rig.ask("/ai/v1/models", headers=bearer(f"guess-{number}"))
            assert (answer.status, answer.code) == (401, "invalid_api_key")
            answered += 1

        async with trio.open_nursery() as guessing:
            for number in range(30):
                guessing.start_soon(guess, number)
            await wait_until(lambda: refused.count >= 30)
            assert (await rig.ask("/ai/v1/models", headers=bearer(key))).status == 200
            assert answered < 30
            guessing.cancel_scope.cancel()
    lines = [record for record in caplog.records if record.message == "client keys refused"]
    assert len(lines) == 1


async def test_requests_without_a_key_are_refused_at_once(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    ada, _ = client_with_key("ada")
    async with open_rig(openai(north), nursery=nursery, clients=[ada]) as rig:
        for _ in range(30):
            assert (await rig.ask("/ai/v1/models")).status == 401
        assert rig.gateway._refused_keys.count == 0
