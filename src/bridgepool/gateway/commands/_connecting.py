"""How the administrative commands reach a control plane: by its API, or by its store."""

from __future__ import annotations

import fcntl
import getpass
import logging
import math
import os
import ssl
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar
from urllib.parse import urlsplit

import trio
from cyclopts import Group, Parameter
from cyclopts.validators import Number

from bridgepool import BridgePoolError
from bridgepool._secret import Secret
from bridgepool.gateway.commands._root import STORE_VARIABLE, fail, store_argument
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.operations import Admin, Operation
from bridgepool.gateway.providers import KEYS_LIMIT, MAX_KEYS
from bridgepool.gateway.providers._access_keys import ADMIN_KEYS, other_kind
from bridgepool.gateway.serving._logs import text_formatter

P = ParamSpec("P")
T = TypeVar("T")
URL_VARIABLE = "BRIDGEPOOL_URL"
KEY_VARIABLE = "BRIDGEPOOL_ADMIN_KEY"
_GROUP = Group("Control plane", sort_key=10)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Where:
    """The API of a running control plane, or its store.

    Args:
        url: The API of a running control plane, such as https://control.example:8180.
            Environment: BRIDGEPOOL_URL.
        admin_key_file: A file with the admin key for --url. Environment: the key itself in
            BRIDGEPOOL_ADMIN_KEY.
        ca_file: Certificates (PEM) to trust for --url instead of the system's.
        store: The store, instead of --url: PATH, or postgresql://... Running control planes and
            gateways follow. Environment: BRIDGEPOOL_STORE.
        create: Make a new, empty store if the file of --store does not exist.
        encryption_key_file: The encryption keys of --store. Default: those in
            BRIDGEPOOL_ENCRYPTION_KEYS; else, for a file, PATH.key.
        max_keys: With --store, how many keys a provider may have, from 1 to 64; the same as for
            the control planes of the store.
    """

    url: Annotated[str | None, Parameter(metavar="URL")] = None
    admin_key_file: Path | None = None
    ca_file: Path | None = None
    store: Annotated[str | None, Parameter(metavar="STORE")] = None
    create: bool = False
    encryption_key_file: Path | None = None
    max_keys: Annotated[
        int, Parameter(validator=Number(gte=1, lte=KEYS_LIMIT), metavar="COUNT")
    ] = MAX_KEYS


WHERE_DEFAULT = Where()
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON, for programs.")]


def _check_seconds(kind: object, value: float | None) -> None:
    # Before the change is made, unlike a refusal of the control plane.
    if value is not None and not 0 <= value < math.inf:
        raise ValueError("Must be a number of seconds, 0 or more")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wait:
    """Where a change is to be live before the command ends.

    Args:
        wait: Seconds to wait until every connected gateway has applied the change; then print the
            state of each. The exit status is 1 unless at least one is connected and all of them
            have applied it.
        expect: With --wait: names of gateways, separated by commas, to wait for as well, though
            they are not connected.
        min: With --wait: how many gateway processes must have applied it.
    """

    wait: Annotated[float | None, Parameter(validator=_check_seconds, metavar="SECONDS")] = None
    expect: Annotated[str, Parameter(metavar="NAMES")] = ""
    min: Annotated[int, Parameter(validator=Number(gte=0), metavar="COUNT")] = 0

    def __post_init__(self) -> None:
        """End the command, before it has changed anything, if the options make no sense."""
        if self.wait is None and (self.expect or self.min):
            fail("--expect and --min require --wait")


NO_WAIT = Wait()


def administer(options: Where, work: Callable[[Admin], Awaitable[T]]) -> T:
    """Reach the control plane that the options name and run something on it.

    An error of bridgepool ends the program, with the reason.

    Args:
        options: Of the command.
        work: What to run.
    """

    async def main() -> T:
        async with _open(options) as admin:
            return await work(admin)

    with _warnings_shown():
        try:
            return trio.run(main)
        except BridgePoolError as error:
            fail(str(error))


