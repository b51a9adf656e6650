"""The providers of a control plane: followed, kept in a file, and told what came of them.

Theory of operation. The gateway listens whatever the control plane does. With a snapshot file
it serves from its start on what was in force the last time, and says so until the control plane
has confirmed it. Without one it is not ready until the first answer.

A refusal (a wrong key, a version that is not spoken) ends the program only while it has nothing
to serve: before its first snapshot, and without a file. Else it goes on with what it has, tries
again now and then, and says at `/readyz` that it is refused.
"""

from __future__ import annotations

import logging
import os
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from bridgepool import ProviderSnapshot
from bridgepool._network import parse_websocket_url
from bridgepool._secret import Secret
from bridgepool._services import open_background_nursery
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS, other_kind
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.proxy._receipts import Receipt
from bridgepool.gateway.proxy._runtimes import Snapshot
from bridgepool.gateway.serving._files_in_use import FileInUse
from bridgepool.gateway.serving._listening import StartError, is_loopback
from bridgepool.gateway.serving._private_files import remove_drafts
from bridgepool.gateway.sources._authorization import AuthorizationLimits
from bridgepool.gateway.sources._control_plane import open_control_plane
from bridgepool.gateway.sources._moments import Moment
from bridgepool.gateway.sources._snapshot_file import SnapshotFile, read_snapshot_keys
from bridgepool.gateway.sources._source import Source
from bridgepool.gateway.usage._spool import UsageSpool
from bridgepool.remote import RejectedRow, RemoteLimits, RemoteProviders, websocket_connector
from bridgepool.transports._errors import HandshakeRefusedError
from bridgepool.transports._handshake import WebSocketLimits

logger = logging.getLogger("bridgepool.gateway")

_MAX_KEY_BYTES: Final = 1024
_RIGHT_PORT: Final = "--control takes the address of the control plane's --rpc-listen"
_REMOTE_LIMITS: Final = RemoteLimits()
_AUTHORIZATION_LIMITS: Final = AuthorizationLimits()
_WEBSOCKET_LIMITS: Final = WebSocketLimits()


@attrs.frozen
class _Loaded:
    """One good reload."""

    snapshot: Snapshot
    began: Moment
    rejected: tuple[RejectedRow, ...]


@attrs.define(eq=False)
class _ControlSource:
    """The control plane as a reloader, and as the sink of receipts."""

    _remote: RemoteProviders[Provider]
    _file: SnapshotFile | None
    _from_file: bool  # what is in force is the file's
    _report_keys: Callable[[], None]  # the providers have changed
    _last: _Loaded | None = attrs.field(default=None, init=False)  # good reload

    async def reload(self) -> ProviderSnapshot[Provider]:
        """Ask the control plane, and remember what goes with its answer."""
        began = Moment.now()
        snapshot = await self._remote.reload()
        self._last = _Loaded(snapshot, began, tuple(self._remote.rejected))
        return snapshot

    def note_applied(self, receipt: Receipt) -> None:
        """Pass a receipt on, and keep in the file what it is for."""
        last = self._last
        if last is None or (last.snapshot.revision, last.snapshot.epoch) != (
            receipt.revision,
            receipt.epoch,
        ):
            return  # a newer answer came meanwhile; its own receipt follows
        self._from_file = False
        if self._file is not None:
            self._file.keep(last.snapshot, last.began)
        failed = tuple(RejectedRow(row.name, row.reason) for row in receipt.failed)
        if receipt.revision is not None:
            rejected = (*last.rejected, *failed)
            self._remote.acknowledge(receipt.revision, rejected, epoch=receipt.epoch)
        self._report_keys()

    def report(self) -> SourceReport:
        """Return the report of a source that is a control plane."""
        status = self._remote.status
        problem = None
        if status.refused is not None:
            problem = f"the control plane {status}"
        source = "snapshot file" if self._from_file else "control plane"
        return SourceReport(source=source, connected=status.connected, problem=problem)

    def connection(self) -> Mapping[str, object]:
        """Return the state of the connection, for `/status`."""
        status = self._remote.status
        return {
            "connected": status.connected,
            "seconds": round(trio.current_time() - status.since, 1),
            "session": status.session,
            "sessions": status.sessions,
            "attempts": status.attempts,
            "software": status.software,
            "revision": status.revision,
            "problem": None if status.connected else str(status),
        }

    async def wait_refused(self) -> str:
        """Wait until it is certain that there will be nothing to serve."""
        if self._from_file:
            await trio.sleep_forever()
        await self._remote.wait_refused()
        return f"the control plane {self._remote.status}"


async def open_key_file(path: Path) -> FileInUse[Secret]:
    """Read a key file for the first time.

    Raises:
        StartError: it cannot be read, or does not hold one key.
    """
    key, mode = await trio.to_thread.run_sync(_read_key, path)
    if mode & 0o077:
        logger.warning("key file is readable by other users", extra={"path": str(path)})
    return FileInUse("gateway key", path, lambda: _read_key(path)[0], key)


