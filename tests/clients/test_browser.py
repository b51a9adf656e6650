"""Pages of other origins in headless Chromium: what they may read of a gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.clients.browser import Page, open_page
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import Line, run_gateway
from tests.e2e.talking import TEXT, TalkingUpstream, start_talking_upstream

pytestmark = pytest.mark.clients

TALKED = {"code": 1000, "turns": 2, "text": TEXT * 2, "protocol": "realtime"}
UNREADABLE = {"error": "TypeError"}  # what `fetch` says of an answer that is not for the page


def hold_until_begun(upstream: TalkingUpstream, page: Page) -> None:
    """Send the second word of a stream only when the page has the first."""

    async def before_word(number: int) -> None:
        if number == 1:
            await page.begun.wait()

    upstream.plain.before_word = before_word


async def test_a_page_of_an_allowed_origin_asks_streams_and_talks_and_any_other_may_not_read(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    file = tmp_path / "providers.toml"
    row, key = client_row_and_key("ada")
    write(file, provider("ai", "openai", north.openai_url), row)
    async with open_page("chat") as allowed, open_page("other") as other:
        hold_until_begun(north, allowed)
        async with run_gateway(file, "--cors-origin", allowed.origin) as gateway:
            assert await allowed.visit(gateway.url, key, tmp_path) == {
                "whole": {"status": 200, "model": "m@north"},
                "refused": {"status": 401, "code": "invalid_api_key"},
                "models": {"type": "opaque"},
                "stream": {"status": 200, "text": TEXT},
                "websocket": TALKED,
            }
            asked = len(north.plain.received)
            assert await other.visit(gateway.url, key, tmp_path) == {
                "whole": UNREADABLE,
                "refused": UNREADABLE,
                "models": {"type": "opaque"},
                "stream": UNREADABLE,
                "websocket": TALKED,  # browsers ask nobody before that; the page has a key
            }
            assert len(north.plain.received) == asked
            log = await gateway.stop()
    preflights = [line for line in log if line["method"] == "OPTIONS"]
    assert preflights, "nothing was asked before"
    assert not any(key in str(offered) for offered in north.offered)


async def test_without_clients_a_page_of_another_origin_gets_nothing_at_all(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with open_page("chat") as page, run_gateway(file) as gateway:
        assert await page.visit(gateway.url, "any", tmp_path) == {
            "whole": UNREADABLE,
            "refused": UNREADABLE,
            "models": {"type": "opaque"},
            "stream": UNREADABLE,
            "websocket": {"error": "Error"},
        }
        log: list[Line] = await gateway.stop()
    assert not north.plain.received
    assert not north.sockets
    assert {line["code"] for line in log} == {"not_from_here", "origin_not_allowed"}
