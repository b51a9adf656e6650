"""The PostgreSQL servers that a URL names: how to connect to them, and what their errors mean.

A URL may name several servers, of which one is the primary and the others are standbys. A
connection is made to the one that can be written, so that nobody reads what is behind. Only if
that one is set to read-only may readers use it as it is. ``target_session_attrs`` in the URL
overrides both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import cycle
from typing import Final, final

import attrs
import psycopg
from psycopg import conninfo

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import (
    NotWritableError,
    StoreBrokenError,
    StoreUnavailableError,
)
from bridgepool.gateway.control.database._database import Row

# A server that vanished is noticed in half a minute.
_DEFAULTS: Final = {
    "application_name": "bridgepool",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_TARGET: Final = "target_session_attrs"
_ATTEMPT: Final = re.compile(  # of several, in the text of an error
    r"^- host: (?:None|'(.*?)'), port: (?:None|'(.*?)'), hostaddr: (?:None|'(.*?)'): (.*)$", re.M
)
_PREFIX: Final = re.compile(r"^(connection failed: )?(connection to server .*? failed: )?")
_READ_ONLY: Final = "session is read-only"


@final
@attrs.frozen
class Server:
    """A database, and how to connect to it."""

    label: str
    """Hosts, ports and name, for people."""
    _conninfo: Secret
    _hidden: tuple[Secret, ...]
    _target: str | None  # the attribute that the URL asks of a server

    @classmethod
    def parse(cls, url: Secret) -> Server:
        """Read a URL; raises `StoreUnavailableError`, which does not repeat it."""
        try:
            found = conninfo.conninfo_to_dict(url.reveal())
        except psycopg.Error:
            found = None
        # A password with a bare / ? or @ ends up in the host, the port or the name.
        if (
            found is None
            or "@" in f"{found.get('host')}{found.get('dbname')}"
            or not re.fullmatch(r"[\d,]*", str(found.get("port", "")))
        ):  # out of the handler: the error there quotes the URL
            raise StoreUnavailableError(
                "the URL of the store cannot be read: it is "
                "postgresql://user:password@host:port/name, with special characters as %XX"
            )
        hidden = tuple(Secret(str(found[name])) for name in ("password", "sslpassword")
                       if found.get(name))  # fmt: skip
        settings = {**_DEFAULTS, **found, "client_encoding": "utf8"}
        target = found.get(_TARGET)
        return cls(
            label=f"{_hosts(found)}/{found.get('dbname')}",
            conninfo=Secret(conninfo.make_conninfo("", **settings)),
            hidden=hidden,
            target=str(target) if target else None,
        )

    def connect(self, *, readonly: bool) -> tuple[psycopg.Connection[Row], bool]:
        """Connect; blocks for at most ``connect_timeout`` for each address of each host.

        Returns:
            The connection; and whether it may be kept, or another may be better by then.

        Raises:
            StoreUnavailableError: No server takes connections.
            NotWritableError: One does, but cannot be written, or for a reader is a standby.
        """
        if self._target is not None:
            return self._connect(self._target), True
        try:
            return self._connect("read-write"), True
        except NotWritableError:
            if not readonly:
                raise
        return self._connect("primary"), False

    def _connect(self, target: str) -> psycopg.Connection[Row]:
        try:
            connection = psycopg.Connection[Row].connect(
                self._conninfo.reveal(),
                autocommit=True,
                prepare_threshold=None,  # a migration elsewhere must not break what was prepared
                cursor_factory=psycopg.RawCursor,
                target_session_attrs=target,
            )
        except psycopg.Error as error:
            failure = self.unavailable(error)
        else:
            return connection
        raise failure  # out of the handler: frames in there know the password

    def unavailable(self, error: psycopg.Error) -> StoreUnavailableError:
        """Return an error with the reason, in one line and without the password."""
        reason = error.diag.message_primary or _connection_failure(str(error))
        for secret in self._hidden:
            reason = reason.replace(secret.reveal(), "***")
        read_only = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        if read_only or _READ_ONLY in reason:
            return self.not_writable(f"{reason}; the server is a standby, or is set to read-only")
        if isinstance(error, psycopg.errors.DiskFull):
            return self.not_writable(reason)
        return StoreUnavailableError(
            f"the store in PostgreSQL at {self.label} cannot be used: {reason or 'no reason given'}"
        )

    def not_writable(self, reason: str) -> NotWritableError:
        """Return an error that says so."""
        return NotWritableError(
            f"the store in PostgreSQL at {self.label} cannot be written: {reason}"
        )

    def broken(self, error: psycopg.Error) -> StoreBrokenError:
        """Return an error with what the database said, but for values."""
        # A message about bad data quotes it.
        quotes = isinstance(error, psycopg.DataError)
        reason = None if quotes else error.diag.message_primary
        return StoreBrokenError(
            f"the store in PostgreSQL at {self.label}", reason or type(error).__name__
        )


def _hosts(found: Mapping[str, object]) -> str:
    """Return each host with its port; one port may be that of all hosts."""
    hosts = str(found.get("host") or found.get("hostaddr") or "localhost").split(",")
    ports = str(found.get("port") or "5432").split(",")
    return ",".join(
        f"[{host}]:{port or 5432}" if ":" in host else f"{host or 'localhost'}:{port or 5432}"
        for host, port in zip(hosts, cycle(ports), strict=False)
    )


def _connection_failure(text: str) -> str:
    """Return in one line why there is no connection, for each of several hosts."""
    attempts = dict.fromkeys(
        f"{host or address or 'localhost'}:{port or 5432}: {_PREFIX.sub('', reason)}"
        for host, port, address, reason in _ATTEMPT.findall(text)
    )
    return "; ".join(attempts) or text.strip().partition("\n")[0]
