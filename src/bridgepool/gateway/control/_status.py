"""The status of a control plane as one JSON document, for operators."""

from __future__ import annotations

from collections.abc import Mapping

from bridgepool._version import __version__
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._hub import Hub


async def status_document(hub: Hub) -> Mapping[str, object]:
    """Return what a control plane is doing, with the gateways that are known to its store.

    Without them while the store cannot be read. A checkpoint.
    """
    status = hub.status()
    document: dict[str, object] = {
        "program": "control plane",
        "version": __version__,
        "revisions": status.revisions,
        "unreadable": status.unreadable,
        "connected": status.connected,
        "read_problem": status.read_problem,
        "write_problem": status.write_problem,
        "ending": status.ending,
    }
    try:
        document["gateways"] = await hub.gateways()
    except StoreError:  # the hub logs it
        document["gateways"] = None
    return document
