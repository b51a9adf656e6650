"""The form of the keys that let somebody in, and the hashes that are kept of them. Pure.

A key is ``{prefix}_{id}_{secret}``. The id is public: it finds the row and may stand in a log.
The secret is 256 random bits, so nothing can be guessed from a hash of it, and one round of
salted SHA-256 is enough and cheap enough to be done for every request: nothing is cached, so
nothing has to be forgotten when a key is taken away. A hash is ``sha256:{id}:{salt}:{digest}``.
"""

import base64
import hashlib
import hmac
import re
import secrets
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs

from bridgepool._secret import Secret

_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH: Final = 12
_SECRET_BYTES: Final = 32
HASH_PATTERN: Final = "sha256:([a-z0-9]{12}):([0-9a-f]{32}):([0-9a-f]{64})"
"""A hash that is kept of a key."""


def new_id() -> str:
    """Make a new public id: random, so that ids of two stores do not meet."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


@attrs.frozen
class KeyFormat:
    """The keys of one kind of caller."""

    prefix: str
    """Tells the kinds apart for people, and for programs that look for leaked keys."""
    _pattern: re.Pattern[bytes] = attrs.field(init=False, eq=False, repr=False)

    @_pattern.default
    def _make_pattern(self) -> re.Pattern[bytes]:
        prefix = self.prefix.encode("ascii")
        return re.compile(prefix + rb"_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")

    def new(self) -> Secret:
        """Make a new key of 256 random bits. Show it once, keep its `hash`."""
        return Secret(f"{self.prefix}_{new_id()}_{secrets.token_urlsafe(_SECRET_BYTES)}")

    def id_of(self, token: bytes) -> bytes | None:
        """Return the public id in a token; None when it is no key of this kind."""
        match = self._pattern.fullmatch(token)
        return match[1] if match is not None else None

    def hash(self, key: Secret | str) -> str:
        """Hash a key.

        Raises:
            ValueError: It is no key of this kind. A fast hash is safe only for keys that nobody
                can guess. The message does not repeat it.
        """
        token = token_bytes(key)
        key_id = self.id_of(token)
        if key_id is None:
            raise ValueError(f"this is not a bridgepool key of this kind ({self.prefix}_…)")
        salt = secrets.token_bytes(16)
        return f"sha256:{key_id.decode('ascii')}:{salt.hex()}:{_digest(salt, token).hex()}"


def token_bytes(key: Secret | str) -> bytes:
    """Return a key as the bytes that are looked up and hashed."""
    text = key.reveal() if isinstance(key, Secret) else key
    return text.encode("utf-8", "surrogatepass")


CLIENT_KEYS: Final = KeyFormat("bp")
"""Of clients, for a gateway."""
GATEWAY_KEYS: Final = KeyFormat("bpg")
"""Of gateways, for a control plane."""
ADMIN_KEYS: Final = KeyFormat("bpa")
"""Of people and programs that change providers, for the API of a control plane."""


_KINDS: Final = {"client": CLIENT_KEYS, "gateway": GATEWAY_KEYS, "admin": ADMIN_KEYS}


def other_kind(key: Secret, wanted: KeyFormat) -> str | None:
    """Return whose key this is, if it has the form of another kind than that which is wanted."""
    token = token_bytes(key)
    kinds = (kind for kind, form in _KINDS.items() if form.id_of(token) is not None)
    return next((kind for kind in kinds if _KINDS[kind] is not wanted), None)


_BASIC: Final = re.compile(rb"(?i:basic) +([A-Za-z0-9+/_=-]+)")
_ANY_KEY: Final = re.compile(rb"bp[ga]?_[a-z0-9]{12}_[A-Za-z0-9_-]{43}")


def holds_access_key(text: bytes) -> bool:
    """Return whether a text contains a key of any kind.

    As it is, percent-encoded, or in Basic credentials. A key may be sent in any place by mistake;
    it must not leave the gateway in any.
    """
    if b"%" in text:
        text = unquote_to_bytes(text)
    if b"basic " in text.lower():
        for credentials in _BASIC.findall(text):
            with suppress(ValueError):
                text += b"\n" + base64.b64decode(credentials)
    return _ANY_KEY.search(text) is not None


@attrs.frozen
class KeyHash:
    """A hash of a key, in its parts."""

    key_id: str
    _salt: bytes = attrs.field(repr=False)
    _digest: bytes = attrs.field(repr=False)

    def matches(self, token: bytes) -> bool:
        """Return whether it is the hash of this token. About 1 µs, in constant time."""
        return hmac.compare_digest(_digest(self._salt, token), self._digest)


def parse_hash(text: str) -> KeyHash:
    """Take apart what `KeyFormat.hash` made.

    Raises:
        ValueError: It is something else. Someone may have put the key itself here, so the
            message does not repeat it.
    """
    match = re.fullmatch(HASH_PATTERN, text)
    if match is None:
        raise ValueError("has a value that `bridgepool hash-key` did not make")
    return KeyHash(match[1], bytes.fromhex(match[2]), bytes.fromhex(match[3]))


def _digest(salt: bytes, token: bytes) -> bytes:
    return hashlib.sha256(salt + token).digest()
