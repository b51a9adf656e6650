"""When to ping a peer, and when to consider it dead. Pure: time is an argument.

Theory of operation. The kernels check the network and the other machine (see `_watched_stream`).
That leaves a process that is frozen on a working machine, and a proxy that keeps a connection whose
other half is gone. A ping finds both: after `heartbeat_interval` of silence, and, from a client,
when the peer has sent nothing for half of `heartbeat_timeout` since it was sent a message. Any byte
is an answer. A peer is dead when nothing comes for `heartbeat_timeout` after the first write that
wants an answer. Slow and stalled peers are told apart elsewhere, while a write is under way.

A server pings only after silence: the last message of an exchange is often its response, and it
would ping all its clients after each change.
"""

import enum
from math import inf

import attrs

from bridgepool._backoff import shorten
from bridgepool.transports._handshake import WebSocketLimits


class Due(enum.Enum):
    """What to do for a connection now."""

    NOTHING = enum.auto()
    PING = enum.auto()
    BREAK = enum.auto()


@attrs.define(eq=False)
class Heartbeat:
    """What is known of a peer; nothing is due until `begin`."""

    # when the last bytes came in
    received_at: float
    # seconds of silence before a ping
    ping_after: float = inf
    # the same, of a silence that began with a message to the peer
    ping_after_message: float = inf
    break_after: float = inf
    # when the first thing that wants an answer was written, after the last bytes came in
    waiting_since: float = inf
    has_pinged: bool = False

    def begin(self, limits: WebSocketLimits, *, is_server: bool) -> None:
        """Begin to look: the handshake is complete.

        Clients ping first, so that a connection needs one ping at a time, not two. The interval is
        shortened at random, so that peers that connected together do not ping together.
        """
        interval = limits.heartbeat_interval
        self.ping_after = shorten(1.2 * interval, 0.08) if is_server else shorten(interval, 0.2)
        self.ping_after_message = inf if is_server else limits.heartbeat_timeout / 2
        self.break_after = limits.heartbeat_timeout

    def note_received(self, now: float) -> None:
        """Note that bytes came in."""
        self.received_at = now
        self.waiting_since = inf
        self.has_pinged = False

    def note_message_written(self, now: float) -> None:
        """Note that a message was written."""
        if self.ping_after_message < inf and self.waiting_since == inf:
            self.waiting_since = now

    def note_ping_written(self, now: float) -> None:
        """Note that the ping was written; it may have been answered meanwhile."""
        if self.has_pinged and self.waiting_since == inf:
            self.waiting_since = now

    def next_step(self, now: float) -> Due:
        """Return what is due; a ping counts as sent then."""
        waited = now - self.waiting_since
        if self.has_pinged:
            return Due.BREAK if waited >= self.break_after else Due.NOTHING
        if now - self.received_at < self.ping_after and waited < self.ping_after_message:
            return Due.NOTHING
        self.has_pinged = True
        return Due.PING
