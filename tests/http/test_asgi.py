"""The same handlers under an ASGI server: under hypercorn, and message by message."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import h11
import hypercorn.trio
import pytest
import trio
import trio.testing
from fastapi import FastAPI
from hypercorn.config import Config

from bridgepool.http import Exchange, Handler, UpstreamTimeout, is_websocket_handshake
from bridgepool.http.asgi import AsgiApp, asgi_app, asgi_app_from
from tests.http.support import GET, RawClient, cancelled_at, echo


@asynccontextmanager
async def hypercorn_serving(app: AsgiApp) -> AsyncIterator[int]:
    """Serve on a loopback socket under hypercorn; yields the port."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("hypercorn.error")
    stop = trio.Event()

    async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
        await hypercorn.trio.serve(
            cast("Any", app),  # hypercorn's types name every message; ours are plain mappings
            config,
            shutdown_trigger=stop.wait,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(serve)
        yield int(binds[0].rsplit(":", 1)[1])
        stop.set()


async def connect(port: int) -> RawClient:
    return RawClient(await trio.open_tcp_stream("127.0.0.1", port))


async def test_a_handler_serves_under_hypercorn_as_under_serve_http() -> None:
    seen: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        await echo(exchange)

    async with hypercorn_serving(asgi_app(handler)) as port:
        client = await connect(port)
        head = b"POST /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n"
        answer = await client.ask(head + b"Content-Length: 3\r\n\r\nabc")
        assert (answer.status, answer.body) == (200, b"abc")
        assert answer.headers[b"x-method"] == b"POST"
        answer = await client.ask(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n")
        assert answer.body == b"z"
        assert (await client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")).body == b""
        await client.stream.aclose()
    request = seen[0].request
    assert (request.method, request.target, request.http_version) == (
        b"POST",
        b"/a%20b?c=d",
        b"1.1",
    )
    assert (b"x-a", b"1") in request.headers
    assert (seen[0].scheme, seen[0].client.split(":")[0]) == ("http", "127.0.0.1")


async def test_a_stream_comes_through_hypercorn_piece_by_piece() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"one") as stream:
            await go_on.wait()
            await stream.send_all(b"two")

    go_on = trio.Event()
    async with hypercorn_serving(asgi_app(handler)) as port:
        client = await connect(port)
        await client.send(GET)
        assert (await client.read_until(b"one")).startswith(b"HTTP/1.1 200")
        go_on.set()
        await client.read_until(b"two")
        await client.stream.aclose()


async def test_a_client_that_leaves_hypercorn_cancels_a_silent_handler() -> None:
    async def handler(exchange: Exchange) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    started, ended = trio.Event(), trio.Event()
    async with hypercorn_serving(asgi_app(handler)) as port:
        client = await connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        await started.wait()
        await client.stream.aclose()
        await ended.wait()


async def test_a_response_that_breaks_off_is_visibly_cut_under_hypercorn() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"part"):
            raise ValueError

    async with hypercorn_serving(asgi_app(handler)) as port:
        client = await connect(port)
        with pytest.raises(h11.RemoteProtocolError):
            await client.ask()
        await client.stream.aclose()
        client = await connect(port)
        with pytest.raises(h11.RemoteProtocolError):
            await client.ask()
        await client.stream.aclose()


async def test_an_exchange_that_another_task_cancels_is_visibly_cut_under_hypercorn() -> None:
    async def handler(exchange: Exchange) -> None:
        async with trio.open_nursery() as nursery, exchange.respond(200, data=b"begun"):
            nursery.start_soon(cancel, exchange)
            await trio.sleep_forever()

    async def cancel(exchange: Exchange) -> None:
        exchange.cancel()

    async with hypercorn_serving(asgi_app(handler)) as port:
        client = await connect(port)
        await client.send(GET)
        data = await client.read_to_end()
        assert not data.endswith(b"0\r\n\r\n"), "it looks complete"
        await client.stream.aclose()


async def test_what_a_handler_needs_is_open_while_hypercorn_runs() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def open_handler() -> AsyncIterator[Handler]:
        events.append("open")
        async with trio.open_nursery():
            yield echo
        events.append("closed")

    async with hypercorn_serving(asgi_app_from(open_handler)) as port:
        client = await connect(port)
        assert (await client.ask()).status == 200
        await client.stream.aclose()
        assert events == ["open"]
    assert events == ["open", "closed"]


# Message by message

Messages = list[dict[str, object]]


def scope_of(**more: object) -> dict[str, object]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"h")],
        **more,
    }


