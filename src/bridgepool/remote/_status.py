"""The follower's connection: how it is, and how long to wait for what."""

from typing import Final

import attrs
import trio

from bridgepool._options import positive_seconds, seconds
from bridgepool.transports._errors import HandshakeRefusedError
from bridgepool.transports._handshake import Refused

# Answers with these statuses say "later", not "no"; one without a reason is not of an owner: a
# proxy before one that is not there, say.
_LATER: Final = frozenset({408, 425, 429})
_NO_REASON: Final = "unexpected_status"


@attrs.frozen(kw_only=True)
class RemoteLimits:
    """Durations of a follower, in seconds."""

    first_delay: float = attrs.field(default=0.2, validator=positive_seconds)
    """After a lost connection, before the next attempt, at most; doubled for each further one,
    and each wait is a random part of it."""
    max_delay: float = attrs.field(default=10.0, validator=positive_seconds)
    """The longest wait between two attempts."""
    steady_after: float = attrs.field(default=1.0, validator=seconds)
    """How long a session must have lasted for the waits to begin at `first_delay` again, so
    that connections which are made and cut at once do not become a storm."""
    refused_delay: float = attrs.field(default=30.0, validator=positive_seconds)
    """After a refusal, before the next attempt: this long, or up to a half less."""
    connect_timeout: float = attrs.field(default=15.0, validator=positive_seconds)
    """From the start of an attempt until the session has begun."""
    receipt_delay: float = attrs.field(default=0.06, validator=seconds)
    """Before a receipt is sent, at most; each wait is half of it and a random part of the rest. So
    that a hundred followers of one change do not answer all at once, nor while others are still
    being sent it."""


def refusal(error: HandshakeRefusedError) -> Refused | None:
    """Return what such an answer means; None when it is worth another try before long."""
    if error.status >= 500 or error.status in _LATER or error.code == _NO_REASON:
        return None
    return Refused(error.status, error.code, error.reason)


@attrs.define(eq=False)
class RemoteStatus:
    """The state of the connection to the owner. Kept up to date in place.

    Times are `trio.current_time` of its run.
    """

    connected: bool = False
    """Whether there is a session."""
    since: float = attrs.field(factory=trio.current_time)
    """When `connected` changed last."""
    ever_connected: bool = False
    """Whether there has been a session."""
    attempts: int = 0
    """Connection attempts."""
    sessions: int = 0
    """Sessions that have begun."""
    session: str | None = None
    """The current session's id, which the owner's log has, too."""
    software: str | None = None
    """What the owner runs; of the last session, if there is none."""
    protocol: str | None = None
    """The protocol version it speaks; of the last session, if there is none."""
    revision: int | None = None
    """The owner's latest that was received in the current session, or in the last one."""
    refused: Refused | None = None
    """Why the last attempt was refused; None if it was not."""
    last_error: str | None = None
    """Why there was no session, or why the last one ended; kept when there is one again. Holds
    no secrets."""
    last_error_time: float | None = None
    """When that was found."""

    def __str__(self) -> str:
        if self.connected:
            return "connected"
        if self.refused is not None:
            return f"refused ({self.refused.code}): {self.refused.reason}"
        return f"not connected: {self.last_error or 'no answer yet'}"

    def _note_session(self, session: str, software: str, protocol: str) -> None:
        self.connected = self.ever_connected = True
        self.since = trio.current_time()
        self.sessions += 1
        self.session, self.software, self.protocol = session, software, protocol
        self.refused = None

    def _note_end(self) -> None:
        self.connected = False
        self.since = trio.current_time()
        self.session = None

    def _note_error(self, problem: str, refused: Refused | None = None) -> None:
        self.refused = refused
        self.last_error = problem
        self.last_error_time = trio.current_time()
