"""The bytes of a snapshot file. Pure but for the random numbers of the encryption.

bridgepool-snapshot 1 plain\n        or: fernet
SHA-256 of the rest, in hex\n
MessagePack of `SavedSnapshot`      or: a Fernet token of it
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from bridgepool import BridgePoolError, ProviderSnapshot
from bridgepool._secret import Secret
from bridgepool.gateway._protocol import named, provider_table
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._wire import ProviderRow, row_from_provider
from bridgepool.gateway.sources._authorization import KnownClient
from bridgepool.gateway.sources._moments import Moment
from bridgepool.remote import RejectedRow

if TYPE_CHECKING:
    from bridgepool.gateway.control._encryption import EncryptionKeys

_NAME: Final = b"bridgepool-snapshot"
_VERSION: Final = b"1"


class BadSnapshotError(Exception):
    """A snapshot file cannot be used; the text says why and holds nothing of it."""


@attrs.frozen(kw_only=True)
class SavedSnapshot:
    """What a snapshot file holds."""

    rows: tuple[ProviderRow, ...]
    """The providers that were in force. Their ids are their names."""
    revision: int | None
    confirmed: Moment
    """When the control plane last said that these are its providers."""
    known_age: float = 0.0
    """How long ago that was at least, when this was written."""
    clients: tuple[KnownClient, ...] = ()
    """Clients that had been authorized, with the age of that when this was written."""
    written: Moment | None = None
    """When this was written."""

    @classmethod
    def of(cls, snapshot: ProviderSnapshot[Provider], confirmed: Moment) -> SavedSnapshot:
        """Return what is to be saved of a snapshot."""
        rows = tuple(map(row_from_provider, snapshot.providers))
        return cls(rows=rows, revision=snapshot.revision, confirmed=confirmed)

    def snapshot(self) -> tuple[ProviderSnapshot[Provider], tuple[RejectedRow, ...]]:
        """Return the providers, and those that this version cannot use."""
        table = provider_table().updated(named(self.rows))
        return ProviderSnapshot(table.providers, self.revision), table.rejected


def encode_snapshot(saved: SavedSnapshot, keys: EncryptionKeys | None) -> bytes:
    """Return the bytes of a file."""
    payload = msgspec.msgpack.encode(saved, enc_hook=_reveal)
    kind = b"plain"
    if keys is not None:
        kind, payload = b"fernet", keys.encrypt(payload)
    digest = hashlib.sha256(payload).hexdigest().encode()
    return b" ".join((_NAME, _VERSION, kind)) + b"\n" + digest + b"\n" + payload


def decode_snapshot(data: bytes, keys: EncryptionKeys | None) -> SavedSnapshot:
    """Read the bytes of a file.

    Raises:
        BadSnapshotError: they are damaged, of another version, or not for these keys.
    """
    head, _, rest = data.partition(b"\n")
    digest, _, payload = rest.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != _NAME:
        raise BadSnapshotError("is no snapshot file")
    if words[1] != _VERSION:
        raise BadSnapshotError("was written by another version of bridgepool")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise BadSnapshotError("is damaged")
    payload = _opened(words[2], payload, keys)
    saved = _parsed(payload)
    if saved is None or not _is_sound(saved):
        raise BadSnapshotError("is damaged")
    return saved


def _opened(kind: bytes, payload: bytes, keys: EncryptionKeys | None) -> bytes:
    if kind == b"plain":
        if keys is not None:
            raise BadSnapshotError("is not encrypted, though a key for it was given")
        return payload
    if kind != b"fernet":
        raise BadSnapshotError("was written by another version of bridgepool")
    if keys is None:
        raise BadSnapshotError("is encrypted, and no key for it was given")
    try:
        return keys.decrypt(payload)
    except BridgePoolError:
        raise BadSnapshotError("is encrypted with another key") from None


def _parsed(payload: bytes) -> SavedSnapshot | None:
    # Outside of the handler no error is chained that could quote what it read.
    try:
        return msgspec.msgpack.decode(payload, type=SavedSnapshot, dec_hook=_conceal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _is_sound(saved: SavedSnapshot) -> bool:
    ages = (saved.known_age, *(client.age for client in saved.clients))
    moments = (saved.confirmed, saved.written or saved.confirmed)
    clocks = [clock for moment in moments for clock in (moment.wall, moment.uptime)]
    return all(age >= 0 for age in ages) and all(math.isfinite(clock) for clock in clocks)


def _reveal(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)  # how msgspec is told that a hook has none


def _conceal(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("is not a secret")  # msgspec makes a ValidationError of it
