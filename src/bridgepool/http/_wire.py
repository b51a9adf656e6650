"""The seam between a connection and its parser: bytes on one side, messages on the other.

A wire does no I/O and knows no clock. It owns the framing in both directions: what it was
fed comes out as events, what is to be sent comes out as bytes, and it alone knows whether
the connection can carry another message afterwards. Everything above is written against
these two protocols, so that another parser can take the place of h11.

Events, in the order of each message: its head; any number of non-empty `bytes`, pieces of
its body as they arrived; one `EndOfMessage`. None means that more bytes are needed. After
`EndOfMessage` the next message stays unread, however much of it has come in, until
`start_next` is called.
"""

from typing import Protocol

from bridgepool.http._messages import EndOfMessage, Headers, Request, ResponseHead


class _Receiving(Protocol):
    """What both roles have in common: the receiving side's buffer."""

    @property
    def buffered(self) -> int:
        """How many bytes were received and are not yet part of an event."""
        ...

    def receive_data(self, data: bytes) -> None:
        """Take in what was read from the peer; b"" is the end of its stream."""
        ...


class ServerWire(_Receiving, Protocol):
    """A server's end of one connection."""

    @property
    def keep_alive(self) -> bool:
        """Whether, as far as is known by now, another request may follow."""
        ...

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 (Continue) before it sends the body.

        True from such a request's head until `send_interim` or a byte of the body.
        """
        ...

    @property
    def framed_by_close(self) -> bool:
        """Whether the end of the response is the end of the connection."""
        ...

    def next_event(self) -> Request | bytes | EndOfMessage | None:
        """Return the next event, or None until more bytes come.

        Raises:
            RemoteProtocolError: What was received is not a message that we take, now or ever
                after; its `status_hint` says how to answer. What came before was returned.
        """
        ...

    def take_end(self) -> EndOfMessage | None:
        """Return the `EndOfMessage` if it is sure to be the next event, else None.

        With a length told in front it is known together with the last piece of the body, and
        without a body from the start; who asks is spared a turn.
        """
        ...

    def send_interim(self, status: int, headers: Headers = ()) -> bytes:
        """Return the bytes of a 1xx response; b"" to a client of HTTP/1.0."""
        ...

    def send_head(
        self, status: int, headers: Headers, *, reason: bytes = b"", close: bool = False
    ) -> bytes:
        """Return the bytes of the final response's head, and fix its body's framing.

        `content-length` among the headers fixes the body's length; otherwise it is chunked,
        or ended by the end of the connection for a client of HTTP/1.0. Fields about the
        framing and the connection are written by the wire: `transfer-encoding` is refused,
        of `connection` only `close` is taken. `close` ends the connection after this message.

        Raises:
            LocalProtocolError: This is no final response, or a field is not fit to be sent.
        """
        ...

    def send_data(self, data: bytes) -> bytes:
        """Return the bytes that carry this piece of the body; b"" where there is no body.

        Raises:
            LocalProtocolError: It is more than `content-length` promised.
        """
        ...

    def send_end(self, trailers: Headers = ()) -> bytes:
        """Return the bytes that end the message; trailers need chunked framing, else go lost.

        Raises:
            LocalProtocolError: It is less than `content-length` promised, or a trailer is not
                fit to be sent.
        """
        ...

    def start_next(self) -> None:
        """Get ready for the next request; only when both messages are complete."""
        ...


class ClientWire(_Receiving, Protocol):
    """A client's end of one connection."""

    @property
    def reusable(self) -> bool:
        """Whether both messages are complete and another request may follow."""
        ...

    @property
    def framed_by_close(self) -> bool:
        """Whether the end of the body being received is the end of the connection."""
        ...

    def send_head(self, request: Request, *, body: bool) -> bytes:
        """Return the bytes of a request's head, and fix its body's framing.

        `content-length` among the headers fixes the body's length; without it, a request
        with a body is chunked. `transfer-encoding` is refused, as is `connection` but for
        `close`.

        Args:
            request: Its target as it is to be written.
            body: Whether `send_data` may follow; without, `content-length` can only be 0.

        Raises:
            LocalProtocolError: A part is not fit to be sent.
        """
        ...

    def send_data(self, data: bytes) -> bytes:
        """Return the bytes that carry this piece of the body.

        Raises:
            LocalProtocolError: It is more than `content-length` promised.
        """
        ...

    def send_end(self, trailers: Headers = ()) -> bytes:
        """Return the bytes that end the request; trailers need chunked framing, else go lost.

        Raises:
            LocalProtocolError: It is less than `content-length` promised, or a trailer is not
                fit to be sent.
        """
        ...

    def next_event(self) -> ResponseHead | bytes | EndOfMessage | None:
        """Return the next event, or None until more bytes come.

        Interim responses come as heads of their own before the final one. The response may
        come, and end, before the request was sent completely.

        Raises:
            RemoteProtocolError: What was received is not a response that we take, or ended in
                the middle. What came before was returned.
        """
        ...

    def start_next(self) -> None:
        """Get ready for the next request; only while `reusable`."""
        ...
