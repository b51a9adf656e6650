"""What a gateway tells of the keys of its providers, without showing one of them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import attrs
from msgspec import Meta

MAX_REPORTED_KEYS = 10_000
"""The most keys of one report."""

CoolingReason: TypeAlias = Literal["", "rate_limited", "refused"]


@attrs.frozen(kw_only=True)
class KeyStatus:
    """A key of a provider, as a gateway has it."""

    provider: str
    """The provider's name."""
    fingerprint: str
    """Names the key: 12 hexadecimal digits, the same everywhere."""
    hint: str
    """``…abcd`` of a long key, ``…`` of a short one."""
    usable: bool
    """Whether a request may still begin to use it: the provider in force has it, or a form of the
    provider before that is still open."""
    in_flight: int
    """Requests that use it now."""
    unused_for: int | None = None
    """Whole seconds since a request took it last; None if none has."""
    cooling: CoolingReason = ""
    """Why no request takes it now, if so."""
    cooling_for: int = 0
    """Whole seconds until it may be taken again."""


@attrs.frozen(kw_only=True)
class KeyReport:
    """The keys of a gateway's providers at one moment."""

    revision: int | None = None
    """The source's revision, in force; None where the source has none."""
    epoch: str | None = None
    """The epoch of the revision."""
    keys: Annotated[tuple[KeyStatus, ...], Meta(max_length=MAX_REPORTED_KEYS)] = ()
    """Those that were used or are in a provider that was; taken out, a few of them for a while."""
