"""Where the commands that read and change things find the control plane, or the store."""

from __future__ import annotations

import getpass
import os
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Group, Parameter

from bridgepool.gateway.commands._root import STORE_VARIABLE, fail, store_argument

if TYPE_CHECKING:
    from bridgepool._secret import Secret
    from bridgepool.gateway.control.operations import Admin

T = TypeVar("T")
URL_VARIABLE = "BRIDGEPOOL_URL"
KEY_VARIABLE = "BRIDGEPOOL_ADMIN_KEY"
_GROUP = Group("Where", sort_key=10)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Target:
    """A running control plane, or the store itself.

    Args:
        url: The API of a running control plane, such as https://control.example:8180.
            Environment: BRIDGEPOOL_URL.
        admin_key_file: A file with the admin key for --url. Environment: the key itself in
            BRIDGEPOOL_ADMIN_KEY.
        ca_file: Certificates (PEM) to trust for --url in place of the system's.
        store: The store itself, in place of --url: PATH, or postgresql://... Running control
            planes and gateways follow. Environment: BRIDGEPOOL_STORE.
        encryption_key_file: The encryption keys of --store. Default: those in
            BRIDGEPOOL_ENCRYPTION_KEYS; else, for a file, PATH.key.
        max_keys: With --store, how many keys a provider may have, from 1 to 64: as the control
            planes of the store were told.
    """

    url: str | None = None
    admin_key_file: Path | None = None
    ca_file: Path | None = None
    store: str | None = None
    encryption_key_file: Path | None = None
    max_keys: int = 5


WHERE_DEFAULT = Target()
Where = Annotated[Target, Parameter(name="*")]


def ask(target: Target, question: Callable[[Admin], Awaitable[T]], *, may_make: bool = False) -> T:
    """Open what the options name, ask it, and end the program with the reason if it refuses.

    Args:
        target: The options.
        question: What to ask.
        may_make: Make a store in a file that is not there.
    """
    import trio

    from bridgepool import BridgePoolError

    async def main() -> T:
        async with _open(target, may_make) as admin:
            return await question(admin)

    try:
        return trio.run(main)
    except BridgePoolError as error:
        fail(str(error))


@asynccontextmanager
async def _open(target: Target, may_make: bool) -> AsyncIterator[Admin]:
    url, store = target.url, target.store
    if store is not None:
        store_argument(store)
    if url is None and store is None:
        url, store = os.environ.get(URL_VARIABLE), os.environ.get(STORE_VARIABLE)
    if (url is None) == (store is None):
        fail(
            "specify exactly one of --url, the API of a running control plane, and --store "
            f"(environment: {URL_VARIABLE}, {STORE_VARIABLE})"
        )
    if store is not None:
        from bridgepool.gateway.control._encryption import find_encryption_keys
        from bridgepool.gateway.control._records import Actor
        from bridgepool.gateway.control.admin._store_admin import StoreAdmin
        from bridgepool.gateway.control.database import check_store_exists
        from bridgepool.gateway.control.store import open_store
        from bridgepool.gateway.providers import KEYS_LIMIT

        if not 1 <= target.max_keys <= KEYS_LIMIT:
            fail(f"--max-keys: is not from 1 to {KEYS_LIMIT}")
        if not may_make:
            check_store_exists(store)
        keys = find_encryption_keys(store, key_file=target.encryption_key_file)
        async with open_store(store, keys, max_keys=target.max_keys) as opened:
            yield StoreAdmin(opened, Actor("local", _user()))
    elif url is not None:
        from bridgepool.gateway.control.admin._http_admin import open_http_admin

        context = None
        if target.ca_file is not None:
            context = _trust(target.ca_file)
        async with open_http_admin(url, _admin_key(target), ssl_context=context) as remote:
            yield remote


def _trust(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        fail(f"--ca-file {path}: cannot be used: {error.strerror or error}")


def _admin_key(target: Target) -> Secret:
    if target.admin_key_file is not None:
        return secret_from_file(target.admin_key_file, "--admin-key-file")
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text:
        fail(f"--url needs an admin key: give --admin-key-file, or set {KEY_VARIABLE}")
    return checked_secret(text, KEY_VARIABLE)


def secret_from_file(path: Path, option: str) -> Secret:
    """Read a key that stands alone in a file."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{option} {path}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}")
    return checked_secret(text, f"{option} {path}")


def checked_secret(text: str, where: str) -> Secret:
    """Make a secret of a text that can be sent in a header."""
    from bridgepool._secret import Secret

    if not text or not all("!" <= char <= "~" for char in text):
        fail(f"{where}: holds no key (one line of visible ASCII)")
    return Secret(text)


def secrets_from_stdin(what: str) -> list[Secret]:
    """Read secrets from standard input, one per line."""
    lines = [line.strip() for line in sys.stdin]
    found = [checked_secret(line, "standard input") for line in lines if line]
    if not found:
        fail(f"there is no {what} on standard input")
    return found


def secret_from_environment(variable: str) -> Secret:
    """Read a secret from an environment variable of this command."""
    text = os.environ.get(variable, "").strip()
    if not text:
        fail(f"the environment variable {variable} is not set or empty")
    return checked_secret(text, f"the environment variable {variable}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user, as in a container
        return f"uid {os.getuid()}"
