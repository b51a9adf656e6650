"""The rule for protocol versions. Pure.

A version is ``major.minor``. A server serves its own major version with every minor version up
to its own; anything else it refuses with a reason. So an owner is upgraded before its followers,
and nothing has to be upgraded in the same minute.
"""

import re
from typing import Final

import attrs

from bridgepool.transports._handshake import Refused

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


@attrs.frozen(order=True)
class ProtocolVersion:
    """A version of the protocol."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def serves(self, asked: "ProtocolVersion") -> bool:
        """Return whether a server of this version serves a follower of another version."""
        return asked.major == self.major and asked.minor <= self.minor


PROTOCOL: Final = ProtocolVersion(1, 0)
"""What this release speaks, at both ends."""


def parse_version(text: str) -> ProtocolVersion:
    """Read ``major.minor``.

    Raises:
        ValueError: It is something else.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError("is not major.minor")
    return ProtocolVersion(int(match[1]), int(match[2]))


def check_version(
    text: str | None,
    own: ProtocolVersion = PROTOCOL,
    *,
    owner: str = "owner",
    follower: str = "follower",
) -> ProtocolVersion | Refused:
    """Return the version that a follower asks for, or why it is refused.

    Args:
        text: The value of ``version`` in the query; None when there is none.
        own: The version of this owner.
        owner: What the reason calls this end.
        follower: What it calls the other.
    """
    try:
        asked = parse_version(text or "")
    except ValueError:
        return Refused(
            400, "version_malformed", f"give the protocol version in the query: ?version={own}"
        )
    if own.serves(asked):
        return asked
    older = owner if asked > own else follower
    return Refused(
        426,
        "version_refused",
        f"the {follower} speaks protocol {asked}, the {owner} {own}; upgrade the {older}",
    )
