"""Usage records in the store: each once, sums, pages, retention, and odd values."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from math import inf, nan

import attrs
import trio

from bridgepool.gateway.control._usage import UsageFilter, UsageReport, UsageSum
from bridgepool.gateway.control._usage_retention import forget_usage
from bridgepool.gateway.usage._records import UsageRecord
from tests.gateway.control.stores import opened

ALL = UsageFilter()


def record(number: int, day: int = 1, **fields: object) -> UsageRecord:
    """Make a record; those of higher numbers are newer."""
    values: dict[str, object] = {
        "id": f"{day:02}{number:04}",
        "time": f"2026-01-{day:02}T10:00:00.000Z",
        "client": "web",
        "provider": "ai",
        "answered_model": "m1",
        "outcome": "complete",
        "input_tokens": 10,
        "output_tokens": 3,
        "complete": True,
        "duration_ms": 12.345,
        **fields,
    }
    return UsageRecord(**values)  # type: ignore[arg-type]  # any field


def total(report: UsageReport) -> UsageSum:
    [one] = report.sums
    return one


async def test_a_record_is_kept_as_it_was_sent_and_only_once(database_url: str) -> None:
    full = UsageRecord(
        id="01",
        time="2026-01-01T10:00:00.123Z",
        request_id="req_1",
        client="web",
        key="k1",
        provider="ai",
        fallback_from="first",
        upstream_key="ab12",
        generation=3,
        route="/responses",
        model="asked",
        answered_model="m1",
        session="s-1",
        client_kind="codex",
        status=200,
        outcome="complete",
        code="",
        input_tokens=10,
        output_tokens=0,
        cached_read_tokens=None,
        cached_write_tokens=2**33,
        reasoning_tokens=1,
        cost=0.000001234,
        currency="USD",
        complete=True,
        tools=("shell", "edit"),
        finish="completed",
        response_id="resp_1",
        first_byte_ms=0.25,
        duration_ms=1234.5,
        attempts=2,
    )
    async with opened(database_url) as store:
        before = await store.revisions()
        assert await store.usage.add("front-1", [full, full]) == 1
        other = attrs.evolve(full, client="changed")
        assert await store.usage.add("front-2", [other, record(2)]) == 1
        page = await store.usage.page(10, None, ALL)
        assert page.records == (
            attrs.evolve(record(2), gateway="front-2"),
            attrs.evolve(full, gateway="front-1"),
        )
        assert page.next is None
        assert await store.revisions() == before


async def test_sums_are_by_any_groups_and_filters(database_url: str) -> None:
    records = [
        record(1, 1),
        record(2, 1, client="app", key="k2", cached_read_tokens=4, reasoning_tokens=1),
        record(3, 2, answered_model="", model="m2", complete=False, output_tokens=None),
        record(4, 3, provider="claude", outcome="refused", input_tokens=None, complete=False),
        record(5, 3, client_kind="codex", session="s-1", cached_write_tokens=10**10),
    ]
    async with opened(database_url) as store:
        assert (await store.usage.sums((), ALL)).sums[0].requests == 0
        assert (await store.usage.sums(["day"], ALL)).sums == ()
        await store.usage.add("front-1", records[:3])
        await store.usage.add("front-2", records[3:])
        one = total(await store.usage.sums((), ALL))
        assert one == UsageSum(
            requests=5,
            refused=1,
            complete=3,
            input_tokens=40,
            output_tokens=12,
            cached_read_tokens=4,
            cached_write_tokens=10**10,
            reasoning_tokens=1,
            unpriced=5,
        )
        by_day = (await store.usage.sums(["client", "day"], ALL)).sums
        assert [(sum.day, sum.client, sum.requests, sum.model) for sum in by_day] == [
            ("2026-01-01", "app", 1, None),
            ("2026-01-01", "web", 1, None),
            ("2026-01-02", "web", 1, None),
            ("2026-01-03", "web", 2, None),
        ]
        by_model = (await store.usage.sums(["model", "gateway"], ALL)).sums
        assert [(sum.model, sum.gateway, sum.requests) for sum in by_model] == [
            ("m1", "front-1", 2),
            ("m1", "front-2", 2),
            ("m2", "front-1", 1),
        ]
        by_key = (await store.usage.sums(["key", "session"], ALL)).sums
        assert [(sum.key, sum.session, sum.client, sum.requests) for sum in by_key] == [
            ("-", "", None, 3),
            ("-", "s-1", None, 1),
            ("k2", "", None, 1),
        ]
        for which, count in (
            (UsageFilter(since="2026-01-02"), 3),
            (UsageFilter(until="2026-01-02"), 2),
            (UsageFilter(since="2026-01-02", until="2026-01-03"), 1),
            (UsageFilter(client="app"), 1),
            (UsageFilter(provider="claude", client="web"), 1),
            (UsageFilter(model="m2"), 1),
            (UsageFilter(gateway="front-2"), 2),
            (UsageFilter(session="s-1"), 1),
            (UsageFilter(session="' OR 1 = 1 --"), 0),
        ):
            assert total(await store.usage.sums((), which)).requests == count, which
            assert len((await store.usage.page(100, None, which)).records) == count
        page = await store.usage.page(2, None, ALL)
        assert [one.id for one in page.records] == ["030005", "030004"]
        page = await store.usage.page(2, page.next, ALL)
        assert [one.id for one in page.records] == ["020003", "010002"]
        page = await store.usage.page(2, page.next, ALL)
        assert ([one.id for one in page.records], page.next) == (["010001"], None)


async def test_costs_are_summed_by_currency_and_unknown_ones_are_counted(
    database_url: str,
) -> None:
    """No sum adds two currencies, and none takes an unknown cost for nothing."""
    records = [
        record(1, cost=0.1, currency="USD"),
        record(2, cost=0.2, currency="USD", client="app", priced_as_unknown=True),
        record(3, cost=1.5, currency="EUR"),
        record(4, cost=0.0, currency="USD", client="free", outcome="refused"),
        record(5),
        record(6, client="lost"),
        record(7, cost=nan, currency="USD", client="odd"),
        record(8, cost=5.0, client="odd"),
        record(9, cost=2.0**80, currency="USD", client="odd"),
    ]
    async with opened(database_url) as store:
        await store.usage.add("front-1", records)
        one = total(await store.usage.sums((), ALL))
        assert (one.costs, one.unpriced) == ({"USD": 0.3, "EUR": 1.5}, 5)
        assert one.priced_as_unknown == 1
        by_client = (await store.usage.sums(["client"], ALL)).sums
        assert [sum.client for sum in by_client if sum.priced_as_unknown] == ["app"]
        assert [(sum.client, sum.costs, sum.unpriced) for sum in by_client] == [
            ("app", {"USD": 0.2}, 0),
            ("free", {"USD": 0.0}, 0),
            ("lost", {}, 1),
            ("odd", {}, 3),
            ("web", {"USD": 0.1, "EUR": 1.5}, 1),
        ]
        lost = total(await store.usage.sums((), UsageFilter(client="lost")))
        assert (lost.costs, lost.unpriced) == ({}, 1)


async def test_old_records_are_forgotten_in_small_transactions(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.usage.add("front-1", [record(n, day) for day in (1, 2, 3) for n in range(5)])
        assert await store.usage.forget("2026-01-03", limit=4) == 10
        assert await store.usage.forget("2026-01-03", limit=4) == 0
        assert {one.time[:10] for one in (await store.usage.page(100, None, ALL)).records} == {
            "2026-01-03"
        }


async def test_the_control_plane_forgets_what_is_older_than_its_days(
    database_url: str, nursery: trio.Nursery
) -> None:
    async with opened(database_url) as store:
        await store.usage.add("front-1", [record(1, day) for day in (1, 2, 3, 4)])
        await forget_usage(store.usage, inf)
        now = datetime(2026, 1, 4, 23, 59, tzinfo=UTC).timestamp()
        nursery.start_soon(partial(forget_usage, store.usage, 2, clock=lambda: now))
        with trio.fail_after(60):
            while len((await store.usage.page(9, None, ALL)).records) != 3:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    async with opened(database_url) as store:
        assert [one.time[:10] for one in (await store.usage.page(9, None, ALL)).records] == [
            "2026-01-04",
            "2026-01-03",
            "2026-01-02",
        ]


async def test_no_value_that_a_gateway_sends_keeps_its_records_out(database_url: str) -> None:
    odd = record(
        1,
        client="a\0" * 1000,
        time="tomorrow",
        input_tokens=2**62,
        output_tokens=-5,
        status=2**62,
        duration_ms=nan,
        first_byte_ms=-1e300,
        tools=("\0",) * 1000,
        gateway="another",
    )
    async with opened(database_url) as store:
        assert await store.usage.add("front-1", [odd, record(2)]) == 2
        kept = (await store.usage.page(10, None, ALL)).records[-1]
    assert (kept.client, kept.gateway) == ("a?" * 128, "front-1")
    assert kept.time == "2026-01-01T00:00:00.000Z"  # the store's clock
    assert (kept.input_tokens, kept.output_tokens, kept.duration_ms) == (10**10, 0, 0)


async def test_no_values_that_a_gateway_sends_keep_usage_from_being_summed(
    database_url: str,
) -> None:
    """The sum exceeded 64 bits, and `bridgepool usage` said that the store was damaged."""
    odd = partial(record, input_tokens=2**62, cost=999_999.5, currency="USD")
    async with opened(database_url) as store:
        for begin in range(0, 10_000, 1000):
            await store.usage.add("front-1", [odd(n) for n in range(begin, begin + 1000)])
        one = total(await store.usage.sums((), ALL))
    assert (one.input_tokens, one.costs) == (10**14, {"USD": 9_999_995_000.0})


async def test_no_record_is_of_a_time_that_retention_never_reaches_or_moves_a_cursor(
    database_url: str,
) -> None:
    """It would be kept for ever; and `bridgepool usage --csv` prints texts as they are stored."""
    bad = partial(record, session="\x1b[2J", model="a\r\nb", tools=("\x1b]0;x\x07",))
    late = ("2026-01-09T00:00:00.000Z", "9999-99-99T99:99:99.999Z")
    odd = [bad(n, time=time) for n, time in enumerate(late)]
    async with opened(database_url) as store:
        await store.usage.add("front-1", [*odd, record(3, 7)])
        newest, *others = (await store.usage.page(10, None, ALL)).records
    assert newest.time == "2026-01-07T10:00:00.000Z"  # a clock may be wrong
    for one in others:
        assert one.time == "2026-01-01T00:00:00.000Z"  # the store's clock
        assert (one.session, one.model, one.tools) == ("?[2J", "a??b", ("?]0;x?",))
