"""A pool in a Starlette application: `hypercorn --worker-class trio starlette_pool:app`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridgepool import BridgePoolError, CachedBridgePool, ProviderSnapshot, open_bridge_pool

Pool = CachedBridgePool[str, str, str]


class State(TypedDict):
    """The `state` of each request."""

    pool: Pool


@asynccontextmanager
async def open_bridge(client: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    yield f"{client} by {snapshot.providers[0]}"


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[State]:
    async with open_bridge_pool(open_bridge, ProviderSnapshot(["north"])) as pool:
        yield {"pool": pool}


async def ask(request: Request) -> ASGIApp:  # noqa: ASYNC124 -- a plain one would run in a thread
    pool: Pool = request.state.pool

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async with pool.acquire(request.path_params["client"]) as bridge:  # until all is sent
            words = (f"{word}\n" for word in bridge.split())
            await StreamingResponse(words, media_type="text/plain")(scope, receive, send)

    return respond


async def replace(request: Request) -> PlainTextResponse:
    pool: Pool = request.state.pool
    names = (await request.body()).decode().split()
    return PlainTextResponse(pool.replace_providers(ProviderSnapshot(names)).outcome.value)


async def statistics(request: Request) -> JSONResponse:  # noqa: ASYNC124 -- a plain one would run in a thread
    pool: Pool = request.state.pool
    return JSONResponse(pool.statistics().as_dict())


async def show(request: Request, error: Exception) -> PlainTextResponse:  # noqa: ASYNC124 -- a plain one would run in a thread
    status = error.status_hint if isinstance(error, BridgePoolError) else 500
    return PlainTextResponse(type(error).__name__, status)


routes = [
    Route("/ask/{client}", ask),
    Route("/providers", replace, methods=["PUT"]),
    Route("/statistics", statistics),
]
app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={BridgePoolError: show})
