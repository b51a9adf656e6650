"""How many connections a program accepts, as its options and its open files allow."""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence
from typing import Final

from bridgepool._connection_limiter import LOOPBACK, ConnectionLimiter
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._peer import parse_networks

UNAUTHENTICATED_TIMEOUT: Final = 15.0  # seconds that a connection lives without a valid key
_DEFAULT: Final = 10_000  # connections
# Files that are open for anything but connections: logs, databases, connections over the limits,
# and those that were just accepted.
_OTHER_FILES: Final = 500
_FILES_PER_CONNECTION: Final = 2  # a request of a client has one to its upstream, too
_MAX_OPEN_FILES: Final = 1 << 20


def check_connection_options(
    max_connections: int | None, max_per_peer: int | None, trusted_proxies: Sequence[str]
) -> None:
    """Check the options of `make_limiter`.

    Raises:
        StartError: One cannot be used; the text names it.
    """
    if max_connections is not None and max_connections < 1:
        raise StartError("--max-connections must be at least 1")
    if max_per_peer is not None and max_per_peer < 1:
        raise StartError("--max-connections-per-peer must be at least 1")
    for text in trusted_proxies:
        try:
            parse_networks([text])
        except ValueError:
            raise StartError(
                f"--trusted-proxy {text}: is not an address, or a network such as 10.0.0.0/8"
            ) from None


def make_limiter(
    logger: logging.Logger,
    max_connections: int | None,
    max_per_peer: int | None,
    trusted_proxies: Sequence[str],
) -> ConnectionLimiter:
    """Return the limiter of a program's connections; raise its limit of open files.

    Args:
        logger: Gets a warning if the limit of open files is too low for the option.
        max_connections: The option; None for 10,000. The limit of open files can make it less.
        max_per_peer: The option; None for a quarter of the connections.
        trusted_proxies: Networks whose addresses have no limit of their own.
    """
    limit = _within_open_files(logger, max_connections)
    return ConnectionLimiter(
        max_connections=limit,
        max_per_peer=max_per_peer or max(1, limit // 4),
        unlimited_peers=LOOPBACK + parse_networks(trusted_proxies),
    )


def raise_open_files_limit() -> float:
    """Raise the open-file limit as far as the system allows; return it.

    The default limit (often 1,024) is meant for programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return float("inf")
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # the system has a lower limit of its own
    return soft


def _within_open_files(logger: logging.Logger, option: int | None) -> int:
    """Return how many connections the process can have files for, at most those of the option."""
    wanted = _DEFAULT if option is None else option
    files = raise_open_files_limit()
    possible = max((files - _OTHER_FILES) / _FILES_PER_CONNECTION, files / 8, 1)
    if possible >= wanted:
        return wanted
    logger.log(
        logging.INFO if option is None else logging.WARNING,
        "open-file limit too low for --max-connections",
        extra={"open_files": files, "max_connections": wanted, "accepted": int(possible)},
    )
    return int(possible)
