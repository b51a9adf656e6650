"""Who is admitted, who is refused, and what each side learns."""

import json
import logging
import re
import ssl
from typing import Any

import pytest
import trio
import trustme

from bridgepool import Secret
from bridgepool.transports import ConnectError, HandshakeRefusedError
from bridgepool.transports.websocket import (
    Handshake,
    Refused,
    WebSocketLimits,
    open_websocket_channel,
)
from tests.transports.support import QUICK, messages_logged, running

TOKEN = "bpg_0123456789"


async def test_the_server_sees_path_query_bearer_and_peer() -> None:
    async with running() as server:
        url = server.url + "a%20b?version=1.0&x=&x=%26"
        async with open_websocket_channel(url, bearer=Secret(TOKEN), limits=QUICK):
            _, seen = await server.given.receive()
    assert (seen.path, dict(seen.query)) == ("/a%20b", {"version": "1.0", "x": "&"})
    assert seen.bearer == Secret(TOKEN)
    assert seen.peer.startswith("127.0.0.1:")
    assert TOKEN not in repr(seen)


async def test_a_refusal_has_status_code_and_reason() -> None:
    async def admit(handshake: Handshake) -> Handshake | Refused:
        await trio.lowlevel.checkpoint()
        return Refused(401, "unknown_key", 'no such key; make one with "keys create"')

    async with running(admit=admit) as server:
        with pytest.raises(HandshakeRefusedError) as refused:
            async with open_websocket_channel(server.url, bearer=Secret(TOKEN), limits=QUICK):
                pass
        error = refused.value
        assert (error.status, error.code) == (401, "unknown_key")
        assert error.reason == 'no such key; make one with "keys create"'
        assert server.counters.refused == 1
        assert server.counters.admitted == 0


async def test_an_admission_that_forgets_to_answer_lets_nobody_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def admit(handshake: Handshake) -> Any:
        await trio.lowlevel.checkpoint()

    async with running(admit=admit) as server:
        with pytest.raises(HandshakeRefusedError) as refused:
            async with open_websocket_channel(server.url, limits=QUICK):
                pass
        assert (refused.value.status, refused.value.code) == (500, "internal_error")
        assert server.counters.admitted == 0
    assert messages_logged(caplog) == [
        "websocket admission check returned None, not an identity or Refused"
    ]


