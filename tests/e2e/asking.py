"""What tests ask a gateway process, in plain HTTP."""

from __future__ import annotations

import json

import attrs
import trio

from bridgepool.http import open_upstream_client

BODY = b'{"model": "m"}'


@attrs.frozen
class Asked:
    """A whole answer."""

    status: int
    headers: dict[bytes, bytes]
    document: dict[str, object]

    @property
    def model(self) -> object:
        """Who served it: the simulated upstreams put their names there."""
        return self.document.get("model")

    @property
    def code(self) -> object:
        """The code of an error."""
        error = self.document.get("error")
        return error.get("code") if isinstance(error, dict) else None


async def ask(url: str, key: str = "any", name: str = "ai") -> Asked:
    """Ask a provider of type openai."""
    headers = ((b"authorization", b"Bearer " + key.encode()),)
    target = f"/{name}/v1/chat/completions".encode()
    return await _request(url, b"POST", target, headers, BODY)


async def ready(url: str) -> Asked:
    """Ask whether the gateway is ready."""
    return await _request(url, b"GET", b"/readyz", (), None)


async def wait_ready(url: str, **fields: object) -> Asked:
    """Wait until `/readyz` says all that."""
    with trio.fail_after(90):
        while True:
            answer = await ready(url)
            if fields.items() <= answer.document.items():
                return answer
            await trio.sleep(0.01)


async def wait_model(url: str, key: str, model: str, name: str = "ai") -> None:
    """Wait until that upstream answers."""
    with trio.fail_after(90):
        while (await ask(url, key, name)).model != model:  # noqa: ASYNC110 -- no event tells
            await trio.sleep(0.005)


async def _request(
    url: str,
    method: bytes,
    target: bytes,
    headers: tuple[tuple[bytes, bytes], ...],
    body: bytes | None,
) -> Asked:
    pieces = []
    async with (
        open_upstream_client(url) as client,
        client.request(method, target, headers, body) as response,
    ):
        while piece := await response.receive_some():
            pieces.append(piece)
        return Asked(response.status, dict(response.headers), json.loads(b"".join(pieces)))
