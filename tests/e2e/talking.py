"""A simulated upstream that speaks the websockets of OpenAI's APIs, beside plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import attrs
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Ping, TextMessage

from bridgepool.gateway.demo._upstream import WORDS, Json, SimulatedUpstream
from bridgepool.http import Exchange, get_header, serve_http, websocket_accept

TEXT = "".join(WORDS)


async def _at_once() -> None:
    await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class TalkingUpstream:
    """One upstream; each of its responses is of the model `<requested model>@<identity>`."""

    plain: SimulatedUpstream
    """What answers the requests that are no websockets."""
    asked: list[tuple[int, Json]] = attrs.field(factory=list)
    """Each `response.create` so far, with the number of its websocket, from 1."""
    offered: list[bytes] = attrs.field(factory=list)
    """What the websockets offered in Sec-WebSocket-Protocol."""
    sockets: int = 0
    """Websockets so far."""
    before_words: Callable[[], Awaitable[None]] = _at_once
    """Called once in each response, before its words."""

    @property
    def openai_url(self) -> str:
        """The base URL for a provider of type `openai`."""
        return self.plain.openai_url

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request, or one websocket."""
        headers = exchange.request.headers
        key = get_header(headers, b"sec-websocket-key")
        if key is None:
            await self.plain.handle(exchange)
            return
        offered = get_header(headers, b"sec-websocket-protocol")
        chosen = () if offered is None else ((b"sec-websocket-protocol", offered.split(b",")[0]),)
        accepted = ((b"upgrade", b"websocket"), (b"sec-websocket-accept", websocket_accept(key)))
        stream = await exchange.upgrade((*accepted, *chosen))
        self.offered.append(offered or b"")
        self.sockets += 1
        path, _, query = exchange.request.target.decode().partition("?")
        realtime = path.endswith("/realtime")
        model = query.removeprefix("model=") if realtime else ""
        await self._talk(stream, self.sockets, model, realtime=realtime)

    async def _talk(
        self, stream: trio.abc.Stream, number: int, model: str, *, realtime: bool
    ) -> None:
        connection = Connection(ConnectionType.SERVER)

        async def send(*events: Event) -> None:
            await stream.send_all(b"".join(connection.send(event) for event in events))

        async def tell(document: Json) -> None:
            await send(TextMessage(json.dumps({"event_id": "event_demo", **document})))

        if realtime:
            await tell({"type": "session.created", "session": {"type": "realtime", "model": model}})
        text = ""
        while data := await stream.receive_some():
            connection.receive_data(bytes(data))
            for event in connection.events():
                if isinstance(event, Ping | CloseConnection):
                    await send(event.response())
                    if isinstance(event, CloseConnection):
                        return
                elif isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        asked, text = json.loads(text), ""
                        await self._answer(asked, number, model, tell, realtime=realtime)

    async def _answer(
        self,
        asked: Json,
        number: int,
        model: str,
        tell: Callable[[Json], Awaitable[None]],
        *,
        realtime: bool,
    ) -> None:
        if asked["type"] == "session.update":
            await tell({"type": "session.updated", "session": asked["session"]})
        elif asked["type"] == "conversation.item.create":
            await tell({"type": "conversation.item.added", "item": asked["item"]})
        elif asked["type"] == "response.create":
            self.asked.append((number, asked))
            stamp = f"{asked.get('model', model)}@{self.plain.identity}"
            events = _realtime_events if realtime else _response_events
            for place, event in enumerate(events(f"resp_{len(self.asked)}", stamp)):
                if place == 1:
                    await self.before_words()
                await tell({**event, "sequence_number": place})
        else:
            error = {"type": "invalid_request_error", "message": f"no {asked['type']} here"}
            await tell({"type": "error", "error": error})


def _message(kind: str, status: str) -> Json:
    content = [{"type": kind, "text": TEXT, "annotations": []}] if status == "completed" else []
    role = {"role": "assistant", "status": status, "content": content}
    return {"id": "msg_demo", "type": "message", **role}


def _response(name: str, stamp: str, status: str, **fields: object) -> Json:
    head = {"id": name, "object": "response", "created_at": 0, "model": stamp, "status": status}
    tools = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return {**head, **tools, "output": [], "usage": None, **fields}


def _response_events(name: str, stamp: str) -> Iterator[Json]:
    """The events of the Responses API: those that clients need."""
    yield {"type": "response.created", "response": _response(name, stamp, "in_progress")}
    place: Json = {"item_id": "msg_demo", "output_index": 0, "content_index": 0}
    item = _message("output_text", "in_progress")
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    for word in WORDS:
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    item = _message("output_text", "completed")
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    usage: Json = {"input_tokens": 1, "output_tokens": len(WORDS), "total_tokens": 8}
    usage |= {"input_tokens_details": {"cached_tokens": 0}}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
    whole = _response(name, stamp, "completed", output=[item], usage=usage)
    yield {"type": "response.completed", "response": whole}


def _realtime_events(name: str, stamp: str) -> Iterator[Json]:
    """The events of the Realtime API, which ends by `response.done` and names no model there."""
    start = {"id": name, "object": "realtime.response", "status": "in_progress", "output": []}
    yield {"type": "response.created", "response": start}
    place: Json = {"response_id": name, "item_id": "msg_demo", "output_index": 0}
    for word in WORDS:
        yield {"type": "response.output_text.delta", **place, "content_index": 0, "delta": word}
    usage = {"input_tokens": 1, "output_tokens": len(WORDS), "total_tokens": 8}
    item = _message("output_text", "completed")
    metadata = {"model": stamp}  # for tests to know who answered
    whole = {**start, "status": "completed", "output": [item], "usage": usage}
    yield {"type": "response.done", "response": {**whole, "metadata": metadata}}


async def serve_talking_upstream(
    identity: str, *, task_status: trio.TaskStatus[TalkingUpstream] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve one on loopback until it is cancelled; `nursery.start` returns it."""
    upstream = TalkingUpstream(SimulatedUpstream(identity))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream.plain.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    task_status.started(upstream)
    await serve_http(upstream.handle, listeners)


async def start_talking_upstream(nursery: trio.Nursery, identity: str) -> TalkingUpstream:
    """Serve one in a nursery."""
    upstream: TalkingUpstream = await nursery.start(partial(serve_talking_upstream, identity))
    return upstream