END: dict[str, object] = {"type": "http.request"}


async def run(
    app: AsgiApp, scope: dict[str, object], incoming: Messages, *, then_leave: bool = False
) -> Messages:
    """Run one scope with these messages; after them the client disconnects, or is silent."""
    sent: Messages = []
    left = list(incoming)

    async def receive() -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        if left:
            return left.pop(0)
        if not then_leave:
            await trio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_trailers_are_sent_if_the_server_offers_them() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200) as stream:
            stream.trailers = ((b"x-t", b"1"),)

    extensions: dict[str, object] = {"http.response.trailers": {}}
    with_trailers = await run(asgi_app(handler), scope_of(extensions=extensions), [END])
    assert with_trailers[0]["trailers"] is True
    assert with_trailers[-1] == {"type": "http.response.trailers", "headers": [(b"x-t", b"1")]}
    without = await run(asgi_app(handler), scope_of(), [END])
    assert "trailers" not in without[0]
    assert without[-1] == {"type": "http.response.body", "body": b""}


async def test_early_hints_are_sent_if_the_server_offers_them() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.inform(103, ((b"link", b"</a>"), (b"x", b"y")))
        await exchange.answer(200)

    extensions: dict[str, object] = {"http.response.early_hint": {}}
    sent = await run(asgi_app(handler), scope_of(extensions=extensions), [END])
    assert sent[0] == {"type": "http.response.early_hint", "links": [b"</a>"]}
    assert len(await run(asgi_app(handler), scope_of(), [END])) == 2


@pytest.mark.parametrize(
    ("scope", "target", "mounted_at"),
    [
        ({"path": "/a b", "query_string": b"c"}, b"/a%20b?c", b""),
        ({"path": "/x", "raw_path": b"/%78"}, b"/%78", b""),
        ({"path": "/gw/a", "raw_path": b"/gw/a", "root_path": "/gw"}, b"/a", b"/gw"),
        ({"path": "/gw", "root_path": "/gw"}, b"/", b"/gw"),
        ({"path": "/other", "root_path": "/g w"}, b"/other", b"/g%20w"),
    ],
)
async def test_the_target_is_that_of_the_scope_below_its_mount_point(
    scope: dict[str, object], target: bytes, mounted_at: bytes
) -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.mounted_at == mounted_at
        await exchange.answer(200, body=exchange.request.target)

    sent = await run(asgi_app(handler), scope_of(**scope), [END])
    assert sent[-1]["body"] == target


async def test_a_body_too_large_is_answered_with_413() -> None:
    piece: dict[str, object] = {"type": "http.request", "body": b"x" * 600, "more_body": True}
    sent = await run(asgi_app(echo, max_body_bytes=1000), scope_of(), [piece, piece])
    assert sent[0]["status"] == 413


@pytest.mark.parametrize(("error", "status"), [(ValueError(), 500), (UpstreamTimeout(), 504)])
async def test_a_handler_that_raises_gets_its_error_status_sent(
    error: Exception, status: int
) -> None:
    async def handler(exchange: Exchange) -> None:
        raise error

    assert (await run(asgi_app(handler), scope_of(), [END]))[0]["status"] == status


async def test_an_unfinished_response_is_left_to_the_server_to_cut() -> None:
    async def handler(exchange: Exchange) -> None:
        with trio.CancelScope() as scope:
            async with exchange.respond(200):
                scope.cancel()
                await trio.lowlevel.checkpoint()

    sent = await run(asgi_app(handler), scope_of(), [END])
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": True}


