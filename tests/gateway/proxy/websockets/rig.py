"""A client with rules, and an upstream that answers with responses, on websockets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
from wsproto.events import AcceptConnection, RejectConnection, Request, TextMessage

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.providers import (
    Client,
    ClientRules,
    hash_key,
    new_client_key,
)
from bridgepool.http import Headers
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream

KEY = new_client_key()
BEARER = [(b"authorization", b"Bearer " + KEY.reveal().encode())]
RESPONSES, REALTIME = "/ai/v1/responses", "/ai/v1/realtime"
TOKENS = 40  # that each response of the upstream uses
SETTINGS = GatewaySettings(min_reload_interval=0.001)


def create(model: str | None = "gpt-5", **fields: Any) -> str:
    named = {} if model is None else {"model": model}
    return json.dumps({"type": "response.create", **named, **fields})


def response(kind: str, number: int, status: str | None, **fields: Any) -> str:
    told = {} if status is None else {"status": status}
    document = {"id": f"resp_{number}", **told, **fields}
    return json.dumps({"type": kind, "response": document})


@attrs.define(eq=False)
class Upstream:
    """Answers each `response.create` with a response; remembers all messages."""

    got: list[str | bytes] = attrs.field(factory=list)
    hold: trio.Event | None = None  # before the end of a response
    fails: bool = False
    error: str = '{"type": "error", "status": 400, "error": {}}'
    in_frames: bool = False  # errors come in two frames
    mute: bool = False  # it answers nothing
    unasked: bool = False  # it begins a response after any message
    tells_status: bool = True

    _arrived: trio.Event = attrs.field(factory=trio.Event)

    async def wait_messages(self, count: int) -> None:
        """Wait until so many messages have come."""
        with trio.fail_after(60):
            while len(self.got) < count:
                await self._arrived.wait()

    async def serve(self, socket: Socket, request: Request) -> None:
        number, realtime = 0, "/realtime" in request.target
        with suppress(AssertionError):  # it is closed
            while True:
                message = await socket.receive()
                self.got.append(message)
                self._arrived.set()
                self._arrived = trio.Event()
                if self.mute:
                    continue
                if not self.unasked and "create" not in str(message):
                    continue
                if self.fails:
                    half = len(self.error) // 2 if self.in_frames else 0
                    if half:
                        await socket.send(TextMessage(self.error[:half], message_finished=False))
                    await socket.send_text(self.error[half:])
                    continue
                number += 1
                named = re.search('"model": "([^"]*)"', str(message))
                # The Realtime API names no model there.
                model = {} if realtime else {"model": named[1] if named else "gpt-5"}
                begun = response("response.created", number, "in_progress", **model)
                await socket.send_text(begun)
                if self.hold is not None:
                    await self.hold.wait()
                usage = {"input_tokens": TOKENS - 10, "output_tokens": 10}
                status = "completed" if self.tells_status else None
                done = response("response.completed", number, status, usage=usage, **model)
                await socket.send_text(done)


@attrs.define(eq=False)
class Opened:
    rig: Rig
    upstream: Upstream

    def rules(self, **rules: Any) -> None:
        client = Client(id="ada", key_hashes=(hash_key(KEY),), rules=ClientRules(**rules))
        self.rig.set_clients(client)

    async def refusal(self, target: str = RESPONSES) -> tuple[int, str]:
        """Open a websocket that is refused; return status and code."""
        async with connect_socket(self.rig.address, target, BEARER) as (socket, answer):
            assert isinstance(answer, RejectConnection), answer
            body = b""
            while not answer.has_body or (event := await socket.next_event()):
                if not answer.has_body:
                    break
                body += bytes(event.data)  # type: ignore[union-attr]
                if event.body_finished:  # type: ignore[union-attr]
                    break
            return answer.status_code, json.loads(body)["error"]["code"]


@asynccontextmanager
async def opened(
    nursery: trio.Nursery, settings: GatewaySettings = SETTINGS, **fields: Any
) -> AsyncIterator[Opened]:
    upstream = Upstream()
    north = await start_upstream(nursery, upstream.serve)
    async with open_rig(openai(north.url, **fields), nursery=nursery, settings=settings) as rig:
        yield Opened(rig, upstream)


@asynccontextmanager
async def connected(
    opened: Opened, target: str = RESPONSES, headers: Headers = ()
) -> AsyncIterator[Socket]:
    sent = [*BEARER, *headers]
    async with connect_socket(opened.rig.address, target, sent) as (socket, answer):
        assert isinstance(answer, AcceptConnection), answer
        yield socket


async def events(socket: Socket, count: int) -> list[str]:
    """Return the types of the next messages, of errors their codes."""
    found = []
    for _ in range(count):
        message = json.loads(await socket.receive())
        found.append(message.get("code") or message["type"])
    return found


SERVED = ["response.created", "response.completed"]
