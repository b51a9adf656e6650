"""The corpus of requests at both programs: each is refused, or is exactly one request.

At the gateway it is forwarded to upstreams that are strict, or as careless as small servers are; no
byte of one client's exchange may show in another's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import h11
import pytest
import trio

from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.http import Exchange, get_header, serve_http
from tests.gateway.control.planes import open_plane
from tests.gateway.proxy.raw import raw_upstream
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tools.hostile_requests import fill_in, hostile_requests

BATCH = 64  # connections at a time
SILENCE = 0.25  # seconds after which a client has got what it gets
REFUSALS = {400, 408, 413, 414, 417, 431, 501, 505}
CHAT = b"/ai/v1/chat/completions"
KEY = new_client_key()
CLIENT = Client(id="ada", key_hashes=(hash_key(KEY),))
AUTHORIZATION = b"Bearer " + KEY.reveal().encode()


def requests() -> list[tuple[bytes, str, bytes]]:
    return [
        (b"%06d" % number, kind, request)
        for number, (kind, request) in enumerate(hostile_requests())
    ]


async def say(port: int, request: bytes) -> bytes:
    """Send from one connection, and return all that comes."""
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(request)
            with trio.move_on_after(SILENCE) as silence:
                while data := await stream.receive_some():
                    received += data
                    silence.deadline = trio.current_time() + SILENCE
    return received


def answers_in(received: bytes, request: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the status and body of each answer; all must be complete."""
    method = "HEAD" if request.startswith(b"HEAD ") else "GET"
    closed = False
    received = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    while received:
        assert not closed, "an answer after the last one"
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(received)
        status, body = 0, b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, f"an answer that is not complete: {received!r}"
            if isinstance(event, h11.Response):
                status = event.status_code
                closed = (b"connection", b"close") in list(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
        yield status, body
        received = connection.trailing_data[0]
        method = "GET"


# -- upstreams: each answers with the field X-Id of what it takes for a request


class Upstream:
    """An upstream, and what it took for requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []  # target and X-Id

    async def strict(self, nursery: trio.Nursery) -> str:
        """Serve as a careful server does."""

        async def handle(exchange: Exchange) -> None:
            async for _ in exchange.body:
                pass
            name = get_header(exchange.request.headers, b"x-id") or b""
            self.requests.append((exchange.request.target, name))
            await exchange.answer(200, body=b"served:%b;" % name)

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(serve_http, handle, listeners))
        port: int = listeners[0].socket.getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def without_bodies(self, nursery: trio.Nursery) -> str:
        """Serve as one that refuses a body without reading it, and goes on with what follows."""
        return await raw_upstream(nursery, partial(self.serve, reads_length=False))

    async def by_length_only(self, nursery: trio.Nursery) -> str:
        """Serve as one that knows no codings: what follows by length is the next request."""
        return await raw_upstream(nursery, partial(self.serve, reads_length=True))

    async def serve(self, stream: trio.SocketStream, *, reads_length: bool) -> None:
        data = b""
        with suppress(trio.BrokenResourceError):
            while True:
                while b"\r\n\r\n" not in data:
                    piece = await stream.receive_some()
                    if not piece:
                        return
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?im)^content-length:[ \t]*(\d+)", head)
                if reads_length and length is not None:
                    while len(data) < int(length[1]):
                        piece = await stream.receive_some()
                        if not piece:
                            return
                        data += piece
                    data = data[int(length[1]) :]
                name = re.search(rb"(?im)^x-id:[ \t]*(\w+)", head)
                served = name[1] if name is not None else b""
                body = b"served:%b;" % served
                line = re.search(rb"\w+ (\S+) HTTP", head)
                self.requests.append((line[1] if line is not None else b"", served))
                refuses = not reads_length and not head.startswith(b"GET ")
                status = b"404 Not Found" if refuses else b"200 OK"
                answer = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b"
                await stream.send_all(answer % (status, len(body), body))


async def check_one(rig: Rig, name: bytes, kind: str, request: bytes) -> None:
    """Replay one request of the corpus at the gateway."""
    request = fill_in(request, CHAT, name, b"Authorization: %b\r\n" % AUTHORIZATION)
    received = await say(int(rig.address.rpartition(":")[2]), request)
    label = f"{kind} {name!r}: {request[:300]!r} -> {received[:500]!r}"
    served = re.findall(rb"served:(\w*);", received)
    assert set(served) <= {name}, label
    assert len(served) <= 1, label
    statuses = [status for status, _ in answers_in(received, request)]
    assert all(status < 500 or status in REFUSALS for status in statuses), label


async def check_others(rig: Rig, number: int) -> None:
    """Ask as other clients do, by the same connections to the upstream."""
    for turn in range(8):
        name = b"good%dx%d" % (number, turn)
        answer = await rig.ask(
            "/ai/v1/models", headers=((b"authorization", AUTHORIZATION), (b"x-id", name))
        )
        assert (answer.status, answer.body) == (200, b"served:%b;" % name)


@pytest.mark.parametrize("kind", ["strict", "without_bodies", "by_length_only"])
async def test_each_request_is_refused_or_forwarded_as_exactly_one(
    nursery: trio.Nursery, kind: str
) -> None:
    upstream = Upstream()
    serve: Callable[[trio.Nursery], Awaitable[str]] = getattr(upstream, kind)
    corpus = requests()
    assert len(corpus) > 600
    provider = openai(await serve(nursery))
    async with open_rig(provider, nursery=nursery, clients=[CLIENT]) as rig:
        for begin in range(0, len(corpus), BATCH):
            async with trio.open_nursery() as clients:
                for name, label, request in corpus[begin : begin + BATCH]:
                    clients.start_soon(check_one, rig, name, label, request)
            await check_others(rig, begin)
    times = Counter(name for _, name in upstream.requests if name.isdigit())
    assert set(times.values()) == {1}
    assert len(times) > 50  # a corpus that is all refused shows little
    if kind == "strict":
        targets = {target.partition(b"?")[0] for target, _ in upstream.requests}
        assert targets == {b"/v1/chat/completions", b"/v1/models"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[tuple[int, bytes]]:
    """The port of an API, and its key; nothing may change in its store."""
    async with open_plane(str(tmp_path / "store.db")) as plane:
        key = (await plane.key()).encode()
        before = await plane.store.revisions()
        yield int(plane.url.rpartition(":")[2]), key
        assert await plane.store.revisions() == before
        assert plane.api.failures == 0


async def test_each_request_to_the_api_is_refused_or_answered_once(api: tuple[int, bytes]) -> None:
    port, key = api
    good = b"GET /api/v1/revision HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % key
    fields = b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\n" % key
    statuses: Counter[int] = Counter()

    async def check(name: bytes, kind: str, request: bytes) -> None:
        request = fill_in(request, b"/api/v1/providers", name, fields)
        received = await say(port, request)
        found = [status for status, _ in answers_in(received, request)]
        label = f"{kind} {name!r}: {request[:300]!r} -> {received[:500]!r}"
        assert all(status < 500 or status in REFUSALS for status in found), label
        assert 201 not in found, label
        statuses.update(found)

    corpus = requests()
    for begin in range(0, len(corpus), BATCH):
        async with trio.open_nursery() as clients:
            for name, kind, request in corpus[begin : begin + BATCH]:
                clients.start_soon(check, name, kind, request)
        assert [status for status, _ in answers_in(await say(port, good), good)] == [200]
    assert sum(statuses[status] for status in REFUSALS) > 300
