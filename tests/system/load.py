"""Requests all the time, blocking and streamed, none of which may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool.gateway.demo._upstream import WORDS
from bridgepool.http import UpstreamClient, open_upstream_client

_TARGET = b"/ai/v1/chat/completions"
_BLOCKING = b'{"model": "m"}'
_STREAMED = b'{"model": "m", "stream": true}'
_PAUSE = 0.02  # seconds; without it, those who ask leave no processor for what is tested


@attrs.define(eq=False)
class Load:
    """What came of the requests so far."""

    url: str
    key: str
    failed: list[str] = attrs.field(factory=list)
    answered: int = 0
    streamed: int = 0
    slowest: float = 0.0
    """Seconds that the slowest blocking request took."""

    async def wait_more(self, count: int) -> None:
        """Wait until so many more have ended, of each kind."""
        answered, streamed = self.answered + count, self.streamed + count
        with trio.fail_after(60):
            while self.answered < answered or self.streamed < streamed:  # noqa: ASYNC110
                await trio.sleep(0.005)

    async def run_blocking(self) -> None:
        async with open_upstream_client(self.url) as client:
            while True:
                began = trio.current_time()
                text = await self._ask(client, _BLOCKING)
                if '"model": "m@' not in text:
                    self.failed.append(text)
                self.answered += 1
                self.slowest = max(self.slowest, trio.current_time() - began)
                await trio.sleep(_PAUSE)

    async def run_streaming(self) -> None:
        async with open_upstream_client(self.url) as client:
            while True:
                text = await self._ask(client, _STREAMED)
                whole = all(f'"content": "{word}"' in text for word in WORDS)
                if not whole or "[DONE]" not in text:
                    self.failed.append(text)
                self.streamed += 1
                await trio.sleep(_PAUSE)

    async def _ask(self, client: UpstreamClient, body: bytes) -> str:
        """Return the whole answer, or what went wrong."""
        headers = ((b"authorization", b"Bearer " + self.key.encode()),)
        pieces = []
        try:
            async with client.request(b"POST", _TARGET, headers, body) as response:
                while piece := await response.receive_some():
                    pieces.append(piece)
                text = b"".join(pieces).decode()
                return text if response.status == 200 else f"{response.status}: {text}"
        except Exception as error:  # whatever it is, a client would have seen it
            return repr(error)


@asynccontextmanager
async def open_load(url: str, key: str) -> AsyncIterator[Load]:
    """Ask all the time, until the end of the block; no request may have failed by then."""
    load = Load(url, key)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(load.run_blocking)
            nursery.start_soon(load.run_streaming)
        await load.wait_more(1)  # from now on the client is known
        yield load
        await load.wait_more(3)  # what began in the block has ended
        nursery.cancel_scope.cancel()
    assert not load.failed, (len(load.failed), load.failed[:3])
