"""A pool in a FastAPI application: `hypercorn --worker-class trio fastapi_pool:app`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from bridgepool import BridgePoolError, CachedBridgePool, ProviderSnapshot, open_bridge_pool

Pool = CachedBridgePool[str, str, str]


class State(TypedDict):
    """The `state` of each request."""

    pool: Pool


@asynccontextmanager
async def open_bridge(client: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    yield f"{client} by {snapshot.providers[0]}"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[State]:
    async with open_bridge_pool(open_bridge, ProviderSnapshot(["north"])) as pool:
        yield {"pool": pool}


def the_pool(request: Request) -> Pool:
    pool: Pool = request.state.pool
    return pool


async def lease(client: str, pool: Annotated[Pool, Depends(the_pool)]) -> AsyncGenerator[str]:
    async with pool.acquire(client) as bridge:  # until the answer has been sent
        yield bridge  # noqa: ASYNC119 -- the framework closes it


app = FastAPI(lifespan=lifespan)


@app.get("/ask/{client}")
async def ask(bridge: Annotated[str, Depends(lease)]) -> StreamingResponse:  # noqa: ASYNC124 -- a plain one would run in a thread
    async def answer() -> AsyncGenerator[str]:  # noqa: ASYNC124 -- a plain one would run in a thread
        for word in bridge.split():
            yield f"{word}\n"

    return StreamingResponse(answer(), media_type="text/plain")


@app.put("/providers", response_class=PlainTextResponse)
async def replace(request: Request, pool: Annotated[Pool, Depends(the_pool)]) -> str:
    names = (await request.body()).decode().split()
    return pool.replace_providers(ProviderSnapshot(names)).outcome.value


@app.get("/statistics")
async def statistics(pool: Annotated[Pool, Depends(the_pool)]) -> dict[str, object]:  # noqa: ASYNC124 -- a plain one would run in a thread
    return dict(pool.statistics().as_dict())


@app.exception_handler(BridgePoolError)
async def show(request: Request, error: BridgePoolError) -> PlainTextResponse:  # noqa: ASYNC124 -- a plain one would run in a thread
    return PlainTextResponse(type(error).__name__, error.status_hint)