async def test_an_admission_that_raises_or_times_out_refuses_that_client_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def admit(handshake: Handshake) -> Handshake | Refused:
        if handshake.path == "/raise":
            raise ZeroDivisionError
        if handshake.path == "/dawdle":
            await trio.sleep_forever()
        return handshake

    limits = WebSocketLimits(handshake_timeout=0.4)
    async with running(admit=admit, limits=limits) as server:
        for path, code in (("raise", "internal_error"), ("dawdle", "admission_timeout")):
            with pytest.raises(HandshakeRefusedError) as refused:
                async with open_websocket_channel(server.url + path, limits=QUICK):
                    pass
            assert refused.value.code == code
        async with open_websocket_channel(server.url, limits=QUICK) as channel:
            await channel.send(b"still here")
            assert await (await server.accepted()).receive() == b"still here"
    assert messages_logged(caplog) == ["websocket admission check raised"]


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
        b"\r\n\r\n\x00\xff",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_without_a_handshake_ends_only_itself(
    greeting: bytes, tls: bool
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with running(tls=context if tls else None) as server:
        with trio.fail_after(60):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                try:
                    await stream.send_all(greeting)
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
            while not server.counters.handshakes_failed:  # noqa: ASYNC110 -- it has no event
                await trio.sleep(0.001)
        assert server.counters.connections == 1
        assert server.counters.admitted == 0


async def test_a_client_that_sends_nothing_is_disconnected_in_time() -> None:
    async with running(limits=WebSocketLimits(handshake_timeout=0.05)) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        with trio.fail_after(9):
            assert await stream.receive_some() == b""
            await stream.aclose()
            while not server.counters.handshakes_failed:  # noqa: ASYNC110 -- it has no event
                await trio.sleep(0.001)


async def test_failed_handshakes_are_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever caused them could fill the log."""
    caplog.set_level(logging.INFO, "bridgepool.transports")
    async with running() as server:
        with trio.fail_after(60):
            for _ in range(20):
                async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                    await stream.send_eof()
            while server.counters.handshakes_failed < 20:  # noqa: ASYNC110 -- it has no event
                await trio.sleep(0.001)
    lines = [one for one in caplog.records if one.message.startswith("websocket handshake failed")]
    assert [vars(line)["refused"] for line in lines] == [1]


async def test_a_plain_request_gets_a_400() -> None:
    async with running() as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")


async def test_two_authorization_headers_count_as_none() -> None:
    async with running() as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"
            )
            _, seen = await server.given.receive()
    assert seen.bearer is None


async def answers(answer: bytes | None) -> Exception:
    """Return what a client makes of a server that answers this."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            if answer is None:
                await trio.sleep_forever()
            else:
                await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    caught: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        try:
            with trio.fail_after(9):
                limits = WebSocketLimits(handshake_timeout=0.2)
                async with open_websocket_channel(url, bearer=Secret(TOKEN), limits=limits):
                    pass
        except (ConnectError, HandshakeRefusedError) as error:
            caught = error
        nursery.cancel_scope.cancel()
    assert caught is not None
    assert TOKEN not in f"{caught} {caught!r} {caught.__cause__!r}"
    return caught


def response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "in time"),
        (b"", "ended the connection during"),
        (b"what?\r\n\r\n", "during|as a websocket server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(200_000), "ended"),
    ],
)
async def test_a_server_that_is_not_a_websocket_server_is_a_connect_error(
    answer: bytes | None, words: str
) -> None:
    error = await answers(answer)
    assert isinstance(error, ConnectError)
    assert re.search(words, str(error)), error


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"", "unexpected_status", "gave no reason"),
        (b"<html>", "unexpected_status", "gave no reason"),
        (b"[" * 10_000, "unexpected_status", "gave no reason"),
        (json.dumps({"code": 1, "reason": "r"}).encode(), "unexpected_status", "gave no reason"),
        (b'{"error": {"code": "c", "message": "m\\n"}}', "unexpected_status", "server said 'm?'"),
        (b'{"error": "e"}', "unexpected_status", "gave no reason"),
        (b'{"error": {"message": 1}}', "unexpected_status", "gave no reason"),
        (json.dumps({"code": "c\n", "reason": "r\x1b[2J"}).encode(), "c?", "r?[2J"),
    ],
)
async def test_any_other_status_is_a_refusal(body: bytes, code: str, reason: str) -> None:
    error = await answers(response(502, body))
    assert isinstance(error, HandshakeRefusedError)
    assert (error.status, error.code) == (502, code)
    assert reason in error.reason


async def test_no_server_is_a_connect_error() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(ConnectError, match=f"cannot connect to 127.0.0.1:{port}: .*refused"):
        async with open_websocket_channel(f"ws://127.0.0.1:{port}/"):
            pass


async def test_an_untrusted_certificate_is_a_connect_error() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with running(tls=context) as server:
        with pytest.raises(ConnectError, match="certificate is not trusted"):
            async with open_websocket_channel(server.url, limits=QUICK):
                pass
        stranger = ssl.create_default_context()
        with pytest.raises(ConnectError, match="certificate is not trusted"):
            async with open_websocket_channel(server.url, ssl_context=stranger, limits=QUICK):
                pass


async def test_a_url_of_the_wrong_scheme_is_explained() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with running() as plain, running(tls=context) as secure:
        says = r"TLS failed \(\w+\): the server does not expect TLS on this port"
        with pytest.raises(ConnectError, match=says):
            async with open_websocket_channel(f"wss://127.0.0.1:{plain.port}/", limits=QUICK):
                pass
        with pytest.raises(ConnectError, match="if it expects TLS, use wss://"):
            async with open_websocket_channel(f"ws://127.0.0.1:{secure.port}/", limits=QUICK):
                pass


@pytest.mark.parametrize(
    "url", ["http://a/", "ws://", "ws:///x", "ws://u:p@h/", "ws://h/#f", "ws://h/ä", "ws://h/?a b"]
)
async def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="websocket"):
        async with open_websocket_channel(url):
            pass


async def test_a_token_that_cannot_be_a_header_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="bearer token") as refused:
        async with open_websocket_channel("ws://h/", bearer=Secret("geheim\r\nä")):
            pass
    assert "geheim" not in repr(refused.value)
    plain: Any = "geheim"
    with pytest.raises(TypeError, match=r"bearer is a str: write Secret\(") as mistaken:
        async with open_websocket_channel("ws://h/", bearer=plain):
            pass
    assert "geheim" not in repr(mistaken.value)


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="heartbeat_interval"):
        WebSocketLimits(heartbeat_interval=0)
    with pytest.raises(ValueError, match="status"):
        Refused(200, "fine", "no")
