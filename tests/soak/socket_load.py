"""The websockets of the soak: an upstream that speaks Responses and Realtime events, and clients.

Each response has a number and an id of its own, by which the upstream, the client and the usage
record are compared, and tells other tokens.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any, Final

import attrs
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, CloseConnection, TextMessage

from bridgepool.http import Exchange, get_header, websocket_accept
from tests.gateway.proxy.websockets.peers import Socket, connect_socket
from tests.soak.run import Run

DELTAS: Final = 3
PACE: Final = 0.12  # seconds between two events of a response
PAUSE: Final = 0.25  # seconds between two responses
_RESPONSES: Final = "/ai/v1/responses"
_REALTIME: Final = "/ai/v1/realtime?model=m"
_DONE: Final = frozenset({"response.completed", "response.done"})


@attrs.define
class Told:
    """The tokens that the answers to one request have told."""

    input: int = 0
    output: int = 0

    def add(self, number: int) -> None:
        """Add what the answer of this number tells."""
        asked, said = tokens_of(number)
        self.input, self.output = self.input + asked, self.output + said


def tokens_of(number: int) -> tuple[int, int]:
    """Return the input and output tokens that the answer of this number tells."""
    return 1 + number % 1009, 1 + number % 499


def response_id(number: int) -> str:
    """Return the id of the response of this number."""
    return f"resp_{number}"


def id_of(exchange: Exchange) -> str:
    """Return the id of a request."""
    return (get_header(exchange.request.headers, b"x-request-id") or b"").decode()


async def answer_socket(exchange: Exchange, told: defaultdict[str, Told], begun: set[int]) -> None:
    """Be the upstream of one websocket, until it is closed."""
    key = get_header(exchange.request.headers, b"sec-websocket-key")
    assert key is not None
    accept = (b"sec-websocket-accept", websocket_accept(key))
    stream = await exchange.upgrade(((b"upgrade", b"websocket"), accept))
    connection = Connection(ConnectionType.SERVER)
    realtime = b"/realtime" in exchange.request.target
    while data := await stream.receive_some():
        connection.receive_data(bytes(data))
        for event in connection.events():
            if isinstance(event, CloseConnection):
                await stream.send_all(connection.send(event.response()))
                return
            if not isinstance(event, TextMessage):
                continue
            number = int(json.loads(event.data)["response"]["metadata"]["number"])
            begun.add(number)
            for document in _events(number, "done" if realtime else "completed"):
                await trio.sleep(PACE)  # the load is paced; nothing is decided by it
                await stream.send_all(connection.send(TextMessage(json.dumps(document))))
            told[response_id(number)].add(number)


def _events(number: int, last: str) -> list[dict[str, object]]:
    asked, said = tokens_of(number)
    response = {"id": response_id(number), "object": "response", "model": "m"}
    usage = {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said}
    delta: dict[str, object] = {"type": "response.output_text.delta", "delta": "word "}
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        *(DELTAS * [delta]),
        {"type": f"response.{last}", "response": {**response, "status": last, "usage": usage}},
    ]


@attrs.define(eq=False)
class SocketClients:
    """The clients of websockets: what they asked, and what came of it."""

    run: Run
    key: str
    begun: set[int]
    """The responses that an upstream has begun."""
    cut_upstream: set[str]
    """The requests that the death of an upstream has cut."""
    whole: set[str] = attrs.field(factory=set)
    """The ids of the responses that came to their end."""
    sealed: set[str] = attrs.field(factory=set)
    """Of them, those after which the gateway sent more on the same websocket."""
    opened: int = 0
    """Websockets that were opened."""
    ended: set[str] = attrs.field(factory=set)
    """Websockets that were closed while the gateway ran."""
    killed: set[str] = attrs.field(factory=set)
    """Websockets that the gateway's death ended."""
    killed_responses: set[str] = attrs.field(factory=set)
    """The responses that were under way on them."""
    cut: set[str] = attrs.field(factory=set)
    """Websockets that their upstream's death ended."""
    restarted: int = 0
    """Websockets that were closed 1012, since their provider had been replaced."""
    asked_again: int = 0
    """Of them, those whose close crossed a request, which no upstream has begun."""
    refused: Counter[int] = attrs.field(factory=Counter)
    """Handshakes that were refused, by status."""

    async def have_sockets(self, place: int) -> None:
        """Have one websocket after the other, until told to stop."""
        target = _REALTIME if place % 2 else _RESPONSES
        while not self.run.stopping:
            changed, url = self.run.changed, self.run.url
            try:
                await self._have_socket(url, target)
            except (OSError, trio.BrokenResourceError, AssertionError) as error:
                if self.run.is_up(url):
                    self.run.fault(f"no websocket: {error!r}")
            if not self.run.gateway_up:
                await changed.wait()

    async def _have_socket(self, url: str, target: str) -> None:
        run, id = self.run, f"socket-{self.run.next_number()}"
        headers = [
            (b"authorization", b"Bearer " + self.key.encode()), (b"x-request-id", id.encode())
        ]  # fmt: skip
        address = url.removeprefix("http://")
        async with connect_socket(address, target, headers) as (socket, answer):
            if not isinstance(answer, AcceptConnection):
                self.refused[answer.status_code] += 1
                await trio.sleep(PAUSE)  # the load is paced
                return
            self.opened += 1
            close, number = await self._converse(socket)
        if close is None and not run.is_up(url):
            self.killed.add(id)
            if number:
                self.killed_responses.add(response_id(number))
            return
        self.ended.add(id)
        if id in self.cut_upstream:
            self.cut.add(id)
        elif close is None or close.code not in (1000, 1012):
            run.fault(f"{id}: ended by {close}")
        elif close.code == 1012:
            self.restarted += 1
            if number in self.begun:
                run.fault(f"{id}: closed 1012 within response {number}")
            elif number:
                self.asked_again += 1

    async def _converse(self, socket: Socket) -> tuple[CloseConnection | None, int]:
        """Ask again and again; return the close, and the response that was under way."""
        before: set[str] = set()
        while not self.run.stopping:
            number, deltas = self.run.next_number(), 0
            ask = {"type": "response.create", "response": {"metadata": {"number": str(number)}}}
            with suppress(trio.BrokenResourceError):  # the next event is the close, or the end
                await socket.send_text(json.dumps(ask))
            while True:
                document = await _next(socket)
                if document is not None:
                    self.sealed |= before
                if not isinstance(document, dict):
                    return document, number
                deltas += document["type"] == "response.output_text.delta"
                if document["type"] in _DONE:
                    break
            if deltas != DELTAS or document["response"]["id"] != response_id(number):
                self.run.fault(f"response {number} has {deltas} deltas, and ends by {document}")
            before = {response_id(number)}
            self.whole |= before
            with trio.move_on_after(PAUSE):  # the load is paced
                return await self._receive_close(socket, before), 0
        await socket.send(CloseConnection(1000))
        return await self._receive_close(socket, before), 0

    async def _receive_close(self, socket: Socket, before: set[str]) -> CloseConnection | None:
        close = await _next(socket)
        assert not isinstance(close, dict), close
        if close is not None:
            self.sealed |= before
        return close


async def _next(socket: Socket) -> dict[str, Any] | CloseConnection | None:
    """Return the next message; the close; or None at the end."""
    event = await socket.next_event()
    if isinstance(event, TextMessage):
        document: dict[str, Any] = json.loads(event.data)
        return document
    assert event is None or isinstance(event, CloseConnection), event
    return event