def _read_key(path: Path) -> tuple[Secret, int]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_KEY_BYTES + 1).strip()
    except FileNotFoundError:
        raise StartError(
            f"--key-file {path}: does not exist; `bridgepool control-plane --gateway-key-file` or "
            "`bridgepool keys create gateway NAME` makes a key for it"
        ) from None
    except OSError as error:
        raise StartError(f"--key-file {path}: {error.strerror}") from None
    if not data or len(data) > _MAX_KEY_BYTES or not all(0x21 <= byte <= 0x7E for byte in data):
        raise StartError(f"--key-file {path}: does not hold one key")
    key = Secret(data.decode("ascii"))
    if kind := other_kind(key, GATEWAY_KEYS):
        raise StartError(
            f"--key-file {path}: holds a key of kind {kind}; a control plane takes one of kind "
            "gateway (bpg_…)"
        )
    return key, mode


@asynccontextmanager
async def open_control_source(
    options: GatewayOptions,
    usage: UsageSpool | None = None,
    *,
    limits: RemoteLimits = _REMOTE_LIMITS,
    authorization: AuthorizationLimits = _AUTHORIZATION_LIMITS,
    websocket_limits: WebSocketLimits = _WEBSOCKET_LIMITS,
) -> AsyncIterator[Source]:
    """Open the way to a control plane; it need not be there.

    Args:
        options: they were checked.
        usage: its records are sent there.
        limits: how long to wait for what.
        authorization: for how long answers about clients' keys are used.
        websocket_limits: of the connection.

    Raises:
        StartError: the options cannot be used.
    """
    if options.control is None or options.key_file is None:
        raise AssertionError("the options were not checked")
    url = check_url(options.control)
    key_file = await open_key_file(options.key_file)
    read_trust = partial(_tls_context, url, options.ca_file)
    trust = FileInUse(
        "CA certificates", options.ca_file or "those of the system", read_trust, read_trust()
    )
    files: list[FileInUse[Any]] = [key_file]
    if trust.value is not None:
        files.append(trust)
    file, loaded = None, None
    if options.snapshot_file is not None:
        keys = read_snapshot_keys(options.snapshot_key_file)
        file = SnapshotFile(options.snapshot_file, keys)
        if options.snapshot_key_file is not None:
            path = options.snapshot_key_file
            read_keys = partial(read_snapshot_keys, path)
            files.append(FileInUse("snapshot keys", path, read_keys, keys, file.use_keys))
        await trio.to_thread.run_sync(remove_drafts, file.path)
        loaded = await file.load()

    @asynccontextmanager
    async def connect() -> AsyncIterator[trio.abc.Channel[bytes]]:
        # Without SIGHUP, too: a refused gateway needs its new key as soon as it is there.
        await key_file.read_again(log_all=False)
        connector = websocket_connector(
            url, key_file.value, ssl_context=trust.value, limits=websocket_limits
        )
        try:
            async with connector() as channel:
                yield channel
        except HandshakeRefusedError as error:
            raise _name_right_port(error) from None

    async with (
        open_control_plane(
            connect,
            name=options.name,
            seen=loaded.snapshot if loaded is not None else None,
            limits=limits,
            authorization=authorization,
            usage=usage,
        ) as control,
        open_background_nursery() as nursery,
    ):
        remote, clients = control.providers, control.clients
        if file is not None:
            file.known_clients = clients.known_clients
            file.clients_changes = lambda: clients.changes
            nursery.start_soon(file.run)
        if loaded is not None:
            clients.remember_clients(loaded.clients, epoch=loaded.snapshot.epoch)
        plane = _ControlSource(remote, file, loaded is not None, control._key_reports.wake)
        yield Source(
            reloader=plane,
            changes=remote.changes,
            clients=clients,
            report=plane.report,
            connection=plane.connection,
            first=loaded.snapshot if loaded is not None else None,
            first_age=loaded.age if loaded is not None else 0.0,
            on_applied=plane.note_applied,
            follow_keys=control.report_keys,
            reconnect=remote.reconnect,
            files=files,
            wait_refused=plane.wait_refused,
        )


def _name_right_port(error: HandshakeRefusedError) -> HandshakeRefusedError:
    """Add which address `--control` takes to the refusal of what is not a control plane."""
    if error.code != "unexpected_status" or error.status >= 500:  # a balancer in front of one
        return error
    return HandshakeRefusedError(error.status, error.code, f"{error.reason}: {_RIGHT_PORT}")


def check_url(url: str) -> str:
    """Check the URL of a control plane, and log a warning if keys would cross the network
    unencrypted.

    Raises:
        StartError: it is not such a URL; the text does not repeat it, since it may hold a password.
    """
    try:
        origin, target = parse_websocket_url(url)
    except ValueError:
        origin, target = None, ""
    if origin is None or origin.port == 0 or "?" in target:
        raise StartError(f"--control: is not ws://HOST:PORT or wss://HOST:PORT; {_RIGHT_PORT}")
    if origin.scheme == "http" and not is_loopback(origin.host):
        logger.warning("--control is ws://; provider keys cross the network unencrypted")
    return url


def _tls_context(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    if not url.startswith("wss:"):
        if ca_file is not None:
            raise StartError("--ca-file requires a wss:// URL")
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise StartError(f"--ca-file {ca_file}: cannot be used: {error}") from None
