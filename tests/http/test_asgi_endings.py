"""An exchange under ASGI that the server ends, or whose handler leaves a task over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from bridgepool.http import Exchange
from bridgepool.http.asgi import asgi_app
from tests.http.test_asgi import run, scope_of


@pytest.mark.parametrize("sends", range(4))
async def test_a_server_that_raises_from_send_is_a_client_that_has_left(
    caplog: pytest.LogCaptureFixture, sends: int
) -> None:
    """By ASGI 2.4; it was logged as a failure of the handler."""
    seen: list[bool] = []
    left = sends

    async def handler(exchange: Exchange) -> None:
        try:
            async with exchange.respond(200) as stream:
                await stream.send_all(b"x")
        except trio.Cancelled:
            seen.append(exchange.disconnected)
            raise

    async def send(message: dict[str, object]) -> None:
        nonlocal left
        await trio.lowlevel.checkpoint()
        if not left:
            raise OSError("the client has left")
        left -= 1

    await asgi_app(handler)(scope_of(), trio.sleep_forever, send)
    assert seen == [True]
    assert not caplog.records


async def test_a_task_left_over_cannot_use_an_exchange_whose_handler_has_ended(
    nursery: trio.Nursery,
) -> None:
    """One that waited for the body waited for ever; one that responded used the ended scope."""
    ended = 0

    async def use(operation: Callable[[], Awaitable[object]]) -> None:
        nonlocal ended
        with pytest.raises(trio.ClosedResourceError):
            await operation()
        ended += 1

    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200) as stream:
            kept.append(stream)
        nursery.start_soon(use, exchange.body.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        kept.append(exchange)

    kept: list[Any] = []
    sent = await run(asgi_app(handler), scope_of(), [])
    stream, exchange = kept
    await use(exchange.body.receive_some)
    await use(lambda: stream.send_all(b"x"))
    await trio.testing.wait_all_tasks_blocked()
    assert ended == 3
    assert sent[-1] == {"type": "http.response.body", "body": b""}
