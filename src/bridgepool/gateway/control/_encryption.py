"""Encryption at rest: the secrets in the database cannot be read without the key.

The keys are Fernet's (AES-128-CBC with HMAC-SHA256; 32 random bytes in URL-safe base64). The
first of them encrypts, all of them decrypt. To change it without a pause, in a key file that
every process has:

1. `add_encryption_key` puts a new key last; send SIGHUP to each process, or restart it.
2. `promote_encryption_key` puts it first; send SIGHUP to each process again.
3. `Store.rotate_encryption` encrypts with it what the old key encrypted.
4. `drop_old_encryption_keys` keeps only the new one.

If only one process opens the store, do 1 and 2 with one SIGHUP.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import EncryptionError, StoreUrlError
from bridgepool.gateway.serving._private_files import write_private_file

try:
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet
except ImportError as error:
    raise ImportError("the store needs cryptography: pip install 'bridgepool[control]'") from error

logger = logging.getLogger("bridgepool.store")

_SQLITE: Final = b"SQLite format 3\0"  # how its files begin
KEYS_VARIABLE: Final = "BRIDGEPOOL_ENCRYPTION_KEYS"
"""The environment variable that may hold the keys, the first first, with white space between."""
_ADVICE: Final = (
    "put the right key there; if there is nothing encrypted yet, `bridgepool encryption new-key` "
    "makes one"
)


def generate_encryption_key() -> Secret:
    """Make a new key of 256 random bits."""
    return Secret(Fernet.generate_key().decode("ascii"))


def _to_keys(keys: Iterable[Secret]) -> tuple[Secret, ...]:
    return tuple(keys)


@final
@attrs.frozen(eq=False)
class EncryptionKeys:
    """The keys of a store: the first encrypts, all decrypt.

    Raises:
        EncryptionError: There is none, or one is not a key; says which by its place.
    """

    keys: tuple[Secret, ...] = attrs.field(converter=_to_keys)
    source: str = ""
    """Where they come from, for messages: a variable, or a file."""
    names: tuple[str, ...] = attrs.field(init=False)
    """A name for each key, which does not reveal it; in the same order."""
    _fernet: MultiFernet = attrs.field(init=False, repr=False)

    @names.default
    def _name_them(self) -> tuple[str, ...]:
        named = (b"bridgepool key name\0" + key.reveal().encode() for key in self.keys)
        return tuple(hashlib.sha256(text).hexdigest()[:8] for text in named)

    @_fernet.default
    def _make_fernet(self) -> MultiFernet:
        if not self.keys:
            raise EncryptionError(f"there is no encryption key; {_ADVICE}")
        made = [_fernet(key) for key in self.keys]
        for place, fernet in enumerate(made, 1):
            if fernet is None:
                raise EncryptionError(
                    f"encryption key {place} is not 32 bytes in URL-safe base64; {_ADVICE}"
                )
        return MultiFernet([fernet for fernet in made if fernet is not None])

    @property
    def current(self) -> str:
        """The name of the key that encrypts."""
        return self.names[0]

    def __str__(self) -> str:
        return ", ".join(self.names) + (f" from {self.source}" if self.source else "")

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt with the first key; the result is ASCII."""
        return self._fernet.encrypt(data)

    def decrypt(self, token: bytes) -> bytes:
        """Decrypt with the key that fits.

        Raises:
            EncryptionError: No key fits, or the token was changed.
        """
        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            pass
        raise EncryptionError(
            f"it was encrypted with a key other than those given ({self}), or it is damaged: add "
            "the key that it was encrypted with, each on a line of its own"
        )


def _fernet(key: Secret) -> Fernet | None:
    try:
        return Fernet(key.reveal())
    except ValueError:
        return None


def parse_encryption_keys(text: str, source: str = "") -> EncryptionKeys:
    """Read keys with white space between them, the first first; ``#`` begins a comment.

    Args:
        text: The keys.
        source: Where they come from, for messages.

    Raises:
        EncryptionError: There is none, or one is not a key.
    """
    words = (word for line in text.splitlines() for word in line.partition("#")[0].split())
    try:
        return EncryptionKeys((Secret(word) for word in words), source)
    except EncryptionError as error:
        problem = f"{source}: {error}" if source else str(error)
    raise EncryptionError(problem)


