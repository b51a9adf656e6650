"""Who may use the gateway: clients, their keys, and the hashes that are kept of them.

A key is ``bp_{id}_{secret}``. The id is public: it finds the row and may stand in a log. The
secret is 256 random bits, so nothing can be guessed from a hash of it, and one round of salted
SHA-256 is enough and cheap enough to be done for every request: nothing is cached, so nothing
has to be forgotten when a key is taken away. A hash is ``sha256:{id}:{salt}:{digest}``.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from bridgepool.providers.errors import InvalidProviderError
from bridgepool.providers.secret import Secret

_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH: Final = 12
_SECRET_BYTES: Final = 32
_KEY: Final = re.compile(rb"bp_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")
_HASH: Final = re.compile(r"sha256:([a-z0-9]{12}):([0-9a-f]{32}):([0-9a-f]{64})")
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")


def new_client_key() -> Secret:
    """Make a new client key of 256 random bits. Show it once, keep `hash_key` of it."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    return Secret(f"bp_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}")


def hash_key(key: Secret | str) -> str:
    """Hash a client key for a provider file.

    Args:
        key: A key made by `new_client_key`. Others are refused: a fast hash is safe only for
            keys that nobody can guess.

    Raises:
        ValueError: It is no such key; the message does not repeat it.
    """
    text = key.reveal() if isinstance(key, Secret) else key
    token = text.encode("utf-8", "surrogatepass")
    match = _KEY.fullmatch(token)
    if match is None:
        raise ValueError("this is not a bridgepool client key (bp_…); make one with new_client_key")
    salt = secrets.token_bytes(16)
    return f"sha256:{match[1].decode('ascii')}:{salt.hex()}:{_digest(salt, token).hex()}"


def _digest(salt: bytes, token: bytes) -> bytes:
    return hashlib.sha256(salt + token).digest()


def _to_hashes(values: Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


@attrs.frozen(kw_only=True)
class Client:
    """One who may use the gateway, by any of its keys.

    Raises:
        InvalidProviderError: A field is not usable; says which and why.
    """

    id: str = attrs.field()
    """Its name in logs: letters, digits and ``. _ @ -``, at most 64 characters."""
    key_hashes: tuple[str, ...] = attrs.field(converter=_to_hashes, repr=False)
    """One `hash_key` for each key that is good; two while a key is being changed."""

    @id.validator
    def _check_id(self, _: object, value: str) -> None:
        if not _CLIENT_ID.fullmatch(value):
            raise InvalidProviderError(
                "id", "is not made of letters, digits and . _ @ - (at most 64 characters)"
            )

    @key_hashes.validator
    def _check_key_hashes(self, _: object, value: tuple[str, ...]) -> None:
        if not value:
            raise InvalidProviderError("key_hashes", "is empty; a client has at least one key")
        if not all(_HASH.fullmatch(text) for text in value):
            # Someone may have put the key itself here; so the value is not repeated.
            raise InvalidProviderError(
                "key_hashes", "has a value that `bridgepool hash-key` did not make"
            )


@attrs.frozen
class Caller:
    """A client that has shown a good key, and which."""

    client_id: str
    """The client's `id`."""
    key_id: str
    """The public part of the key it used."""


@attrs.frozen
class _KeyRow:
    caller: Caller
    salt: bytes
    digest: bytes


def _to_rows(values: Iterable[Client]) -> tuple[Client, ...]:
    return tuple(values)


@attrs.frozen
class Clients:
    """All clients of a gateway, ready to be asked who a token belongs to.

    Raises:
        InvalidProviderError: An id or a key is there twice.
    """

    rows: tuple[Client, ...] = attrs.field(default=(), converter=_to_rows)
    """The clients, in the order in which they were declared."""
    _by_key: Mapping[bytes, _KeyRow] = attrs.field(init=False, eq=False, repr=False)

    @_by_key.default
    def _index(self) -> Mapping[bytes, _KeyRow]:
        index: dict[bytes, _KeyRow] = {}
        ids: set[str] = set()
        for client in self.rows:
            if client.id in ids:
                raise InvalidProviderError("id", f"{client.id!r} is there twice")
            ids.add(client.id)
            for text in client.key_hashes:
                _, key_id, salt, digest = text.split(":")
                if key_id.encode("ascii") in index:
                    raise InvalidProviderError("key_hashes", f"key {key_id} is there twice")
                index[key_id.encode("ascii")] = _KeyRow(
                    Caller(client.id, key_id), bytes.fromhex(salt), bytes.fromhex(digest)
                )
        return index

    def authenticate(self, token: bytes) -> Caller | None:
        """Tell whose key this is.

        Pure, about 2 µs, and compared in constant time.

        Args:
            token: The key as the client sent it; any bytes.

        Returns:
            None when it is nobody's.
        """
        match = _KEY.fullmatch(token)
        row = self._by_key.get(match[1]) if match is not None else None
        if row is None or not hmac.compare_digest(_digest(row.salt, token), row.digest):
            return None
        return row.caller

    def __len__(self) -> int:
        return len(self.rows)
