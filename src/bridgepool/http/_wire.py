"""The interface between a connection and its parser: bytes on one side, messages on the other.

A wire does no I/O and has no clock. It owns the framing in both directions: received bytes become
events, messages to be sent become bytes, and it knows whether the connection can carry another
message afterwards. Servers and clients use only these two protocols, so another parser can take the
place of h11.

Events of each message, in order: its head; any number of non-empty `bytes`, the pieces of its body
as they were received; one `EndOfMessage`. None means that more bytes are needed. After
`EndOfMessage` the next message is not read, however much of it is buffered, until `start_next` is
called.
"""

from typing import Protocol

from bridgepool.http._errors import RemoteProtocolError
from bridgepool.http._messages import EndOfMessage, Headers, Request, ResponseHead


class _Wire(Protocol):
    """The part of a wire that both roles have."""

    @property
    def buffered(self) -> int:
        """The number of bytes that were received and are not yet part of an event."""
        ...

    def receive_data(self, data: bytes) -> None:
        """Add bytes that were received from the peer; b"" is the end of its stream."""
        ...

    def send_data(self, data: bytes) -> bytes:
        """Return the bytes to send for a piece of the body; b"" if the message has no body.

        Raises:
            LocalProtocolError: The body is longer than its `content-length`.
        """
        ...

    def send_end(self, trailers: Headers = ()) -> bytes:
        """Return the bytes that end the message.

        Trailers require a chunked body; otherwise they are dropped.

        Raises:
            LocalProtocolError: The body is shorter than its `content-length`, or a trailer is
                invalid.
        """
        ...

    def take_rest(self, most: int) -> bytes:
        """Return up to `most` bytes that were received after a switch of protocols; b"" if none."""
        ...

    def start_next(self) -> None:
        """Prepare for the next request; only when both messages are complete."""
        ...


class ServerWire(_Wire, Protocol):
    """The server's end of one connection."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow, as far as is known."""
        ...

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 (Continue) before it sends the body.

        True from the head of such a request until `send_interim` or the first byte of the body.
        """
        ...

    @property
    def body_error(self) -> RemoteProtocolError | None:
        """The error that reading the current request's body raises, if its head says so already.

        The request itself can be answered: what is wrong with it may matter more than its body.
        """
        ...

    @property
    def received_head(self) -> bytes:
        """What was received, so far, of the head that `next_event` is to return, or rejected."""
        ...

    @property
    def framed_by_close(self) -> bool:
        """Whether the response ends with the connection."""
        ...

    @property
    def body_sent(self) -> bool:
        """Whether `send_data` got all of the response's body, and `send_end` has no bytes."""
        ...

    def next_event(self) -> Request | bytes | EndOfMessage | None:
        """Return the next event, or None until more bytes are received.

        Raises:
            RemoteProtocolError: An unacceptable message was received; `status_hint` is the status
                to respond with. All events before it were returned. Later calls raise it again.
        """
        ...

    def take_end(self) -> EndOfMessage | None:
        """Return the `EndOfMessage` if it is certain to be the next event, else None.

        With a content-length the end is known together with the last piece of the body, and without
        a body together with the head. Calling this saves the caller one wait.
        """
        ...

    def send_interim(self, status: int, headers: Headers = ()) -> bytes:
        """Return the bytes of a 1xx response; b"" for an HTTP/1.0 client."""
        ...

    def send_upgrade(self, headers: Headers) -> bytes:
        """Return the bytes of the response 101; `connection` is added. HTTP ends with them.

        Raises:
            LocalProtocolError: There is no request of HTTP/1.1, or it was responded to.
        """
        ...

    def send_head(
        self, status: int, headers: Headers, *, reason: bytes = b"", close: bool = False
    ) -> bytes:
        """Return the bytes of the final response's head, and determine its body's framing.

        With `content-length` among the headers the body has that length. Otherwise it is chunked,
        or ends with the connection for an HTTP/1.0 client. The wire writes the fields about framing
        and connection itself: `transfer-encoding` is rejected, and `connection` can only be
        `close`. `close` ends the connection after this message.

        Raises:
            LocalProtocolError: This is not a final response, or a field is invalid.
        """
        ...


class ClientWire(_Wire, Protocol):
    """The client's end of one connection."""

    @property
    def fault(self) -> str:
        """What was wrong with the head of a response that was accepted; empty if nothing was."""
        ...

    @property
    def reusable(self) -> bool:
        """Whether both messages are complete and another request may follow."""
        ...

    def send_head(self, request: Request, *, body: bool, upgrade: bytes = b"") -> bytes:
        """Return the bytes of a request's head, and determine its body's framing.

        With `content-length` among the headers the body has that length; otherwise a body is
        chunked. `transfer-encoding` is rejected, and `connection` can only be `close` or `te`.

        Args:
            request: The request, with its target as it is to be sent.
            body: Whether `send_data` may follow. If not, `content-length` must be 0 or missing.
            upgrade: The protocol to switch to. The head of a response 101 is then the last event.

        Raises:
            LocalProtocolError: The request is invalid.
        """
        ...

    def next_event(self) -> ResponseHead | bytes | EndOfMessage | None:
        """Return the next event, or None until more bytes are received.

        Interim responses are heads of their own before the final one. The response may begin, and
        end, before the request was sent completely.

        Raises:
            RemoteProtocolError: The response is unacceptable, or the connection ended before it
                was complete. All events before that were returned.
        """
        ...
