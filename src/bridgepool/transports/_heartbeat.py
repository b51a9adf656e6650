"""When to ask a peer whether it is there, and when to give it up. Pure: told the time.

Theory of operation. Whether the network and the other machine are there, the kernels ask (see
`_keepalive`). What remains is a process that is frozen on a machine that is well, and a proxy that
keeps a connection whose other half is gone. Both are found by a ping: to a **silent** peer after
`heartbeat_interval`, and, from a client, to a peer in **doubt**: one that has said nothing since
it was sent a message, for half of `heartbeat_timeout`. Any byte is an answer. A peer that was
asked, and has said nothing for `heartbeat_timeout` since the first thing that wanted an answer was
written, is given up. While something cannot be written, others tell a slow peer from a stalled one.

A server does not doubt: its last word in an exchange is often an answer, which gets none, and it
would ask all its clients anew after each change.
"""

import enum
from math import inf

import attrs

from bridgepool._backoff import shorten
from bridgepool.transports._handshake import WebSocketLimits


class Due(enum.Enum):
    """What is to be done for a connection now."""

    NOTHING = enum.auto()
    ASK = enum.auto()
    GIVE_UP = enum.auto()


@attrs.define(eq=False)
class Heartbeat:
    """What is known of a peer's being there; asks nothing until `begin`."""

    # when the last bytes came in
    heard: float
    # of silence
    ask_after: float = inf
    # of silence that began with a message to the peer
    doubt_after: float = inf
    give_up_after: float = inf
    # when the first thing was written that wants an answer, after the last bytes came in
    waits_since: float = inf
    asked: bool = False

    def begin(self, limits: WebSocketLimits, *, is_server: bool) -> None:
        """Messages are exchanged from now on.

        Clients ask first, so that a connection needs one question at a time, not two. At random
        within bounds: what connected together shall not ask together.
        """
        interval = limits.heartbeat_interval
        self.ask_after = shorten(1.2 * interval, 0.08) if is_server else shorten(interval, 0.2)
        self.doubt_after = inf if is_server else limits.heartbeat_timeout / 2
        self.give_up_after = limits.heartbeat_timeout

    def hear(self, now: float) -> None:
        """Bytes came in."""
        self.heard = now
        self.waits_since = inf
        self.asked = False

    def note_message(self, now: float) -> None:
        """A message was written."""
        if self.doubt_after < inf and self.waits_since == inf:
            self.waits_since = now

    def note_question(self, now: float) -> None:
        """The question was written; perhaps late, when it is answered already."""
        if self.asked and self.waits_since == inf:
            self.waits_since = now

    def look(self, now: float) -> Due:
        """Return what is due; when that is to ask, it counts as asked."""
        waited = now - self.waits_since
        if self.asked:
            return Due.GIVE_UP if waited >= self.give_up_after else Due.NOTHING
        if now - self.heard < self.ask_after and waited < self.doubt_after:
            return Due.NOTHING
        self.asked = True
        return Due.ASK
