"""A pool in a Quart application: `hypercorn --worker-class trio quart_pool:app`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from quart import Response, request
from quart_trio import QuartTrio

from bridgepool import BridgePoolError, CachedBridgePool, ProviderSnapshot, open_bridge_pool

Pool = CachedBridgePool[str, str, str]


@asynccontextmanager
async def open_bridge(client: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    yield f"{client} by {snapshot.providers[0]}"


app = QuartTrio(__name__)


def the_pool() -> Pool:
    pool: Pool = app.extensions["pool"]
    return pool


@app.while_serving
async def hold_the_pool() -> AsyncGenerator[None, None]:
    async with open_bridge_pool(open_bridge, ProviderSnapshot(["north"])) as pool:
        app.extensions["pool"] = pool
        yield  # noqa: ASYNC119 -- the framework closes it


@app.get("/ask/<client>")
async def ask(client: str) -> Response:  # noqa: ASYNC124 -- a plain one would run in a thread
    async def answer() -> AsyncGenerator[str]:
        async with the_pool().acquire(client) as bridge:  # until all is sent: Quart closes this
            for word in bridge.split():
                yield f"{word}\n"  # noqa: ASYNC119 -- the framework closes it

    return Response(answer(), content_type="text/plain")


@app.put("/providers")
async def replace() -> str:
    names = str(await request.get_data(as_text=True)).split()
    return the_pool().replace_providers(ProviderSnapshot(names)).outcome.value


@app.get("/statistics")
async def statistics() -> dict[str, object]:  # noqa: ASYNC124 -- a plain one would run in a thread
    return dict(the_pool().statistics().as_dict())


@app.errorhandler(BridgePoolError)
async def show(error: BridgePoolError) -> tuple[str, int]:  # noqa: ASYNC124 -- a plain one would run in a thread
    return type(error).__name__, error.status_hint