def read_encryption_keys(path: str | os.PathLike[str]) -> EncryptionKeys:
    """Read a key file; blocks.

    Raises:
        EncryptionError: It cannot be read, or there is no key in it, or one is not a key.
    """
    try:
        with Path(path).open("r", encoding="utf-8", errors="replace") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH:
                where = {"file": str(path)}
                logger.warning("every user can read the encryption keys: chmod 600", extra=where)
            text = file.read()
    except OSError as error:
        raise EncryptionError(
            f"the encryption keys in {path} cannot be read: {error.strerror}"
        ) from error
    return parse_encryption_keys(text, str(path))


def find_encryption_keys(
    url: str | Secret,
    *,
    key_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> EncryptionKeys:
    """Find the keys of a store; blocks.

    In the key file if one is named; else in `KEYS_VARIABLE`; else, for an SQLite store, in the
    file beside it that ends in ``.key``, which is made together with a new store.

    Raises:
        EncryptionError: There is none, or it cannot be used; says what to do.
    """
    if key_file is not None:
        return read_encryption_keys(key_file)
    if text := environ.get(KEYS_VARIABLE):
        return parse_encryption_keys(text, KEYS_VARIABLE)
    where = url.reveal() if isinstance(url, Secret) else url
    if "://" in where:
        if not where.startswith(("postgresql://", "postgres://")):
            raise StoreUrlError
        raise EncryptionError(
            "a store in PostgreSQL needs its encryption keys from a file, or from "
            f"{KEYS_VARIABLE}: give every process the key of the store; for a new store, "
            "`bridgepool encryption new-key` makes one"
        )
    store = Path(where.removeprefix("sqlite:")).absolute()
    beside = store.with_name(store.name + ".key")
    if not beside.exists():
        # The key comes before the store, so a store without one has lost it.
        if store.exists() and store.stat().st_size:
            _check_is_database(store)
            raise EncryptionError(
                f"the encryption keys of {store} are missing: put the file {beside} back, or name "
                f"another, or set {KEYS_VARIABLE}"
            )
        if _write(beside, (generate_encryption_key(),), replace=False):
            logger.warning(
                "made a new encryption key: keep a copy of it", extra={"file": str(beside)}
            )
    return read_encryption_keys(beside)


def _check_is_database(store: Path) -> None:
    """Refuse a file that was mistaken for a store, before keys are asked for."""
    try:
        with store.open("rb") as file:
            is_one = file.read(len(_SQLITE)) == _SQLITE
    except OSError:  # a directory, say
        is_one = False
    if not is_one:
        raise EncryptionError(
            f"the store {store} cannot be used: it is not an SQLite file; name another"
        )


def add_encryption_key(path: str | os.PathLike[str]) -> EncryptionKeys:
    """Put a new key last in a key file, so that all processes know it before one uses it. Blocks.

    Raises:
        EncryptionError: The file cannot be read or written.
    """
    found = read_encryption_keys(path)
    _write(Path(path), (*found.keys, generate_encryption_key()), replace=True)
    return read_encryption_keys(path)


def promote_encryption_key(path: str | os.PathLike[str]) -> EncryptionKeys:
    """Put the last key of a key file first, where it encrypts; the others still decrypt. Blocks.

    Raises:
        EncryptionError: The file cannot be read or written.
    """
    *others, last = read_encryption_keys(path).keys
    _write(Path(path), (last, *others), replace=True)
    return read_encryption_keys(path)


def drop_old_encryption_keys(path: str | os.PathLike[str]) -> EncryptionKeys:
    """Keep only the first key of a key file. Blocks.

    Only after `Store.rotate_encryption`: what the others encrypted is lost without them.

    Raises:
        EncryptionError: The file cannot be read or written.
    """
    _write(Path(path), read_encryption_keys(path).keys[:1], replace=True)
    return read_encryption_keys(path)


def _write(path: Path, keys: Iterable[Secret], *, replace: bool) -> bool:
    """Write a key file; returns whether it did: without `replace` the first writer wins."""
    text = "".join(key.reveal() + "\n" for key in keys)
    try:
        write_private_file(path, text.encode("ascii"), replace=replace)
    except FileExistsError:
        return False
    except OSError as error:
        raise EncryptionError(
            f"the encryption keys cannot be written to {path}: {error.strerror}"
        ) from error
    return True
