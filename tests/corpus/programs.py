"""The programs that get the corpus, each on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bridgepool.gateway import GatewaySettings
from bridgepool.http import UpstreamLimits, open_upstream_client
from tests.corpus.requests import PATH
from tests.corpus.upstreams import UPSTREAMS, OpenUpstream, Upstream, tokens_in
from tests.gateway.control.planes import open_plane
from tests.gateway.proxy.rig import Rig, open_rig, openai

# One connection to the upstream, which all exchanges share wherever it is kept.
SETTINGS = GatewaySettings(
    allow_anonymous=True,
    min_reload_interval=0.001,
    upstream_limits=UpstreamLimits(max_connections=1, expect_timeout=0.05),
)


@attrs.frozen
class Program:
    """A running program."""

    address: str
    upstream: Upstream | None
    """What is behind it, if it forwards."""
    check: Callable[[bytes], Awaitable[None]]
    """Makes a good exchange of another client with this token, and checks all of its bytes."""
    path: bytes = PATH
    """What stands for the path of the corpus."""


@asynccontextmanager
async def open_gateway_program(open_upstream: OpenUpstream, _: Path) -> AsyncIterator[Program]:
    """Open a gateway in front of an upstream."""
    async with trio.open_nursery() as nursery:
        async with (
            open_upstream() as upstream,
            open_rig(openai(upstream.url), nursery=nursery, settings=SETTINGS) as rig,
        ):
            yield Program(rig.address, upstream, partial(check_gateway, rig, upstream))
        nursery.cancel_scope.cancel()


async def check_gateway(rig: Rig, upstream: Upstream, mark: bytes) -> None:
    """Check a POST and a GET of another client."""
    path = PATH.decode()
    for target, body in ((path, b'{"x": "' + mark + b'"}'), (path + "/x", None)):
        answer = await rig.ask(target, body, ((b"x-case", mark),))
        assert answer.status == 200, answer
        assert answer.headers[b"x-seen"] == mark, answer
        assert tokens_in(answer.body) == {mark}, answer
    assert len(upstream.of(mark)) == 2


@asynccontextmanager
async def open_api_program(folder: Path) -> AsyncIterator[Program]:
    """Open the API of a control plane."""
    async with open_plane(f"sqlite:{folder / 'store.db'}") as plane:
        address = plane.url.removeprefix("http://")
        async with open_upstream_client(plane.url) as client:

            async def check(mark: bytes) -> None:
                async with client.request(b"GET", b"/healthz", ((b"x-case", mark),)) as response:
                    assert response.status == 200

            yield Program(address, None, check, b"/api/v1/providers")


PROGRAMS: dict[str, Callable[[Path], AbstractAsyncContextManager[Program]]] = {
    f"gateway, {name} upstream": partial(open_gateway_program, open_upstream)
    for name, open_upstream in UPSTREAMS.items()
} | {"control plane": open_api_program}
