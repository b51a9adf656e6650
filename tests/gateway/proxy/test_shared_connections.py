"""One client's bytes never reach another client's answer, however careless the upstream is."""

from __future__ import annotations

import contextlib

import pytest
import trio

from tests.gateway.proxy.raw import connect, post, raw_upstream, read_head
from tests.gateway.proxy.rig import anthropic, open_rig, openai

CHAT = "/ai/v1/chat/completions"
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


class Careless:
    """An upstream that reads no bodies, as small servers do, and answers what it takes for the
    next request only when more bytes come: at the worst moment."""

    def __init__(self, status: bytes = b"200 OK") -> None:
        self.status = status
        self.targets: list[bytes] = []

    async def __call__(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the gateway has hung up on it
            await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while True:
            unread = bool(data)  # it could answer this, but waits for more
            while unread or b"\r\n\r\n" not in data:
                unread = False
                piece = await stream.receive_some()
                if not piece:
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            target = head.split(b" ")[1]
            self.targets.append(target)
            length = b"content-length: %d" % len(target)
            answer = b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (self.status, length, target)
            await stream.send_all(answer)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("framing", ["length", "chunks", "an empty chunk"])
async def test_a_body_on_a_method_that_takes_none_is_refused(
    nursery: trio.Nursery, method: str, framing: str
) -> None:
    upstream = Careless()
    url = await raw_upstream(nursery, upstream)
    target = "/ai/v1/chat/completions/x"
    head = b"%b %b HTTP/1.1\r\nhost: 127.0.0.1\r\n" % (method.encode(), target.encode())
    bodies = {
        "length": b"content-length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED),
        "chunks": b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(SMUGGLED), SMUGGLED),
        "an empty chunk": b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    }
    async with open_rig(openai(url), nursery=nursery) as rig:
        async with connect(rig.address) as client:
            await client.send(head + bodies[framing])
            answer = await client.read_until(b"" if method == "HEAD" else b"}")
            answer = await client.read_until(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")
            [record] = await rig.wait_records(1)
            assert record.code == "unexpected_body"
        for _ in range(2):
            assert (await rig.ask("/ai/v1/models")).body == b"/v1/models"
    assert set(upstream.targets) == {b"/v1/models"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_an_empty_body_of_known_length_is_no_body(nursery: trio.Nursery, method: str) -> None:
    upstream = Careless()
    url = await raw_upstream(nursery, upstream)
    async with open_rig(openai(url), nursery=nursery) as rig:
        length = ((b"content-length", b"0"),)
        answer = await rig.ask("/ai/v1/responses/r", headers=length, method=method)
        assert answer.status == 200


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"429 Slow", b"500 Oh"])
async def test_after_an_error_that_may_have_been_sent_without_reading_the_body(
    nursery: trio.Nursery, status: bytes
) -> None:
    upstream = Careless(status)
    url = await raw_upstream(nursery, upstream)
    async with open_rig(openai(url, keys=[]), nursery=nursery) as rig:  # no key cools down
        assert (await rig.ask(CHAT, SMUGGLED)).body == b"/v1/chat/completions"
        assert (await rig.ask("/ai/v1/models")).body == b"/v1/models"


async def test_chunks_that_the_upstream_does_not_read(nursery: trio.Nursery) -> None:
    upstream = Careless()
    url = await raw_upstream(nursery, upstream)
    async with open_rig(openai(url), nursery=nursery) as rig:
        async with connect(rig.address) as client:
            await client.send(
                b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n0\r\n\r\n" % (CHAT.encode(), len(SMUGGLED), SMUGGLED)
            )
            await client.read_until(b"/v1/chat/completions")
        assert (await rig.ask("/ai/v1/models")).body == b"/v1/models"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ],
)
async def test_a_body_that_comes_late_after_an_answer_that_can_have_none(
    nursery: trio.Nursery, head: bytes
) -> None:
    """Simple servers send a body in answer to HEAD, and with 204."""

    async def upstream(stream: trio.SocketStream) -> None:
        request = await read_head(stream)
        if request.startswith(b"GET"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            return
        await stream.send_all(head)
        with contextlib.suppress(trio.BrokenResourceError):
            if await stream.receive_some():  # another request on this connection
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    url = await raw_upstream(nursery, upstream)
    method = "HEAD" if b" 200 " in head else "DELETE"
    async with open_rig(openai(url), nursery=nursery) as rig:
        assert (await rig.ask("/ai/v1/responses/r", method=method)).body == b""
        assert (await rig.ask("/ai/v1/models")).body == b"ok"


async def test_a_small_upload_that_the_upstream_reads_keeps_its_connection(
    nursery: trio.Nursery,
) -> None:
    connections = 0

    async def upstream(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        while (await stream.receive_some()).endswith(b"{}"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    url = await raw_upstream(nursery, upstream)
    async with open_rig(anthropic(url), nursery=nursery) as rig, connect(rig.address) as client:
        for _ in range(3):
            await client.send(post("/claude/v1/messages"))
            await client.read_until(b"ok")
            client.data = b""
    assert connections == 1
