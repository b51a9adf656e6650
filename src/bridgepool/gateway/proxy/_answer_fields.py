"""Which fields of an upstream's answer reach a client, in its head and its trailers. Pure.

What is dropped speaks to one browser, to a proxy in front of a server or about a host name, decides
which web pages may read the answer, or makes a client call an address that the upstream chose: SDKs
send their gateway key along. `docs/reference/forwarding.md` lists each with its reason.
"""

from __future__ import annotations

from typing import Final

from bridgepool.gateway.providers._credentials import ACCOUNT_HEADERS
from bridgepool.gateway.providers._rate_status import RATE_HEADER_PREFIXES
from bridgepool.http import Headers, forward_response_headers, forward_trailers

_DROPPED: Final = frozenset(
    b"""
    alt-svc clear-site-data expect-ct nel origin-agent-cluster public-key-pins
    public-key-pins-report-only report-to reporting-endpoints service-worker-allowed set-cookie
    set-cookie2 set-login speculation-rules strict-transport-security

    x-lighttpd-send-file x-lighttpd-send-tempfile x-reproxy-url x-sendfile x-sendfile-type
    x-sendfile2

    azure-asyncoperation content-location link location operation-location refresh sourcemap
    x-sourcemap
    """.split()
)
_DROPPED_PREFIXES: Final[tuple[bytes, ...]] = (b"access-control-", b"x-accel-")
# About the operator's account, where the key is the operator's.
_DROPPED_CENTRAL: Final = _DROPPED | ACCOUNT_HEADERS | {b"www-authenticate"}


def answer_headers(headers: Headers, *, own_key: bool, rates: Headers = ()) -> Headers:
    """Return the fields of an upstream's head that go to the client.

    Args:
        headers: As received.
        own_key: The request was made with the client's own upstream key.
        rates: The fields with what is left of the client's limits; those of the upstream about
            limits are left out for them.
    """
    return _passing(forward_response_headers(headers), own_key, rates)


def answer_trailers(trailers: Headers, *, own_key: bool, rates: Headers = ()) -> Headers:
    """Return the trailers of an upstream that go to the client; see `answer_headers`."""
    return _passing(forward_trailers(trailers), own_key, rates) if trailers else ()


def _passing(fields: Headers, own_key: bool, rates: Headers) -> Headers:
    dropped, prefixes = _DROPPED if own_key else _DROPPED_CENTRAL, _DROPPED_PREFIXES
    if rates:
        dropped = dropped.union(dict(rates))
        # The operator's other limits beside the client's own would be taken for the client's.
        prefixes += () if own_key else RATE_HEADER_PREFIXES
    return tuple(
        [field for field in fields if field[0] not in dropped and not field[0].startswith(prefixes)]
    )