def do(options: Where, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Carry out one operation; see `administer`."""
    return administer(options, lambda admin: admin.do(operation, *args, **kwargs))


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Print what is logged as a warning, with its fields: the file to mend is one of them."""
    logger, handler = logging.getLogger("bridgepool"), logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(text_formatter())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@asynccontextmanager
async def _open(options: Where) -> AsyncIterator[Admin]:
    url, store = options.url, options.store
    if store is not None:
        store_argument(store)
    if url is None and store is None:
        # An empty variable counts as one that is not set.
        url, store = os.environ.get(URL_VARIABLE) or None, os.environ.get(STORE_VARIABLE) or None
    if (url is None) == (store is None):
        fail(
            "specify exactly one of --url, the API of a running control plane, and --store "
            f"(environment: {URL_VARIABLE}, {STORE_VARIABLE})"
        )
    if store is not None:
        from bridgepool.gateway.control._encryption import find_encryption_keys
        from bridgepool.gateway.control.database import check_store_exists
        from bridgepool.gateway.control.operations._store_admin import StoreAdmin
        from bridgepool.gateway.control.store import open_store

        if not options.create:
            check_store_exists(store, "check the name; --create makes a new, empty store")
        keys = find_encryption_keys(store, key_file=options.encryption_key_file)
        async with open_store(store, keys, max_keys=options.max_keys) as opened:
            yield StoreAdmin(opened, local_actor())
    elif url is not None:
        from bridgepool.gateway.control.operations._http_admin import open_http_admin

        _check_url(url)
        context = None
        if options.ca_file is not None:
            context = _trust(options.ca_file)
        async with open_http_admin(url, _admin_key(options), ssl_context=context) as remote:
            yield remote


def _check_url(url: str) -> None:
    """Refuse a URL that the API cannot have; the message does not repeat it."""
    scheme, separator, _ = url.partition("://")
    if scheme.lower() in ("ws", "wss"):
        fail(
            f"--url: {scheme}:// is what gateways connect to; specify the API, such as "
            "https://control.example:8180"
        )
    if not separator or scheme.lower() not in ("http", "https"):
        fail("--url: must begin with http:// or https://")
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        fail("--url: names no host; specify the API, such as https://control.example:8180")


def _trust(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        fail(f"--ca-file {path}: cannot be used: {error.strerror or error}")


def _admin_key(options: Where) -> Secret:
    where = KEY_VARIABLE
    if options.admin_key_file is not None:
        where = f"--admin-key-file {options.admin_key_file}"
        key = secret_from_file(options.admin_key_file, "--admin-key-file")
    elif text := os.environ.get(KEY_VARIABLE, "").strip():
        key = checked_secret(text, KEY_VARIABLE)
    else:
        fail(f"--url requires an admin key: give --admin-key-file, or set {KEY_VARIABLE}")
    if kind := other_kind(key, ADMIN_KEYS):
        fail(f"{where}: holds a key of kind {kind}; the API takes one of kind admin (bpa_…)")
    return key


def secret_from_file(path: Path, option: str) -> Secret:
    """Read a file that contains one key."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{option} {path}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}")
    return checked_secret(text, f"{option} {path}")


def checked_secret(text: str, where: str) -> Secret:
    """Make a secret of a text that can be sent in a header."""
    if not text or not all("!" <= char <= "~" for char in text):
        fail(f"{where}: does not contain a key (one line of visible ASCII)")
    return Secret(text)


def stdin_holds_data() -> bool:
    """Return whether bytes wait on standard input, which is not a terminal. Does not block."""
    try:
        if sys.stdin.isatty():
            return False
        waiting = fcntl.ioctl(sys.stdin.fileno(), termios.FIONREAD, bytes(4))
    except (OSError, AttributeError):  # closed, or something that has no such count
        return False
    return int.from_bytes(waiting, sys.byteorder) > 0


def keys_from_stdin() -> list[Secret]:
    """Read keys from standard input, one per line."""
    lines = [line.strip() for line in sys.stdin]
    found = [checked_secret(line, "standard input") for line in lines if line]
    if not found:
        fail("standard input does not contain a key")
    return found


def secret_from_environment(variable: str) -> Secret:
    """Read a secret from an environment variable of this command."""
    text = os.environ.get(variable, "").strip()
    if not text:
        fail(f"the environment variable {variable} is not set or empty")
    return checked_secret(text, f"the environment variable {variable}")


def local_actor() -> Actor:
    """Return who uses this command, for the audit of a store."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user, as in a container
        user = f"uid {os.getuid()}"
    return Actor("local", user)
