"""Leave to open as many files as the connections need."""

from __future__ import annotations

import logging
import resource
from typing import Final

logger = logging.getLogger("bridgepool.gateway")

_OTHERS: Final = 100  # files that are open for anything but connections
_ENOUGH: Final = 1 << 20


def raise_open_files_limit(connections: int) -> None:
    """Raise this process's limit of open files as far as the system allows.

    The limit that processes start with (often 1,024) is for programs that use `select`.

    Args:
        connections: How many connections of clients are to be served; a warning in the log says
            so when the limit is too low for them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # a system with a limit of its own, below that
    if soft < connections + _OTHERS:
        facts = {"open_files": soft, "max_connections": connections}
        logger.warning("the limit of open files is too low for --max-connections", extra=facts)
