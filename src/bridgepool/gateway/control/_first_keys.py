"""The first keys of a new control plane: it makes them, into files that only its user can read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import trio

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import NameTakenError
from bridgepool.gateway.control._records import Actor, KeyKind
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._private_files import write_private_file

logger = logging.getLogger("bridgepool.control")

_ACTOR: Final = Actor("program", "control plane")
_FIRST: Final = "first"  # the name of what such a key is made for


async def ensure_key(store: Store, kind: KeyKind, path: Path) -> None:
    """Make a key into a new file, or check that the one in the file is good.

    An admin key may write.

    Raises:
        StartError: The file cannot be used, or its key is not a good one of this store.
        StoreError: The store refuses it, or is unavailable.
    """
    if await trio.Path(path).exists():
        await _check(store, kind, path)
        return
    key_id, key = await _make(store, kind)
    problem: OSError | None = None
    try:
        data = f"{key.reveal()}\n".encode()
        await trio.to_thread.run_sync(lambda: write_private_file(path, data, replace=False))
    except OSError as error:
        problem = error
    if problem is not None:
        await _revoke(store, kind, key_id)
        if isinstance(problem, FileExistsError):  # another control plane was faster
            await _check(store, kind, path)
            return
        raise StartError(f"--{kind}-key-file {path}: cannot be written: {problem.strerror}")
    logger.warning("made a new %s key", kind, extra={"file": str(path), "key": key_id})


async def _make(store: Store, kind: KeyKind) -> tuple[str, Secret]:
    if kind == "client":
        try:  # not to look first: another control plane may start at the same time
            added = await store.add_client(_ACTOR, _FIRST)
        except NameTakenError:
            made = await store.add_client_key(_ACTOR, _FIRST)
        else:
            if added.key is None:
                raise AssertionError("a client without hashes has a new key")
            return added.client.keys[0].id, added.key
    elif kind == "gateway":
        made = await store.create_gateway_key(_ACTOR, _FIRST)
    else:
        made = await store.create_admin_key(_ACTOR, _FIRST, "write")
    return made.access_key.id, made.key


async def _revoke(store: Store, kind: KeyKind, key_id: str) -> None:
    if kind == "client":
        await store.revoke_client_key(_ACTOR, _FIRST, key_id)
    else:
        await store.revoke_key(_ACTOR, kind, key_id)


async def _check(store: Store, kind: KeyKind, path: Path) -> None:
    where = f"--{kind}-key-file {path}"
    try:
        text = (await trio.Path(path).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "is not text"
        raise StartError(f"{where}: cannot be read: {problem}") from None
    if not text or await store.authenticate(kind, Secret(text)) is None:
        raise StartError(
            f"{where}: does not hold a good {kind} key of this store; remove the file to have "
            "one made"
        )
