"""What the commands say when a control plane cannot be asked."""

from __future__ import annotations

import ssl

import httpx2
import pytest
import trio
import trustme

from bridgepool import Secret
from bridgepool.gateway.control.operations._http_admin import AdminError, open_http_admin
from bridgepool.gateway.control.operations._providers import list_providers
from bridgepool.gateway.serving._listening import Address, listener_url, open_listeners
from bridgepool.http import Exchange, serve_http


async def test_nobody_at_the_address_is_told() -> None:
    async with open_http_admin("http://127.0.0.1:1", Secret("bpa_x_y")) as admin:
        refused = r"did not answer \(Connection refused\); is it running"
        with pytest.raises(AdminError, match=refused) as caught:
            await admin.do(list_providers)
        assert caught.value.code == "unreachable"
    assert not isinstance(caught.value.__cause__, httpx2.HTTPError)


async def test_what_is_wrong_with_tls_is_told_with_what_to_do(nursery: trio.Nursery) -> None:
    """Whether it runs at that address was asked, of one that had just answered."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, (), b"")

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    plain = await open_listeners([Address("127.0.0.1", 0)], None)
    encrypted = await open_listeners([Address("127.0.0.1", 0)], context)
    for listeners in (plain, encrypted):
        await nursery.start(serve_http, answer, listeners)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    for listener, scheme, trust, expected in (
        (encrypted[0], "https", None, r"not trusted: .*\); .*--ca-file"),
        (encrypted[0], "http", None, r"\(no HTTP\); if it uses TLS, the URL begins with https://"),
        (plain[0], "https", trusting, r"; if it does not use TLS, the URL begins with http://"),
    ):
        url = f"{scheme}://{listener_url(listener).partition('://')[2]}"
        async with open_http_admin(url, Secret("bpa_x_y"), ssl_context=trust) as admin:
            with pytest.raises(AdminError, match=expected) as caught:
                await admin.do(list_providers)
            assert caught.value.code == "unreachable"
    nursery.cancel_scope.cancel()
