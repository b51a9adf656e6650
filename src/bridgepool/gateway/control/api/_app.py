"""The HTTP API of a control plane, as an ASGI application. `docs/reference/control-api.md` tells
what it takes and answers.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from bridgepool import __version__
from bridgepool.gateway.control._hub import Hub
from bridgepool.gateway.control.api import _errors as errors
from bridgepool.gateway.control.api._bodies import field_names
from bridgepool.gateway.control.api._guard import Guard
from bridgepool.gateway.control.api._keys import client_routes, key_routes
from bridgepool.gateway.control.api._parts import QUERY_NAMES, Sources
from bridgepool.gateway.control.api._providers import provider_routes
from bridgepool.gateway.control.api._status import health_routes, status_routes
from bridgepool.gateway.control.store import Store


def make_api(store: Store, hub: Hub) -> Guard:
    """Make the application.

    Args:
        store: What it shows and changes.
        hub: What knows of the gateways.
    """
    app = FastAPI(
        title="bridgepool control plane",
        version=__version__,
        description="Providers, clients and keys; and what each gateway makes of a change.",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    sources = Sources(store, hub)
    for routes in (provider_routes, client_routes, key_routes, status_routes, health_routes):
        app.include_router(routes(sources))
    errors.install(app, field_names() | QUERY_NAMES)
    return Guard(app, store)


def _operation_id(route: APIRoute) -> str:
    return route.name
