"""Reads messages that hold all providers, most of which are as they were. Pure.

After a change nearly every row comes again, byte for byte. Such a row is not made anew: whoever
compares the rows with those before is told by identity, and a change costs a gateway little more
than the row that changed.
"""

from typing import Final, TypeVar

import attrs
import msgspec

from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import _codec as codec
from bridgepool.remote._messages import Changed, ProviderSet, Revisions

M = TypeVar("M", Changed, ProviderSet)


class _Parts(msgspec.Struct, gc=False):
    """What both have, with the rows left as bytes."""

    revisions: Revisions
    rows: tuple[msgspec.Raw, ...] | None = None


_parts: Final = msgspec.msgpack.Decoder(_Parts)


@attrs.define(eq=False)
class RowReader:
    """Remembers the rows of the last message that had any."""

    _known: dict[bytes, ProviderRow] = attrs.field(factory=dict, init=False, repr=False)

    def decode(self, raw: msgspec.Raw, kind: type[M]) -> M:
        """Read a message; as `codec.decode`, in what comes and in what is raised."""
        if not codec.fits(raw, kind):
            return codec.decode(raw, kind)
        parts = _parts.decode(raw)
        if parts.rows is None:
            return kind(parts.revisions, None)
        known, now, rows = self._known, dict[bytes, ProviderRow](), list[ProviderRow]()
        for part in parts.rows:
            data = bytes(part)
            row = known.get(data)
            if row is None:
                row = codec.decode_known(part, ProviderRow)
            now[data] = row
            rows.append(row)
        self._known = now
        return kind(parts.revisions, tuple(rows))
