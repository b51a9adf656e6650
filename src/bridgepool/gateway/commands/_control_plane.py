"""`bridgepool control-plane`."""

from __future__ import annotations

import os
import sys

import attrs

from bridgepool.gateway._options import ControlPlaneOptions
from bridgepool.gateway.commands._root import STORE_VARIABLE, fail
from bridgepool.gateway.serving._listening import StartError

_NO_OPTIONS = ControlPlaneOptions()


def control_plane(*, options: ControlPlaneOptions = _NO_OPTIONS) -> None:
    """Own the providers, clients and keys: an API to change them, a service for gateways.

    Prints `listening on URL` for each address of the API and `serving gateways on URL` for each
    that gateways connect to, once it serves. SIGINT or SIGTERM shuts it down; a second signal
    ends it at once. Gateways serve on meanwhile.

    Each option can also be given by an environment variable, such as
    BRIDGEPOOL_CONTROL_PLANE_DRAIN_TIMEOUT, or in the file of `--config`.
    """
    from bridgepool.gateway.control._process import serve_control_plane

    if not options.store:
        options = attrs.evolve(options, store=os.environ.get(STORE_VARIABLE, ""))
    try:
        status = serve_control_plane(options)
    except StartError as error:
        fail(str(error))
    sys.exit(status)
