"""The soak of a whole system: what clients, upstreams and the store say must agree.

Control plane and gateway are processes of their own; clients and upstreams are in this one. Each
request has an id of its own, which the gateway passes on. By it the client, the upstream and the
usage record of each request are compared: whether the answer was whole, and what tokens it told.
The answer of each request tells other numbers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Final

import attrs
import trio

from bridgepool import BridgePoolError
from bridgepool.http import Exchange, UpstreamClient, open_upstream_client, serve_http
from tests.soak.run import Run
from tests.soak.socket_load import Told, answer_socket, id_of, tokens_of

EVENTS: Final = 8
PACE: Final = 0.15  # seconds between two events of a stream
_KEYS_TRY_AGAIN: Final = ((b"retry-after", b"1"),)


def number_of(request_id: str) -> int:
    """Return the number of a request, by which its answer tells tokens."""
    return int(request_id.removeprefix("soak-"))


@attrs.define(eq=False)
class PacedUpstream:
    """Streams slowly, refuses keys when told to, dies and comes back on its port."""

    told: defaultdict[str, Told]
    """The tokens that upstreams have told each request."""
    port: int = 0
    limited: set[bytes] = attrs.field(factory=set)
    """Keys that get 429."""
    refused: set[bytes] = attrs.field(factory=set)
    """Keys that get 401."""
    cut: set[str] = attrs.field(factory=set)
    """The requests whose answers its death cut."""
    begun: set[int] = attrs.field(factory=set)
    """The responses that it has begun on websockets."""
    refusals: Counter[int] = attrs.field(factory=Counter)
    """How many requests it refused because of their key, by status."""
    used: Counter[bytes] = attrs.field(factory=Counter)
    """How many requests came with each key."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _dying: bool = False

    @property
    def base_url(self) -> str:
        """The base URL for a provider of type `openai`."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `die` is called, always on the same port."""
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1", backlog=1024)
        self.port = listeners[0].socket.getsockname()[1]
        self._dying = False
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_http, self.handle, listeners)
                task_status.started()

    def die(self) -> None:
        """Cut all streams, and refuse connections."""
        self._dying = True
        self._scope.cancel()

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request."""
        async for _ in exchange.body:
            pass
        headers = dict(exchange.request.headers)
        key = headers[b"authorization"].removeprefix(b"Bearer ")
        self.used[key] += 1
        if key in self.limited or key in self.refused:
            status = 429 if key in self.limited else 401
            self.refusals[status] += 1
            more = _KEYS_TRY_AGAIN if status == 429 else ()
            await exchange.answer(status, more, b'{"error": {"message": "not now"}}')
            return
        request_id, finished = id_of(exchange), False
        try:
            if b"sec-websocket-key" in headers:
                await answer_socket(exchange, self.told, self.begun)
            else:
                await self._stream(exchange, request_id, headers[b"x-soak"])
            finished = True
        finally:
            if not finished and self._dying:
                self.cut.add(request_id)

    async def _stream(self, exchange: Exchange, request_id: str, stamp: bytes) -> None:
        kind = ((b"content-type", b"text/event-stream"),)
        async with exchange.respond(200, kind) as stream:
            for number in range(EVENTS):
                await stream.send_all(b"data: %b\n\n" % _event(stamp, number))
                await trio.sleep(PACE)  # the load is paced; nothing is decided by it
            asked, said = tokens_of(number_of(request_id))
            usage = {"prompt_tokens": asked, "completion_tokens": said}
            last = {"model": "m", "choices": [], "usage": usage}
            await stream.send_all(b"data: %b\n\n" % json.dumps(last).encode())
            self.told[request_id].add(number_of(request_id))
            await stream.send_all(b"data: [DONE]\n\n")


def _event(stamp: bytes, number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": f"{stamp.decode()} {number}"}}
    return json.dumps({"model": "m", "choices": [choice]}).encode()


@attrs.define(eq=False)
class Clients:
    """The clients' side: what they asked, and what came of it."""

    run: Run
    key: str
    cut_upstream: set[str]
    """The requests that the death of an upstream has cut."""
    whole: set[str] = attrs.field(factory=set)
    """Requests whose whole answer was seen."""
    sealed: set[str] = attrs.field(factory=set)
    """Of them, those after which the gateway took another request of the connection."""
    cut: set[str] = attrs.field(factory=set)
    """Requests whose answer was cut while the gateway ran."""
    killed: set[str] = attrs.field(factory=set)
    """Requests that the gateway's death cut, or that found no gateway."""
    statuses: Counter[int] = attrs.field(factory=Counter)
    fallbacks: int = 0

    async def stream_on(self) -> None:
        """Stream one answer after the other, on one connection to each gateway."""
        run = self.run
        while not run.stopping:
            changed, url, before = run.changed, run.url, ""
            async with open_upstream_client(url) as client:
                while run.is_up(url) and not run.stopping:
                    before = await self._ask(client, url, before)
            if not run.gateway_up:
                await changed.wait()

    async def _ask(self, client: UpstreamClient, url: str, before: str) -> str:
        """Ask once; return the id of the request if its whole answer came."""
        request_id = f"soak-{self.run.next_number()}"
        headers = (
            (b"authorization", b"Bearer " + self.key.encode()),
            (b"content-type", b"application/json"),
            (b"x-request-id", request_id.encode()),
        )
        body = b'{"model": "m", "stream": true, "messages": []}'
        data = b""
        broken: Exception | None = None
        try:
            target = b"/ai/v1/chat/completions"
            async with client.request(b"POST", target, headers, body) as response:
                if before:
                    self.sealed.add(before)
                self.statuses[response.status] += 1
                self.fallbacks += any(n == b"x-bridgepool-fallback" for n, _ in response.headers)
                while piece := await response.receive_some():
                    data += piece
        except BridgePoolError as error:
            broken = error
        if broken is not None and not self.run.is_up(url):
            self.killed.add(request_id)
            return ""
        if broken is None and response.status != 200:
            self.run.fault(f"{request_id}: {response.status} {data!r}")
            return ""
        if broken is None and _is_whole(data):
            self.whole.add(request_id)
            return request_id
        self.cut.add(request_id)
        if request_id not in self.cut_upstream:
            self.run.fault(
                f"{request_id}: cut, and not by its upstream: {broken!r} {data[-300:]!r}"
            )
        return ""


def _is_whole(data: bytes) -> bool:
    """Return whether these are all events, in order, from one state of the provider."""
    events = data.decode().split("\n\n")
    if len(events) != EVENTS + 3 or events[-2] != "data: [DONE]":
        return False
    pieces = []
    for event in events[:EVENTS]:
        choices = json.loads(event.removeprefix("data: "))["choices"]
        pieces.append(choices[0]["delta"]["content"].split())
    same_stamp = len({stamp for stamp, _ in pieces}) == 1
    return same_stamp and [int(number) for _, number in pieces] == list(range(EVENTS))
