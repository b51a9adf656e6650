import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from bridgepool._network import parse_origin
from bridgepool.http import (
    ConnectFailed,
    UpstreamCut,
    UpstreamLimits,
    UpstreamTimeout,
    open_upstream_client,
    upstream_ssl_context,
)
from tests.http_client.support import OK, Peer, Script, answer_all, read_all

CA = trustme.CA()
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
EXPIRED = CA.issue_cert(
    "localhost", not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(days=1)
)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def trusting(ca: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


class _HeldBack(trio.abc.Stream):
    """A stream that collects what is sent, and sends it in one piece."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._held = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._held += data

    async def flush(self) -> None:
        await self._stream.send_all(self._held)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def tls_server(script: Script, certificate: trustme.LeafCert | None) -> AsyncIterator[int]:
    """Serve a script over TLS, or in plain text where there is no certificate; gives the port."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if certificate is None:
                    await script(Peer(stream))
                else:
                    context = server_context(certificate)
                    await script(Peer(trio.SSLStream(stream, context, server_side=True)))
            except trio.BrokenResourceError:
                return  # the client did not like what it saw

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        # They listen already, so nothing is missed before the task begins to accept.
        nursery.start_soon(trio.serve_listeners, serve, listeners)  # noqa: ASYNC113 -- see above
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_tls_connections_are_verified_kept_and_reused() -> None:
    protocols: list[str | None] = []

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        assert isinstance(peer.stream, trio.SSLStream)
        protocols.append(peer.stream.selected_alpn_protocol())
        assert b"host: localhost:%d\r\n" % port in head
        await peer.send(OK)
        await answer_all(peer)

    async with tls_server(script, CA.issue_cert("localhost")) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusting()) as client:
            assert [await read_all(client) for _ in range(3)] == [b"ok"] * 3
            statistics = client.statistics()
            assert (statistics.opened, statistics.idle) == (1, 1)
    assert protocols == ["http/1.1"]


@pytest.mark.parametrize(
    ("certificate", "trusted", "why"),
    [
        (trustme.CA().issue_cert("localhost"), trusting(), "unable to get local issuer"),
        (CA.issue_cert("other.example"), trusting(), "[Hh]ostname mismatch"),
        (EXPIRED, trusting(), "expired"),
        (CA.issue_cert("localhost"), None, "unable to get local issuer|self.signed"),
    ],
    ids=["unknown issuer", "another host's", "expired", "not in the system's store"],
)
async def test_an_invalid_certificate_is_refused_before_anything_is_sent(
    certificate: trustme.LeafCert, trusted: ssl.SSLContext | None, why: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        raise AssertionError("something was sent")

    async with tls_server(script, certificate) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusted) as client:
            with pytest.raises(ConnectFailed, match=f"certificate is not trusted: .*({why})"):
                await read_all(client)
            assert client.statistics().in_use == 0


async def test_an_upstream_that_speaks_plain_text_cannot_be_connected_by_tls() -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await peer.wait_closed()

    async with tls_server(script, None) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusting()) as client:
            with pytest.raises(ConnectFailed, match="TLS failed"):
                await read_all(client)


async def test_an_upstream_that_closes_in_the_handshake_cannot_be_connected() -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.receive_some()

    async with tls_server(script, None) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusting()) as client:
            with pytest.raises(ConnectFailed):
                await read_all(client)


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_body_that_ends_with_the_connection_is_complete_only_with_close_notify(
    says_goodbye: bool,
) -> None:
    """An attacker who can cut a TCP connection must not be able to truncate a body unnoticed."""
    context = trusting()
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # as CPython 3.11.2 does by default

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall")
        if says_goodbye:
            await peer.stream.aclose()

    async with tls_server(script, CA.issue_cert("localhost")) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=context) as client:
            if says_goodbye:
                assert await read_all(client) == b"all"
            else:
                with pytest.raises(UpstreamCut):
                    await read_all(client)


async def test_a_kept_tls_connection_that_died_is_not_used_even_for_a_post() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        if first.is_set():
            await answer_all(peer)
            return
        first.set()
        await close.wait()
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.stream.transport_stream.aclose()
        closed.set()

    first, close, closed = trio.Event(), trio.Event(), trio.Event()
    async with tls_server(script, CA.issue_cert("localhost")) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusting()) as client:
            await read_all(client)
            close.set()
            await closed.wait()
            async with client.request(b"POST", b"/", (), b"x") as response:
                assert await response.receive_some() == b"ok"
            assert client.statistics().found_dead == 1


async def test_a_second_response_that_tls_received_with_the_first_is_never_used() -> None:
    """TLS holds it where neither the parser nor the socket shows it."""
    dialled = 0

    async def script(peer: Peer) -> None:
        nonlocal dialled
        dialled += 1
        stream = peer.stream
        assert isinstance(stream, trio.SSLStream)
        await peer.read_head()
        held = _HeldBack(stream.transport_stream)
        stream.transport_stream = held
        await peer.send(OK)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await held.flush()  # two records in one piece
        await peer.wait_closed()

    async with tls_server(script, CA.issue_cert("localhost")) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusting()) as client:
            assert [await read_all(client) for _ in range(2)] == [b"ok", b"ok"]
            assert client.statistics().found_dead == 1
    assert dialled == 2


async def test_a_silent_tls_upstream_times_out() -> None:
    """On the real clock, with a timeout too short to matter: the socket has no mock one."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.wait_closed()
        gone.set()

    gone = trio.Event()
    limits = UpstreamLimits(head_timeout=0.05)
    async with tls_server(script, CA.issue_cert("localhost")) as port:
        base = f"https://localhost:{port}"
        async with open_upstream_client(base, ssl_context=trusting(), limits=limits) as client:
            with pytest.raises(UpstreamTimeout):
                await read_all(client)
            await gone.wait()
            assert client.statistics().in_use == 0


def test_certificates_are_verified_by_default_and_only_http_1_is_offered() -> None:
    context = upstream_ssl_context()
    assert context is upstream_ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("url", "authority", "base_path"),
    [
        ("http://Example.COM", b"example.com", b""),
        ("http://example.com:80/", b"example.com", b""),
        ("https://example.com:443/v1/", b"example.com", b"/v1"),
        ("https://example.com:80/a/b", b"example.com:80", b"/a/b"),
        ("http://[::1]:8080", b"[::1]:8080", b""),
        ("https://b\u00fccher.example", b"xn--bcher-kva.example", b""),
    ],
)
def test_a_base_url_gives_authority_and_path(url: str, authority: bytes, base_path: bytes) -> None:
    origin = parse_origin(url)
    assert (origin.authority, origin.base_path) == (authority, base_path)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com",
        "http://",
        "http://user:secret@example.com",
        "http://example.com/?a=b",
        "http://example.com/#a",
        "http://example.com/\u00fc",
        "http://example.com:99999",
        "http://ex..ample.com",
        "http://exam ple.com",
        "http://example.com/v 1",
        "http://example.com\n/v1",
        " http://example.com",
    ],
)
def test_an_invalid_base_url_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="invalid base URL") as caught:
        parse_origin(url)
    assert "secret" not in str(caught.value)


async def test_a_base_url_of_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match="the base URL is a bytes, not a text"):
        async with open_upstream_client(b"http://example.com"):  # type: ignore[arg-type]
            pass
