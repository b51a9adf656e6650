"""The price table of a served gateway: it is replaced while requests run."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from bridgepool.gateway import UsageRecord
from bridgepool.gateway.limits._prices import PriceTableError, parse_prices
from bridgepool.gateway.metrics._gateway import RequestMetrics
from bridgepool.gateway.proxy import _prices
from tests.gateway.metrics.test_gateway_metrics import scrape
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


@pytest.mark.parametrize("counts", ["budget", "usage"])
async def test_models_that_are_priced_as_unknown_are_shown_once_they_have_answered(
    counts: str,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their requests have a cost, so nothing showed that it is a guess."""
    monkeypatch.setattr(_prices, "MAX_MODELS", 2)
    table = '[[models]]\nmodel = "{}"\ninput = 1\noutput = 1\n[unknown]\ninput = 9\noutput = 9'
    records = list[UsageRecord]()
    on_usage = records.append if counts == "usage" else None
    async with opened(nursery, parse_prices(table.format("o*")), on_usage) as both:
        prices = both.rig.gateway._uses.prices
        requests = RequestMetrics()

        async def ask(*models: str, status: int = 200) -> None:
            for model in models:
                both.upstream.status, both.upstream.document["model"] = status, model
                await both.ask(body={"model": f"asked-{model}"})
                await both.rig.wait_records(len(both.upstream.asked))

        both.rules({"money_per_day": 1000} if counts == "budget" else {})
        await ask("o4", status=200)
        await ask("none", status=404)
        shown: list[dict[str, str]] = []
        known = {"currency": "USD", "models_without_price": shown}
        assert both.rig.gateway.status()["prices"] == known
        assert "bridgepool_models_without_price" not in await scrape(both.rig, requests)
        await ask("gpt-5", "gpt-5", "o4", "gpt-6", "gpt-7")
        shown += [{"provider": "ai", "model": model} for model in ("gpt-5", "gpt-6")]
        assert both.rig.gateway.status()["prices"] == known
        found = await scrape(both.rig, requests)
        assert found["bridgepool_models_without_price"] == {("ai",): 2}
        line = "model without a price; priced as unknown"
        logged = [vars(made) for made in caplog.records if made.message == line]
        assert [(one["provider"], one["model"]) for one in logged] == [
            ("ai", "gpt-5"),
            ("ai", "gpt-6"),
        ]
        both.rig.gateway.replace_prices(parse_prices(table.format("*")))
        await ask("gpt-5", "gpt-7")
        assert prices.without_price == {}
        guessed = [record.answered_model for record in records if record.priced_as_unknown]
        assert (len(records), guessed) == (
            (9, ["gpt-5", "gpt-5", "gpt-6", "gpt-7"]) if counts == "usage" else (0, [])
        )
