"""The messages of the protocol's own calls and notices; `docs/protocol.md` describes them.

Plain frozen data: every field is a text, a number, a flag, or a tuple of such. What a row holds is
left as bytes, so that one row that cannot be used costs that row and not the whole set.
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs
from msgspec import Meta, Raw

MAX_ROWS: Final = 10_000
"""The most rows in a message, and the most rejected ones."""
MAX_SERVICES: Final = 64
"""The most services that a session has."""


@attrs.frozen(kw_only=True)
class Hello:
    """A follower introduces itself; the first call of every session."""

    name: str
    """What it calls itself; what counts is who it was admitted as."""
    instance: str
    """This process of it; another after each start."""
    software: str
    """Such as ``bridgepool/0.1.0``."""
    services: Annotated[dict[str, str], Meta(max_length=MAX_SERVICES)] = attrs.field(factory=dict)
    """The services that it wants beside the rows: their names, and the version of each."""
    revision: int | None = None
    """The latest that it has seen, in any session; None if it has seen none."""
    epoch: str | None = None
    """The epoch of `revision`."""


@attrs.frozen(kw_only=True)
class Welcome:
    """The answer to `Hello`."""

    session: str
    """Names this connection in logs at both ends."""
    software: str
    protocol: str
    """The version that the owner speaks, ``major.minor``."""
    services: Annotated[dict[str, str], Meta(max_length=MAX_SERVICES)] = attrs.field(factory=dict)
    """The services of this session, and the owner's version of each."""


@attrs.frozen(kw_only=True)
class Row:
    """One provider as it is sent."""

    id: str
    """Identifies the provider; stays when other fields change."""
    name: str = ""
    """The name that people read; the id, if empty."""
    body: Raw = attrs.field(repr=False)
    """Any value: owner and follower agree on what."""


@attrs.frozen
class GetRows:
    """Ask for all rows."""

    known: int | None = None
    """`RowSet.set` of the rows that the follower has; None if it has none."""


@attrs.frozen
class RowSet:
    """All rows of one moment: answers `GetRows` and `Watch`, and is the notice ``changed``."""

    revision: int | None
    """The revision of the source; grows with every change. None if the source has none."""
    set: int
    """Which set of rows it is; another number when the rows are others. Means nothing beyond the
    session; 0 while the owner has none yet."""
    rows: Annotated[tuple[Row, ...], Meta(max_length=MAX_ROWS)] | None = None
    """None: they are not sent, since they are those that the follower knows or can ask for."""
    allow_empty: bool = False
    """If there are no rows: the source states that this is intended."""
    epoch: str | None = None
    """The history that `revision` counts in; None if the source has only one. Revisions of two
    epochs do not compare."""


@attrs.frozen
class Watch:
    """Ask for a ``changed`` with every change; answered with a `RowSet` without rows."""

    send: bool = False
    """Whether ``changed`` shall bring the rows when they are others."""


@attrs.frozen
class Cancel:
    """A notice: the answer to this call is not wanted any more. It is answered all the same."""

    id: int


@attrs.frozen
class Goodbye:
    """A notice: the sender ends the session now, and why."""

    code: str
    """A word for programs, such as ``key_revoked`` or ``shutting_down``."""
    reason: str
    """A sentence for people."""


@attrs.frozen
class RejectedRow:
    """A row that a follower could not use, and why. Its last good form stays in force."""

    name: str
    reason: str
    """Holds no value of the row."""


@attrs.frozen
class Acknowledge:
    """A receipt: the revision that the follower has in force."""

    revision: int
    rejected: Annotated[tuple[RejectedRow, ...], Meta(max_length=MAX_ROWS)] = ()
    epoch: str | None = None
    """Of the revision."""
