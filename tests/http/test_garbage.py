"""What a connection to the server leaves to the garbage collector: nothing, however it ends."""

from contextlib import suppress

import pytest
import trio
import trio.testing

from bridgepool import BridgePoolError
from bridgepool.http import Exchange, HttpLimits, LocalProtocolError
from bridgepool.http.asgi import asgi_app
from tests.garbage import cycles_left_by
from tests.http.support import GET, echo, serving

POST = b"POST / HTTP/1.1\r\nhost: h\r\n"


async def handle(exchange: Exchange) -> None:
    match exchange.request.target:
        case b"/":
            await echo(exchange)
        case b"/raise":
            raise LocalProtocolError("of a test")
        case b"/forget":
            pass
        case b"/cut":
            async with exchange.respond(200):
                raise LocalProtocolError("of a test")
        case b"/in-a-nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo, exchange)
        case b"/wait-in-a-nursery":
            async with trio.open_nursery():
                await trio.sleep_forever()
        case b"/stream":
            async with exchange.respond(200) as stream:
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(1)
        case b"/upgrade":
            upgraded = await exchange.upgrade(((b"upgrade", b"echo"),))
            while data := await upgraded.receive_some():
                await upgraded.send_all(data)


def get(target: bytes, more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: h\r\n%b\r\n" % (target, more)


@pytest.mark.parametrize(
    "sent",
    [
        GET,
        GET + GET,
        get(b"/raise"),
        get(b"/forget"),
        get(b"/cut"),
        get(b"/in-a-nursery"),
        get(b"/wait-in-a-nursery"),
        get(b"/stream"),
        get(b"/upgrade", b"connection: upgrade\r\nupgrade: echo\r\n"),
        POST + b"content-length: 2\r\n\r\nab",
        POST + b"content-length: 20\r\n\r\nab",
        POST + b"content-length: 2000\r\n\r\nab",
        POST + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n",
        POST + b"expect: nonsense\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET ",
        b"",
    ],
)
@pytest.mark.parametrize("leaves", [True, False])
async def test_a_connection_leaves_nothing_to_the_garbage_collector(
    sent: bytes, leaves: bool, autojump_clock: trio.testing.MockClock
) -> None:
    limits = HttpLimits(max_body_bytes=1000, body_timeout=3)
    async with serving(handle, limits=limits) as served:

        async def connect() -> None:
            client = served.connect()
            await client.send(sent)
            if leaves:
                await trio.testing.wait_all_tasks_blocked()
            else:
                with trio.move_on_after(100):
                    await client.read_to_end()
            await client.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()

        assert await cycles_left_by(connect) == []


@pytest.mark.parametrize("target", ["/", "/raise", "/cut", "/forget"])
async def test_a_request_of_an_asgi_server_leaves_nothing_to_the_garbage_collector(
    target: str,
) -> None:
    async def receive() -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"ab"}

    async def send(message: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()

    app = asgi_app(handle, max_body_bytes=100)
    scope = {"type": "http", "method": "POST", "path": target, "headers": []}

    async def serve() -> None:
        with suppress(BridgePoolError):
            await app(scope, receive, send)

    assert await cycles_left_by(serve) == []
