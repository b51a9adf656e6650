"""The price table of a served gateway: it is replaced while requests run."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from bridgepool.gateway.limits._prices import PriceTableError, parse_prices
from tests.gateway.proxy.test_client_use import opened


async def test_a_request_is_charged_by_the_prices_at_its_end_alone(nursery: trio.Nursery) -> None:
    """What it held by the old prices is given back in full."""
    table = '[[models]]\nmodel = "gpt-5"\ninput = {0}\noutput = {0}'
    async with opened(nursery, parse_prices(table.format("1e6"))) as both:
        both.rules({"money_per_day": 1000})
        both.upstream.gate = trio.Event()
        async with trio.open_nursery() as asking:
            asking.start_soon(partial(both.ask, body={"text": "x" * 40}))
            await both.upstream.arrived.wait()
            [scope] = both.rig.gateway._uses.limiter.scopes.values()
            [budget] = scope.budgets.values()  # type: ignore[attr-defined]
            assert budget.spent > 10
            both.rig.gateway.replace_prices(parse_prices(table.format("2e6")))
            both.upstream.gate.set()
        await both.rig.wait_records(1)
        assert budget.spent == pytest.approx(80)
        with pytest.raises(PriceTableError, match="is EUR, but budgets are counted in USD"):
            both.rig.gateway.replace_prices(
                parse_prices('currency = "EUR"\n' + table.format("1e6"))
            )
