"""Those who change the providers of a system, and those who ask its gateways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.http import Headers, UpstreamResponse, open_upstream_client
from tests.e2e.asking import Asked, ask, ready, wait_ready

GENEROUS = 60.0
"""Seconds that anything may take here: many tests share two cores."""


@attrs.frozen
class Home:
    """Where a control plane has everything, whether or not it runs."""

    folder: Path
    store_url: str
    api_port: int
    rpc_port: int

    @property
    def encryption_file(self) -> Path:
        """Holds the encryption key of the store."""
        return self.folder / "encryption.key"

    @property
    def admin_file(self) -> Path:
        """Holds an admin key, once the control plane has run."""
        return self.folder / "admin.key"

    @property
    def gateway_file(self) -> Path:
        """Holds a gateway's key, once the control plane has run."""
        return self.folder / "gateway.key"

    @property
    def client_file(self) -> Path:
        """Holds a client's key, once the control plane has run."""
        return self.folder / "client.key"

    @property
    def client_key(self) -> str:
        """The key of a known client."""
        return self.client_file.read_text().strip()

    @property
    def secrets(self) -> list[str]:
        """All that stands in the key files."""
        files = (self.encryption_file, self.admin_file, self.gateway_file, self.client_file)
        return [file.read_text().strip() for file in files if file.exists()]

    @property
    def environ(self) -> dict[str, str]:
        """Where the programs find the store: a URL with a password is no argument."""
        return {"BRIDGEPOOL_STORE": self.store_url}

    def plane_options(self) -> tuple[str, ...]:
        """Return the options of `bridgepool control-plane`."""
        return (
            *("--encryption-key-file", str(self.encryption_file)),
            *("--listen", f"127.0.0.1:{self.api_port}"),
            *("--rpc-listen", f"127.0.0.1:{self.rpc_port}"),
            *("--admin-key-file", str(self.admin_file)),
            *("--gateway-key-file", str(self.gateway_file)),
            *("--client-key-file", str(self.client_file)),
        )

    def standalone(self, *, port: int | None = None) -> tuple[str, ...]:
        """Return the options of `bridgepool gateway` that follows the control plane."""
        url = f"ws://127.0.0.1:{port or self.rpc_port}"
        return ("--control", url, "--key-file", str(self.gateway_file), "--name", "front")

    def embedded(self) -> tuple[str, ...]:
        """Return the options of `bridgepool gateway` that opens the store itself.

        Which store that is stands in the environment, as it does for the control plane.
        """
        return ("--encryption-key-file", str(self.encryption_file))

    # -- changes, by the API of the control plane

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """Make one request of the API, which has to succeed, and return what it answers."""
        key = self.admin_file.read_text().strip()
        headers: Headers = ((b"authorization", b"Bearer " + key.encode()),)
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers += ((b"content-type", b"application/json"),)
        url, target = f"http://127.0.0.1:{self.api_port}", f"/api/v1/{path}".encode()
        async with (
            open_upstream_client(url) as client,
            client.request(method.encode(), target, headers, data) as response,
        ):
            answer = await _rest(response)
            assert response.status < 300, answer
            return json.loads(answer)

    async def add(
        self, name: str, upstream: SimulatedUpstream, /, *keys: str, **fields: object
    ) -> int:
        """Add a provider of type openai; return the revision."""
        draft = {
            "name": name,
            "type": "openai",
            "base_url": upstream.openai_url,
            "keys": [{"value": key} for key in keys],
            "allow_private": True,
        }
        return int((await self.api("POST", "providers", draft | fields))["revision"])

    async def change(self, name: str, /, **fields: object) -> int:
        """Change fields of a provider; return the revision."""
        return int(
            (await self.api("PATCH", f"providers/{name}?allow_empty=true", fields))["revision"]
        )

    async def wait_applied(self, revision: int) -> list[dict[str, object]]:
        """Wait until all connected gateways have told what they made of it; return that."""
        answer = await self.api("GET", f"revisions/{revision}/applied?wait=10")
        gateways: list[dict[str, object]] = answer["gateways"]
        return gateways


@attrs.frozen
class Front:
    """A gateway, as a client of it sees it."""

    url: str
    key: str
    """Of the client."""

    async def ask(self, name: str = "ai", key: str | None = None) -> Asked:
        """Ask a provider of type openai, and wait for the whole answer."""
        return await ask(self.url, self.key if key is None else key, name)

    async def outcome(self, name: str = "ai") -> object:
        """Ask, and tell in one word who answered, or the code of the error."""
        answer = await self.ask(name)
        return answer.model.partition("@")[2] if isinstance(answer.model, str) else answer.code

    async def ready(self) -> Asked:
        """Ask whether it is ready."""
        return await ready(self.url)

    async def wait_ready(self, **fields: object) -> Asked:
        """Wait until `/readyz` says all that."""
        return await wait_ready(self.url, **fields)

    async def wait_outcome(self, outcome: object, name: str = "ai") -> float:
        """Wait until `outcome` is that; return the seconds it took from now on."""
        began, seen = trio.current_time(), None
        with trio.move_on_after(GENEROUS):
            while (seen := await self.outcome(name)) != outcome:  # noqa: ASYNC110 -- none tells
                await trio.sleep(0.01)
            return trio.current_time() - began
        raise AssertionError(f"{name} answers {seen} and not {outcome}")

    @asynccontextmanager
    async def stream(self, name: str = "ai") -> AsyncIterator[Stream]:
        """Begin a streamed answer, whose first word is here already."""
        headers = ((b"authorization", b"Bearer " + self.key.encode()),)
        target, body = f"/{name}/v1/chat/completions".encode(), b'{"model": "m", "stream": true}'
        async with (
            open_upstream_client(self.url) as client,
            client.request(b"POST", target, headers, body) as response,
        ):
            first = await response.receive_some()
            assert response.status == 200, first
            yield Stream(response, first)


@attrs.frozen
class Stream:
    """A streamed answer that is under way."""

    _response: UpstreamResponse
    _first: bytes

    async def finish(self) -> str:
        """Read it to its end, which must be a good one; return who served it."""
        with trio.fail_after(GENEROUS):
            text = (self._first + await _rest(self._response)).decode()
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events[-1] == "[DONE]", text
        chunks = [json.loads(event) for event in events[:-1]]
        words = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(words) == "".join(WORDS), text
        [identity] = {str(chunk["model"]).partition("@")[2] for chunk in chunks}
        return identity


@attrs.define(eq=False)
class Gate:
    """Holds the streamed answers of an upstream after their first words, while it is shut."""

    _opened: trio.Event = attrs.field(factory=trio.Event)

    def shut(self) -> None:
        """Hold the answers that come to their second word from now on."""
        self._opened = trio.Event()

    def open(self) -> None:
        """Let all go on."""
        self._opened.set()

    async def __call__(self, word: int) -> None:
        """Be an upstream's `before_word`."""
        if word > 0:
            await self._opened.wait()


async def slowly(_: int) -> None:
    """Be the `before_word` of an upstream whose streams take a while."""
    await trio.sleep(0.01)


def used_key(upstream: SimulatedUpstream) -> str | None:
    """Return the key with which an upstream was called last; None if it was shown none."""
    shown = upstream.received[-1].header(b"authorization")
    return shown.decode().removeprefix("Bearer ") if shown is not None else None


async def _rest(response: UpstreamResponse) -> bytes:
    pieces = []
    while piece := await response.receive_some():
        pieces.append(piece)
    return b"".join(pieces)
