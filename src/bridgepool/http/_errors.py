"""What can go wrong on a connection: one small tree, each with the status a client should see.

Errors of what a peer sent are `RemoteProtocolError`s, errors of what our own side wanted to
send are `LocalProtocolError`s, and what an upstream client tells its caller is an
`UpstreamError`.
"""

# ruff: noqa: N818 - as in Trio's own tree, a name tells what happened (`WouldBlock`)

import trio

from bridgepool._errors import BridgePoolError


class HttpError(BridgePoolError):
    """The base of all errors of `bridgepool.http`."""


class RemoteProtocolError(HttpError):
    """The peer sent something that is not HTTP/1 as we take it; the connection is lost.

    The subclasses name what has a status of its own; all else is plain 400.
    """

    status_hint = 400


class BodyTooLarge(RemoteProtocolError):
    """The request's body is, or has turned out to be, larger than `max_body_bytes`."""

    status_hint = 413


class TargetTooLong(RemoteProtocolError):
    """The request target is longer than `max_target_bytes`."""

    status_hint = 414


class ExpectationFailed(RemoteProtocolError):
    """The request expects something other than `100-continue`."""

    status_hint = 417


class HeadTooLarge(RemoteProtocolError):
    """The fields of a head or trailer are larger or more than the limits allow."""

    status_hint = 431


class NotSupported(RemoteProtocolError):
    """The message uses a method or a transfer coding that we do not implement."""

    status_hint = 501


class VersionNotSupported(RemoteProtocolError):
    """The message is of a version other than HTTP/1.0 and HTTP/1.1."""

    status_hint = 505


class RequestTimeout(RemoteProtocolError, trio.TooSlowError):
    """The request, its head or the next bytes of its body, did not come in time."""

    status_hint = 408


class LocalProtocolError(HttpError):
    """Our own side asked for a message that HTTP does not allow: a bug in the caller.

    A field with a line break, more body bytes than `content-length` said, a second response.
    """

    status_hint = 500


class UpstreamError(HttpError):
    """An exchange with an upstream failed; the subclasses tell how."""

    status_hint = 502


class ConnectFailed(UpstreamError):
    """No connection could be made: name, route, refusal or TLS. Nothing was sent."""


class UpstreamProtocolError(UpstreamError):
    """The upstream answered with something that is not HTTP/1 as we take it."""


class UpstreamCut(UpstreamError, trio.BrokenResourceError):
    """The upstream closed or reset the connection before its response was complete."""


class UpstreamTimeout(UpstreamError, trio.TooSlowError):
    """The upstream did not connect, answer or go on in time."""

    status_hint = 504


class PoolFull(UpstreamError):
    """No connection became free in time: all that the limits allow are in use."""

    status_hint = 503
