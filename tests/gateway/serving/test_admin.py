"""The admin port: its pages, who may read them, and where it may listen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from bridgepool.gateway.serving._admin import (
    AdminListeners,
    enter_admin_listeners,
    json_page,
    serve_admin,
)
from bridgepool.gateway.serving._listening import StartError, listener_url
from bridgepool.http import Headers, UpstreamClient, open_upstream_client

TOKEN = "t" * 32
PAGES = {
    "/healthz": json_page(lambda: (200, "alive")),
    "/status": json_page(lambda: (200, {"a": 1})),
}


@asynccontextmanager
async def admin_port(token_file: Path | None = None) -> AsyncIterator[UpstreamClient]:
    async with AsyncExitStack() as stack:
        admin = await enter_admin_listeners(stack, ["127.0.0.1:0"], token_file, None)
        url = listener_url(admin.listeners[0])
        async with serve_admin(admin, PAGES), open_upstream_client(url) as client:
            yield client


async def ask(
    client: UpstreamClient, path: str, headers: Headers = (), method: bytes = b"GET"
) -> tuple[int, bytes]:
    async with client.request(method, path.encode(), headers) as response:
        body = b""
        while piece := await response.receive_some():
            body += piece
        return response.status, body


async def test_on_loopback_programs_of_this_machine_need_no_key_and_web_pages_get_none() -> None:
    async with admin_port() as client:
        assert await ask(client, "/status") == (200, b'{"a":1}\n')
        assert (await ask(client, "/status", method=b"HEAD"))[0] == 200
        assert (await ask(client, "/status", ((b"origin", b"https://evil.example"),)))[0] == 403
        rebound = ((b"host", b"evil.example:80"),)
        assert (await ask(client, "/status", rebound))[0] == 403
        assert (await ask(client, "/healthz", rebound))[0] == 200
        assert (await ask(client, "/status", method=b"DELETE"))[0] == 405
        status, body = await ask(client, "/nothing")
        assert status == 404
        assert b"/healthz /status" in body


async def test_connections_that_send_nothing_do_not_lock_out_scrapes_and_probes() -> None:
    """A hundred of them were enough: everything, also health checks, was answered with 503."""
    async with admin_port() as client, AsyncExitStack() as idle:
        host, _, port = client.authority.partition(b":")
        for _ in range(150):
            stream = await trio.open_tcp_stream(host.decode(), int(port))
            await idle.enter_async_context(stream)
        for path in PAGES:
            assert (await ask(client, path))[0] == 200


async def test_a_connection_without_a_token_ends_after_a_while(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Health checks kept it open without end."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    bearer = ((b"authorization", b"Bearer " + TOKEN.encode()),)
    async with admin_port(file) as client:
        for path, headers in (("/healthz", ()), ("/status", bearer)):
            for _ in range(2):
                await ask(client, path, headers)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(10)
                await trio.testing.wait_all_tasks_blocked()
            await ask(client, path, headers)
            assert client.statistics().opened == 2  # in place of the first one


async def test_with_a_token_file_only_its_token_opens_status_and_metrics(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    async with admin_port(file) as client:
        assert (await ask(client, "/healthz"))[0] == 200
        for headers in (
            (),
            ((b"authorization", b"Bearer " + TOKEN[1:].encode()),),
            ((b"authorization", b"Basic " + TOKEN.encode()),),
        ):
            status, body = await ask(client, "/status", headers)
            assert status == 401
            assert TOKEN.encode() not in body
        good = ((b"authorization", b"bearer " + TOKEN.encode()), (b"host", b"gateway.internal"))
        assert await ask(client, "/status", good) == (200, b'{"a":1}\n')


async def test_another_token_in_the_file_is_required_once_it_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with AsyncExitStack() as stack:
        admin = await enter_admin_listeners(stack, ["127.0.0.1:0"], file, None)
        assert admin.token is not None
        url = listener_url(admin.listeners[0])
        async with serve_admin(admin, PAGES), open_upstream_client(url) as client:

            async def status_with(token: str) -> int:
                headers = ((b"authorization", b"Bearer " + token.encode()),)
                return (await ask(client, "/status", headers))[0]

            file.write_text("short")
            await admin.token.read_again()
            assert await status_with(TOKEN) == 200
            assert "keeping what it held before" in caplog.text
            file.write_text("u" * 32)
            await admin.token.read_again()
            assert [await status_with(TOKEN), await status_with("u" * 32)] == [401, 200]


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9000"])
async def test_an_address_that_other_machines_reach_requires_a_token(text: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(StartError, match="--admin-token-file"):
            await enter_admin_listeners(stack, [text], None, None)


@pytest.mark.parametrize("content", ["", "short", "two words of some length", "x" * 1025])
async def test_a_token_file_that_holds_no_token_prevents_the_start(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    async with AsyncExitStack() as stack:
        with pytest.raises(StartError, match="must hold one token") as caught:
            await enter_admin_listeners(stack, ["127.0.0.1:0"], file, None)
        with pytest.raises(StartError, match="No such file"):
            await enter_admin_listeners(stack, [], tmp_path / "none", None)
    assert not content or content not in str(caught.value)


async def test_without_the_option_nothing_listens_and_the_block_ends() -> None:
    with trio.fail_after(60):
        async with serve_admin(AdminListeners([], None), PAGES):
            pass