async def test_wherever_a_handler_is_cancelled_its_client_gets_a_response_or_a_cut() -> None:
    step, reached = 0, True
    outcomes: set[str] = set()

    async def handler(exchange: Exchange) -> None:
        nonlocal reached
        with trio.CancelScope() as scope:
            reached = await cancelled_at(step, scope, echo(exchange))

    while reached:
        step, reached = step + 1, True
        sent = await run(asgi_app(handler), scope_of(), [END])
        complete = sent and "body" in sent[-1] and not sent[-1].get("more_body")
        outcomes.add(str(sent[0]["status"]) if complete else "cut")
    assert outcomes == {"200", "500", "cut"}


async def test_responses_without_a_body_have_none() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(204, ((b"content-length", b"1"),), data=b"x") as stream:
            await stream.send_all(b"y")

    sent = await run(asgi_app(handler), scope_of(), [END])
    assert sent[0]["headers"] == []
    assert {message.get("body") for message in sent[1:]} == {b""}


@pytest.mark.parametrize("offered", [True, False])
async def test_the_handshake_of_a_websocket_is_answered_as_far_as_the_server_can(
    offered: bool,
) -> None:
    async def handler(exchange: Exchange) -> None:
        assert is_websocket_handshake(exchange.request)
        assert exchange.body.take_buffered() == b""
        assert await exchange.body.receive_some() == b""
        async with exchange.respond(426, data=b"use ") as stream:
            await stream.send_all(b"HTTP")

    scope: dict[str, object] = {"type": "websocket", "path": "/", "headers": []}
    if offered:
        scope["extensions"] = {"websocket.http.response": {}}
    sent = await run(asgi_app(handler), scope, [{"type": "websocket.connect"}])
    if offered:
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 426)
        assert b"".join(bytes(cast("bytes", each["body"])) for each in sent[1:]) == b"use HTTP"
        assert not sent[-1].get("more_body")
    else:
        assert sent == [{"type": "websocket.close"}]


async def test_mounted_in_fastapi_it_serves_cuts_and_refuses_without_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Frameworks keep the lifespan to themselves; and a cut response is no error of theirs."""

    @asynccontextmanager
    async def open_handler() -> AsyncIterator[Handler]:
        yield handler

    async def handler(exchange: Exchange) -> None:
        if exchange.request.target == b"/cut":
            with suppress(ValueError):
                async with exchange.respond(200, data=b"begun"):
                    raise ValueError
        elif is_websocket_handshake(exchange.request):
            await exchange.answer(426, ((b"upgrade", b"HTTP/1.1"),))
        else:
            await exchange.answer(200, body=exchange.mounted_at + exchange.request.target)

    mounted = asgi_app_from(open_handler)
    app = FastAPI(lifespan=mounted.lifespan)
    app.mount("/ai", cast("Any", mounted))
    async with hypercorn_serving(cast("Any", app)) as port:
        client = await connect(port)
        assert (await client.ask(GET.replace(b"/ ", b"/ai/a%20b "))).body == b"/ai/a%20b"
        await client.send(GET.replace(b"/ ", b"/ai/cut "))
        data = await client.read_to_end()
        assert b"begun" in data
        assert not data.endswith(b"0\r\n\r\n"), "it looks complete"
        await client.stream.aclose()
        client = await connect(port)
        await client.send(HANDSHAKE)
        assert b"HTTP/1.1 426" in await client.read_until(b"\r\n\r\n")
        await client.stream.aclose()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


HANDSHAKE = (
    b"GET /ai/socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_requests_before_the_start_are_refused_and_a_failed_start_is_reported(
    phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def open_handler() -> AsyncIterator[Handler]:
        if phase == "startup":
            raise ValueError("no such file")
        yield echo
        raise ValueError("no such file")

    app = asgi_app_from(open_handler)
    for _ in range(2):
        assert (await run(app, scope_of(), [END]))[0]["status"] == 503
    assert caplog.text.count("ASGI application is not open") == 1
    sent = await run(app, {"type": "lifespan"}, [{"type": "x"}, {"type": "y"}])
    assert sent[-1]["type"] == f"lifespan.{phase}.failed"
    assert "no such file" in str(sent[-1]["message"])
