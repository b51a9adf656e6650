"""The fingerprint of a provider's key: names the key without showing it. Pure."""

from hashlib import blake2b
from typing import Final

from bridgepool._secret import Secret

_PERSON: Final = b"bridgepool key"  # BLAKE2 takes up to 16 bytes
_BYTES: Final = 6
_LONG_KEY: Final = 20  # characters, so that the last four give nothing away


def fingerprint(key: Secret) -> str:
    """Return the fingerprint of a key: 12 hexadecimal digits, the same everywhere.

    It is so short that any number of other keys have the same one. Of a key that can be guessed it
    confirms the guess; providers make keys that cannot.
    """
    data = key.reveal().encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=_BYTES, person=_PERSON).hexdigest()


def hint(key: Secret) -> str:
    """Return how a key is shown: its last four characters, if it is long enough for that."""
    text = key.reveal()
    return f"…{text[-4:]}" if len(text) >= _LONG_KEY else "…"
