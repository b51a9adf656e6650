"""The metrics that both programs have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool._version import __version__
from bridgepool.gateway.metrics import _declarations as names
from bridgepool.gateway.metrics._exposition import family
from bridgepool.gateway.serving._certificate import ServerCertificate


@attrs.frozen(kw_only=True)
class ProgramMetrics:
    """What both programs report of themselves."""

    program: str
    """Its name."""
    limiters: Mapping[str, ConnectionLimiter]
    """Of the connections to each of its ports, by the name of the port."""
    log_lines_dropped: Callable[[], int]
    """Returns how many lines its logs have lost."""
    certificate: ServerCertificate | None = None
    """Of its listeners."""

    def lines(self, *, ready: bool, revision: int | None) -> Iterator[str]:
        """Yield the lines for Prometheus."""
        yield from family(names.INFO, [((self.program, __version__), 1)])
        yield from family(names.READY, [((), ready)])
        if revision is not None:
            yield from family(names.REVISION, [((), revision)])
        yield from family(names.LOG_LINES_DROPPED, [((), self.log_lines_dropped())])
        limiters = self.limiters.items()
        yield from family(
            names.CONNECTIONS, (((port,), limiter.open) for port, limiter in limiters)
        )
        yield from family(
            names.CONNECTIONS_REFUSED, (((port,), limiter.refused) for port, limiter in limiters)
        )
        yield from family(
            names.HANDSHAKES_FAILED,
            (((port,), limiter.handshakes_failed) for port, limiter in limiters),
        )
        if self.certificate is not None:
            yield from family(names.CERTIFICATE_END, [((), self.certificate.end)])
