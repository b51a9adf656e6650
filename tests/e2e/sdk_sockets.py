"""The OpenAI Python SDK's websockets, used from Trio: the SDK reads them in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import openai
import trio

from tests.e2e.talking import TEXT

PATIENCE = 60  # seconds


@attrs.define(eq=False)
class SdkSocket:
    """A websocket of the SDK that reconnects, as its documentation shows."""

    connection: Any
    events: trio.MemoryReceiveChannel[Any]
    closed_with: list[int]
    """The close codes after which it opened a new one."""
    realtime: bool

    async def ask(self, text: str) -> str:
        """Have one turn, and return the model that answered."""
        await trio.to_thread.run_sync(self._ask, text)
        said = ""
        with trio.fail_after(PATIENCE):
            while True:
                event = await self.events.receive()
                assert event.type != "error", event
                if event.type == "response.output_text.delta":
                    said += event.delta
                elif event.type == "response.completed":
                    assert event.response.output_text == said == TEXT
                    return str(event.response.model)
                elif event.type == "response.done":
                    assert said == TEXT
                    return str(event.response.metadata["model"])

    async def ask_in_vain(self, text: str) -> str:
        """Ask for a response that is refused, and return the code of the error."""
        await trio.to_thread.run_sync(self._ask, text)
        with trio.fail_after(PATIENCE):
            event = await self.events.receive()
        assert event.type == "error", event
        return str(event.error.code)

    def _ask(self, text: str) -> None:
        if not self.realtime:
            self.connection.response.create(model="m", input=text)
            return
        self.connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        self.connection.conversation.item.create(item=item)
        self.connection.response.create()


@asynccontextmanager
async def sdk_socket(url: str, *, realtime: bool, key: str = "any") -> AsyncIterator[SdkSocket]:
    """Open a websocket by `client.realtime.connect` or `client.responses.connect`."""
    closed_with: list[int] = []

    def reconnecting(event: Any) -> None:
        closed_with.append(event.close_code)

    with openai.OpenAI(base_url=f"{url}/ai/v1", api_key=key) as client:
        connect: Callable[..., Any] = client.responses.connect
        if realtime:
            connect = partial(client.realtime.connect, model="m")
        manager = connect(on_reconnecting=reconnecting, initial_delay=0.01)
        connection = await trio.to_thread.run_sync(manager.enter)
        send, receive = trio.open_memory_channel[Any](1000)

        def read() -> None:
            for event in connection:
                trio.from_thread.run_sync(send.send_nowait, event)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, read)
            try:
                yield SdkSocket(connection, receive, closed_with, realtime)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(connection.close)
