"""The exceptions of `bridgepool.http`, each with the status that a client should get.

Errors in what a peer sent are `RemoteProtocolError`s, errors in what the local side wanted to send
are `LocalProtocolError`s, and an upstream client raises `UpstreamError`s to its caller.
"""

# ruff: noqa: N818 - as in Trio, a name says what happened (`WouldBlock`)

import trio

from bridgepool._errors import BridgePoolError


class HttpError(BridgePoolError):
    """The base of all errors of `bridgepool.http`."""


class RemoteProtocolError(HttpError):
    """The peer sent something that is not acceptable HTTP/1; the connection cannot be used again.

    Subclasses are for errors with a status of their own; all others have status 400.
    """

    status_hint = 400


class BodyTooLarge(RemoteProtocolError):
    """The request's body is larger than `max_body_bytes`."""

    status_hint = 413


class TargetTooLong(RemoteProtocolError):
    """The request target is longer than `max_target_bytes`."""

    status_hint = 414


class ExpectationFailed(RemoteProtocolError):
    """The request expects something other than `100-continue`."""

    status_hint = 417


class HeadTooLarge(RemoteProtocolError):
    """The fields of a head or trailer section exceed `max_header_bytes` or `max_header_count`."""

    status_hint = 431


class NotSupported(RemoteProtocolError):
    """The message uses a method or a transfer coding that is not implemented."""

    status_hint = 501


class VersionNotSupported(RemoteProtocolError):
    """The message has another version than HTTP/1.0 or HTTP/1.1."""

    status_hint = 505


class RequestTimeout(RemoteProtocolError, trio.TooSlowError):
    """The head of the request, or the next bytes of its body, were not received in time."""

    status_hint = 408


class LocalProtocolError(HttpError):
    """The local side asked for a message that HTTP does not allow: a bug in the caller.

    Examples are a field with a line break, a body longer than its `content-length`, and a second
    response.
    """

    status_hint = 500


class UpstreamError(HttpError):
    """A request to an upstream failed; the subclasses say how."""

    status_hint = 502


class ConnectFailed(UpstreamError):
    """No connection could be made: name resolution, TCP or TLS failed. Nothing was sent."""


class UpstreamProtocolError(UpstreamError):
    """The upstream responded with something that is not acceptable HTTP/1."""


class UpstreamCut(UpstreamError, trio.BrokenResourceError):
    """The upstream closed or reset the connection before its response was complete."""


class UpstreamTimeout(UpstreamError, trio.TooSlowError):
    """The upstream exceeded a timeout for connecting, responding, or sending more."""

    status_hint = 504


class PoolFull(UpstreamError):
    """No connection became free in time: all `max_connections` are in use.

    `ShareExceeded` if the connections were free, or soon would be, for other tenants.
    """

    status_hint = 503


class ShareExceeded(PoolFull):
    """No connection became free in time for this tenant, which has its `tenant_share` of them."""

    status_hint = 429
