"""The last good snapshot in a file, so that a gateway can start while the control plane is down.

The file holds the keys of providers. So it is its owner's alone (mode 0600), replaced in one
step, and, when a key is given, encrypted. Whatever is wrong with it is said and costs the
gateway the early start, never the start. Its bytes:

bridgepool-snapshot 1 plain\n        or: fernet
SHA-256 of the rest, in hex\n
MessagePack of `SavedSnapshot`      or: a Fernet token of it
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import msgspec
import trio

from bridgepool import BridgePoolError, ProviderSnapshot
from bridgepool._secret import Secret, read_secret
from bridgepool.gateway._protocol import named, provider_table
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._wire import ProviderRow, row_from_provider
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._private_files import write_private_file
from bridgepool.gateway.sources._authorization import KnownClient
from bridgepool.gateway.sources._moments import Moment, age_of
from bridgepool.remote import RejectedRow

if TYPE_CHECKING:
    from bridgepool.gateway.control._encryption import EncryptionKeys

logger = logging.getLogger("bridgepool.gateway")

_NAME: Final = b"bridgepool-snapshot"
_VERSION: Final = b"1"
_MAX_BYTES: Final = 64 << 20
_NOTE_INTERVAL: Final = 300.0  # seconds between two notes of how old the file has become
_LOOK_INTERVAL: Final = 10.0  # seconds between two looks whether there are other clients
_GATHER: Final = 0.5  # seconds after a write before the next: notices may come in storms
_LAST_SAVE: Final = 2.0  # seconds that closing waits for the disk
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)


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
    allow_empty: bool = False
    """If there are no providers: that was intended."""
    epoch: str | None = None
    """The epoch of `revision`."""

    @classmethod
    def of(cls, snapshot: ProviderSnapshot[Provider], confirmed: Moment) -> SavedSnapshot:
        """Return what is to be saved of a snapshot."""
        rows = tuple(map(row_from_provider, snapshot.providers))
        return cls(
            rows=rows,
            revision=snapshot.revision,
            confirmed=confirmed,
            allow_empty=snapshot.allow_empty,
            epoch=snapshot.epoch,
        )

    def snapshot(self) -> tuple[ProviderSnapshot[Provider], tuple[RejectedRow, ...]]:
        """Return the providers, and those that this version cannot use."""
        table = provider_table().updated(named(self.rows))
        allow_empty = self.allow_empty and not self.rows
        snapshot = ProviderSnapshot(
            table.providers, self.revision, self.epoch, allow_empty=allow_empty
        )
        return snapshot, table.rejected


@attrs.frozen
class LoadedSnapshot:
    """What a snapshot file gave."""

    snapshot: ProviderSnapshot[Provider]
    age: float
    """Seconds since the control plane confirmed it; `math.inf` if nobody knows."""
    clients: tuple[KnownClient, ...]
    """Clients that had been authorized."""


@attrs.define(eq=False)
class SnapshotFile:
    """A snapshot file: read once at the start, and kept up to date by its task `run`."""

    path: Path
    _keys: EncryptionKeys | None = None
    known_clients: Callable[[], tuple[KnownClient, ...]] = tuple
    """Returns the clients to keep along with the providers."""
    clients_changes: Callable[[], int] = int
    """Returns how often which clients these are has changed."""
    _kept: ProviderSnapshot[Provider] = attrs.field(default=ProviderSnapshot(()), init=False)
    # makes what it is to hold, in the thread that writes it: that takes long for many providers
    _content: Callable[[], SavedSnapshot] | None = attrs.field(default=None, init=False)
    _due: trio.Event = attrs.field(factory=trio.Event, init=False)
    _seen_changes: int = attrs.field(default=0, init=False)  # of the clients in the file
    _failing: bool = attrs.field(default=False, init=False)  # the last write failed: reported

    async def load(self) -> LoadedSnapshot | None:
        """Read the file; None, and a line in the log, when there is nothing to be used.

        Raises:
            StartError: It is a file of something else, which would be overwritten.
        """
        try:
            data = await trio.to_thread.run_sync(self._read)
            if data and not data.startswith(_NAME):
                raise StartError(
                    f"--snapshot-file {self.path}: is not a snapshot file, and would be "
                    "overwritten; specify another name, or remove it"
                )
            saved = decode_snapshot(data, self._keys)
        except FileNotFoundError:
            logger.info("no snapshot file yet", extra=self._facts())
            return None
        except (OSError, BadSnapshotError) as error:
            why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            logger.warning("snapshot file ignored: it %s", why, extra=self._facts())
            return None
        snapshot, rejected = saved.snapshot()
        for row in rejected:
            logger.warning("unusable provider in the snapshot file: %s", row.name)
        now = Moment.now()
        age = age_of(saved.confirmed, now, saved.known_age)
        since = age_of(saved.written or saved.confirmed, now)
        clients = tuple(attrs.evolve(client, age=client.age + since) for client in saved.clients)
        self._content = lambda: saved
        self._kept = snapshot
        facts = {**self._facts(), "providers": len(snapshot.providers), "age": round(age, 1)}
        logger.info("snapshot file read", extra=facts)
        return LoadedSnapshot(snapshot, age, clients)

    def use_keys(self, keys: EncryptionKeys | None) -> None:
        """Encrypt with other keys from now on, also what the file holds already."""
        self._keys = keys
        self._due.set()

    def keep(self, snapshot: ProviderSnapshot[Provider], confirmed: Moment) -> None:
        """Have the file hold this; the task writes it.

        In place of a provider that cannot be used it keeps the last good form that it holds.
        """
        self._kept = _with_last_good(snapshot, self._kept)
        self._content = partial(SavedSnapshot.of, self._kept, confirmed)
        self._due.set()

    async def run(self) -> None:
        """Write what is to be kept, until cancelled; now and then how old it has become.

        Soon after other clients were authorized as well, so that a crash does not forget them.
        """
        note = trio.current_time() + _NOTE_INTERVAL
        try:
            while True:
                with trio.move_on_after(min(_LOOK_INTERVAL, _NOTE_INTERVAL)):
                    await self._due.wait()
                others = self.clients_changes() != self._seen_changes
                if self._due.is_set() or others or trio.current_time() >= note:
                    await self._save()
                    after = _LOOK_INTERVAL if self._failing else _NOTE_INTERVAL
                    note = trio.current_time() + after
                    await trio.sleep(_GATHER)
        finally:
            # Once more: clients were authorized since, and time has passed.
            with trio.move_on_after(_LAST_SAVE, shield=True):
                await self._save()

    async def _save(self) -> None:
        self._due = trio.Event()
        content = self._content
        if content is None:
            await trio.lowlevel.checkpoint()
            return
        self._seen_changes = self.clients_changes()
        try:
            await trio.to_thread.run_sync(self._write, content, self.known_clients())
        except OSError as error:
            if not self._failing:
                facts = self._facts()
                logger.warning("snapshot file not written: %s", error.strerror, extra=facts)
            self._failing = True
        else:
            if self._failing:
                logger.info("snapshot file written again", extra=self._facts())
            self._failing = False

    def _facts(self) -> dict[str, object]:
        return {"path": str(self.path)}

    def _read(self) -> bytes:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | _NO_LINK
        descriptor = os.open(self.path, flags)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BadSnapshotError("is not a regular file")
            if found.st_uid != os.geteuid():
                raise BadSnapshotError("belongs to another user")
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise BadSnapshotError("can be read or written by others; make its mode 0600")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(data) > _MAX_BYTES:
            raise BadSnapshotError("is too large")
        return data

    def _write(
        self, content: Callable[[], SavedSnapshot], clients: tuple[KnownClient, ...]
    ) -> None:
        """Replace the file in one step, so that a crash leaves the old one or the new one."""
        saved, now = content(), Moment.now()
        known_age = age_of(saved.confirmed, now, saved.known_age)
        saved = attrs.evolve(saved, known_age=known_age, clients=clients, written=now)
        write_private_file(self.path, encode_snapshot(saved, self._keys))


def _with_last_good(
    snapshot: ProviderSnapshot[Provider], before: ProviderSnapshot[Provider]
) -> ProviderSnapshot[Provider]:
    if all(provider.problem is None for provider in snapshot.providers):
        return snapshot
    good = {one.name: one for one in before.providers if one.enabled and one.problem is None}
    providers = tuple(
        good.get(one.name, one) if one.problem is not None and one.enabled else one
        for one in snapshot.providers
    )
    return attrs.evolve(snapshot, providers=providers)


def read_snapshot_keys(path: Path | None) -> EncryptionKeys | None:
    """Read the keys that a snapshot file is encrypted with; the first one encrypts. Blocks.

    Raises:
        StartError: they cannot be used, or what encrypts is not installed.
    """
    if path is None:
        return None
    try:
        from bridgepool.gateway.control._encryption import read_encryption_keys
    except ImportError:
        raise StartError(
            "--snapshot-key-file needs cryptography: pip install 'bridgepool[control]'"
        ) from None
    try:
        return read_encryption_keys(path)
    except BridgePoolError as error:
        raise StartError(f"--snapshot-key-file: {error}") from None


def encode_snapshot(saved: SavedSnapshot, keys: EncryptionKeys | None) -> bytes:
    """Return the bytes of a file."""
    payload = msgspec.msgpack.encode(saved, enc_hook=Secret.reveal)
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
        raise BadSnapshotError("is not a snapshot file")
    if words[1] != _VERSION:
        raise BadSnapshotError("was written by another version of bridgepool")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise BadSnapshotError("is damaged")
    payload = _opened(words[2], payload, keys)
    saved = _parsed(payload)
    if saved is None or not _is_valid(saved):
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
        return msgspec.msgpack.decode(payload, type=SavedSnapshot, dec_hook=read_secret)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _is_valid(saved: SavedSnapshot) -> bool:
    ages = (saved.known_age, *(client.age for client in saved.clients))
    moments = (saved.confirmed, saved.written or saved.confirmed)
    clocks = [clock for moment in moments for clock in (moment.wall, moment.uptime)]
    return all(age >= 0 for age in ages) and all(math.isfinite(clock) for clock in clocks)
