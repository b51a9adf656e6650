"""The first keys of a new control plane: made by itself, into files that only its user reads."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import NameTakenError
from bridgepool.gateway.control._records import Actor, NewKey
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.serving._listening import StartError

logger = logging.getLogger("bridgepool.control")

_ACTOR: Final = Actor("program", "control-plane")
_FIRST: Final = "first"  # the name of what such a key is made for


@attrs.frozen
class _Kind:
    option: str
    what: str
    make: Callable[[], Awaitable[NewKey]]
    revoke: Callable[[Actor, str], Awaitable[object]]
    authenticate: Callable[[Secret], Awaitable[object | None]]


async def ensure_admin_key(store: Store, path: Path) -> None:
    """Make an admin key that may write into a new file, or see that the one in it is good.

    Raises:
        StartError: The file cannot be used, or its key is no good.
        StoreError: The store refuses, or is away.
    """
    await _ensure(
        path,
        _Kind(
            "--admin-key-file",
            "admin key",
            lambda: store.create_admin_key(_ACTOR, _FIRST, "write"),
            store.revoke_admin_key,
            store.authenticate_admin,
        ),
    )


async def ensure_gateway_key(store: Store, path: Path) -> None:
    """Make a gateway's key into a new file, or see that the one in it is good.

    Raises:
        StartError: The file cannot be used, or its key is no good.
        StoreError: The store refuses, or is away.
    """
    await _ensure(
        path,
        _Kind(
            "--gateway-key-file",
            "gateway key",
            lambda: store.create_gateway_key(_ACTOR, _FIRST),
            store.revoke_gateway_key,
            store.authenticate_gateway,
        ),
    )


async def ensure_client_key(store: Store, path: Path) -> None:
    """Make a client's key into a new file, or see that the one in it is good.

    Raises:
        StartError: The file cannot be used, or its key is no good.
        StoreError: The store refuses, or is away.
    """

    async def make() -> NewKey:
        try:  # not to look first: another control plane may start at the same time
            change = await store.add_client(_ACTOR, _FIRST)
        except NameTakenError:
            return await store.add_client_key(_ACTOR, _FIRST)
        if change.key is None:
            raise AssertionError("a client without hashes has a new key")
        return NewKey(
            revision=change.revision,
            changed=change.changed,
            access_key=change.client.keys[0],
            key=change.key,
        )

    await _ensure(
        path,
        _Kind(
            "--client-key-file",
            "client key",
            make,
            lambda actor, key: store.revoke_client_key(actor, _FIRST, key),
            store.authenticate_client,
        ),
    )


async def _ensure(path: Path, kind: _Kind) -> None:
    if await trio.Path(path).exists():
        await _check(path, kind)
        return
    made = await kind.make()
    problem: OSError | None = None
    try:
        await trio.to_thread.run_sync(_write_new, path, made.key)
    except OSError as error:
        problem = error
    if problem is not None:
        await kind.revoke(_ACTOR, made.access_key.id)
        if isinstance(problem, FileExistsError):  # another control plane was faster
            await _check(path, kind)
            return
        raise StartError(f"{kind.option} {path}: cannot be written: {problem.strerror}")
    facts = {"file": str(path), "key": made.access_key.id}
    logger.warning("made a new %s", kind.what, extra=facts)


def _write_new(path: Path, key: Secret) -> None:
    """Write a file that was not there and that nobody sees unfinished; mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(key.reveal() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


async def _check(path: Path, kind: _Kind) -> None:
    where = f"{kind.option} {path}"
    try:
        text = (await trio.Path(path).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "is not text"
        raise StartError(f"{where}: cannot be read: {problem}") from None
    if not text or await kind.authenticate(Secret(text)) is None:
        raise StartError(
            f"{where}: holds no {kind.what} that this store knows; remove the file to have one made"
        )
