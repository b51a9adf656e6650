"""A second opinion of h11 on heads that were checked already. Pure."""

from functools import lru_cache

import h11

from bridgepool.http._errors import RemoteProtocolError
from bridgepool.http._messages import Headers, Request, ResponseHead


def check_with_h11(head: Request | ResponseHead, fields: Headers) -> None:
    """Pass a start line and these fields to h11's event class.

    Without the content-length and the target: `parse_framing` and `_heads` are as strict about
    them, they differ between messages that are otherwise alike, and a target may hold a secret,
    which is not to be remembered.

    Raises:
        RemoteProtocolError: h11 rejects them.
    """
    given = tuple([field for field in fields if field[0] != b"content-length"])
    try:
        if isinstance(head, Request):
            _accept_request(head.method, given, head.http_version)
        else:
            _accept_response(head.status, head.reason, given, head.http_version)
    except h11.LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error


# h11's classes are pure, and most heads are like one before. What they reject is not remembered.
@lru_cache(maxsize=256)
def _accept_request(method: bytes, fields: Headers, version: bytes) -> None:
    h11.Request(method=method, target=b"/", headers=list(fields), http_version=version)


@lru_cache(maxsize=256)
def _accept_response(status: int, reason: bytes, fields: Headers, version: bytes) -> None:
    kind = h11.Response if status >= 200 else h11.InformationalResponse
    kind(status_code=status, reason=reason, headers=list(fields), http_version=version)
