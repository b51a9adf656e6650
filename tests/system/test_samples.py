"""What earlier code wrote is read and served: see tests/samples/README.md."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import psycopg
import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway.control._encryption import read_encryption_keys
from bridgepool.gateway.control._records import Actor, ProviderPatch
from bridgepool.gateway.control.store import Store, open_store
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.providers import Caller, Provider, ProviderFile, parse_provider_file
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.sources._snapshot_file import decode_snapshot, read_snapshot_keys
from bridgepool.http import Headers, open_upstream_client, serve_http
from tests.e2e.asking import ask, ready, wait_model
from tests.e2e.process import run_gateway, run_gateway_of
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.samples import samples
from tests.samples.samples import SampleProvider
from tests.system.asking import Home
from tests.system.command import run_to_end
from tests.system.rig import run_plane

_GATEWAY_ENVIRON = {
    "SAMPLE_FILE_KEY": "sk-of-the-file-in-the-environment",
    "SAMPLE_MADE_KEY": "sk-of-the-store-in-the-environment",
}
_ADA = samples.CLIENT_KEYS["ada"][0]


def copy(name: str, into: Path, as_name: str | None = None) -> Path:
    """Copy a sample to where it can be written, with the mode that git does not keep."""
    path = into / (as_name or name)
    shutil.copyfile(samples.FOLDER / name, path)
    path.chmod(0o600)
    return path


def write_key(path: Path, key: str) -> None:
    path.write_text(key + "\n")
    path.chmod(0o600)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a copy of the sample store, once in each engine."""
    if request.param == "sqlite":
        yield str(copy("store.db", tmp_path))
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.lend_database() as url:
        with psycopg.connect(url) as connection:
            connection.execute((samples.FOLDER / "store.sql").read_bytes())
        yield url


@pytest.fixture
async def home(store_url: str, tmp_path: Path) -> Home:
    """Where a control plane of the sample store has everything."""
    home = Home(tmp_path, store_url, free_port(), free_port())
    copy("store.key", tmp_path, home.encryption_file.name)
    write_key(home.admin_file, samples.ADMIN_KEYS["writer"][1])
    write_key(home.gateway_file, samples.GATEWAY_KEYS["north"])
    write_key(home.client_file, _ADA)
    return home


@pytest.fixture
async def upstream(nursery: trio.Nursery) -> SimulatedUpstream:
    """The upstream that the samples name.

    Its address is fixed, for a snapshot file cannot be edited. On that address of loopback
    nobody else listens, but for another run of these tests, whose end is waited for.
    """
    with trio.fail_after(120):
        while True:
            try:
                listeners = await trio.open_tcp_listeners(samples.PORT, host=samples.HOST)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await trio.sleep(0.05)
    upstream = SimulatedUpstream("sample")
    nursery.start_soon(serve_http, upstream.handle, listeners)
    return upstream


@asynccontextmanager
async def opened(home: Home) -> AsyncIterator[Store]:
    keys = await trio.to_thread.run_sync(read_encryption_keys, home.encryption_file)
    async with open_store(home.store_url, keys) as store:
        yield store


def described(provider: Provider | ProviderRow) -> SampleProvider:
    """Return all that is to be compared of a provider, with its secrets in the clear."""
    return SampleProvider(
        name=provider.name,
        type=provider.type,
        base_url=str(provider.base_url),
        keys=tuple(key.reveal() for key in provider.keys),
        key_env=provider.key_env,
        client_keys=provider.client_keys is True,
        enabled=provider.enabled,
        headers=tuple((name, value.reveal()) for name, value in provider.headers),
        allow_private=provider.allow_private,
    )


def as_sent(providers: Iterable[SampleProvider]) -> tuple[SampleProvider, ...]:
    """Return providers as gateways have them: the disabled ones without secrets."""
    return tuple(
        one if one.enabled else attrs.evolve(one, keys=(), headers=()) for one in providers
    )


def seed_file(text: str | None = None) -> ProviderFile:
    return parse_provider_file(text or (samples.FOLDER / "seed.toml").read_text())


def pairs(keys: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    return [(client, key) for client, of_client in keys.items() for key in of_client]


# -- reading -----------------------------------------------------------------------------------


def test_the_provider_file_gives_exactly_its_providers_and_clients() -> None:
    parsed = parse_provider_file((samples.FOLDER / "providers.toml").read_text())
    assert tuple(map(described, parsed.providers)) == samples.FILE_PROVIDERS
    assert [client.id for client in parsed.clients.rows] == list(samples.FILE_CLIENT_KEYS)
    for client, key in pairs(samples.FILE_CLIENT_KEYS):
        caller = parsed.clients.authenticate(key.encode())
        assert caller is not None
        assert caller.client_id == client


async def test_the_store_gives_exactly_its_providers(home: Home) -> None:
    async with opened(home) as store:
        snapshot = await store.snapshot()
        assert snapshot.revisions.revision == samples.REVISION
        assert tuple(map(described, snapshot.rows)) == as_sent(samples.STORE_PROVIDERS)
        assert snapshot.unreadable == ()
        shown = await store.list_providers()
        assert [one.name for one in shown] == [one.name for one in samples.STORE_PROVIDERS]
        assert {one.problem for one in shown} == {None}
        for one in samples.STORE_PROVIDERS:  # what is disabled keeps its secrets in the store
            await store.update_provider(
                Actor("local", "test"), one.name, ProviderPatch(enabled=True)
            )
        enabled = [attrs.evolve(one, enabled=True) for one in samples.STORE_PROVIDERS]
        assert list(map(described, (await store.snapshot()).rows)) == enabled


async def test_the_store_knows_exactly_the_keys_that_are_good(home: Home) -> None:
    async with opened(home) as store:
        clients = (await store.snapshot()).clients
        for client, key in pairs(samples.CLIENT_KEYS):
            stored = await store.authenticate("client", Secret(key))
            assert stored is not None
            assert stored.name == client
            assert clients.authenticate(key.encode()) == Caller(client, stored.id)
        for _, key in pairs(samples.REVOKED_CLIENT_KEYS):
            assert await store.authenticate("client", Secret(key)) is None
            assert clients.authenticate(key.encode()) is None
        for gateway, key in samples.GATEWAY_KEYS.items():
            found = await store.authenticate("gateway", Secret(key))
            assert found is not None
            assert found.name == gateway
        for admin, (role, key) in samples.ADMIN_KEYS.items():
            found = await store.authenticate("admin", Secret(key))
            assert found is not None
            assert (found.name, found.role) == (admin, role)
        assert await store.authenticate("gateway", Secret(samples.REVOKED_GATEWAY_KEY)) is None
        assert await store.authenticate("admin", Secret(samples.REVOKED_ADMIN_KEY)) is None


async def test_the_stores_audit_and_gateways_are_read(home: Home) -> None:
    async with opened(home) as store:
        entries = await store.audit(limit=1000)
        assert len(entries) == samples.AUDIT_ENTRIES
        assert all(entry.before is not None or entry.after is not None for entry in entries)
        assert {entry.actor.kind for entry in entries} == {"seed", "program", "admin", "local"}
        gateways = await store.list_gateways()
        assert {(one.gateway, one.revision) for one in gateways} == {("first", samples.REVISION)}
        assert {rejected.name for one in gateways for rejected in one.rejected} == {"seed-env"}


async def test_the_same_seed_again_changes_nothing_and_gives_no_new_drift(home: Home) -> None:
    async with opened(home) as store:
        report = await store.seed(seed_file())
        assert (report.changed, report.applied) == (False, ())
        drift = [(row.kind, row.name, row.reason) for row in report.drift]
        assert sorted(drift) == sorted(samples.SEED_DRIFT)
        assert (await store.revisions()).revision == samples.REVISION
        assert len(await store.audit(limit=1000)) == samples.AUDIT_ENTRIES


async def test_a_seed_that_was_edited_changes_what_nobody_changed_by_hand(home: Home) -> None:
    text = (samples.FOLDER / "seed.toml").read_text()
    edited = text.replace("bring.example.com", "new.example.com").replace("-full-2-", "-full-3-")
    async with opened(home) as store:
        report = await store.seed(seed_file(edited))
        assert report.applied == ("seed-full", "seed-bring")
        drift = [(row.kind, row.name, row.reason) for row in report.drift]
        assert sorted(drift) == sorted(samples.SEED_DRIFT)
        rows = {row.name: described(row) for row in (await store.snapshot()).rows}
        assert rows["seed-bring"].base_url == "https://new.example.com/v1"
        assert rows["seed-full"].keys[1] == "sk-sample-seed-full-3-0123456789abcdef"


async def test_the_store_is_encrypted_anew_under_its_first_key(home: Home) -> None:
    async with opened(home) as store:
        report = await store.rotate_encryption(Actor("local", "ann"))
        assert report.rewritten > 0
        assert report.unreadable == 0
    first = home.encryption_file.read_text().splitlines()[0]
    write_key(home.encryption_file, first)
    async with opened(home) as store:
        assert tuple(map(described, (await store.snapshot()).rows)) == as_sent(
            samples.STORE_PROVIDERS
        )


@pytest.mark.parametrize("name", ["snapshot", "snapshot.encrypted"])
def test_a_snapshot_file_gives_exactly_its_providers(name: str, tmp_path: Path) -> None:
    key_file = copy("snapshot.key", tmp_path) if name == "snapshot.encrypted" else None
    data = (samples.FOLDER / name).read_bytes()
    saved = decode_snapshot(data, read_snapshot_keys(key_file))
    snapshot, rejected = saved.snapshot()
    assert snapshot.revision == samples.REVISION
    assert tuple(map(described, snapshot.providers)) == as_sent(samples.STORE_PROVIDERS)
    assert rejected == ()
    assert [client.client_id for client in saved.clients] == ["ada", "seed-two"]


# -- serving -----------------------------------------------------------------------------------


async def assert_served(
    url: str, client_key: str, upstream: SimulatedUpstream, providers: Iterable[SampleProvider]
) -> None:
    """Ask for each provider that can be asked for here, and look at what its upstream got."""
    for provider in providers:
        if not provider.enabled:
            assert (await ask(url, client_key, provider.name)).code == "provider_disabled"
        elif provider.is_local:
            await _assert_one_served(url, client_key, upstream, provider)


async def _assert_one_served(
    url: str, client_key: str, upstream: SimulatedUpstream, provider: SampleProvider
) -> None:
    key = "sk-of-the-client"
    if provider.key_env is not None:
        key = _GATEWAY_ENVIRON[provider.key_env]
    elif not provider.client_keys:
        key = provider.keys[0]
    credentials = {"openai": (b"authorization", b"Bearer "), "anthropic": (b"x-api-key", b"")}
    header, prefix = credentials[provider.type]
    paths = {"openai": "chat/completions", "anthropic": "messages"}
    headers: Headers = ((b"x-bridgepool-key", client_key.encode()),)
    if provider.client_keys:
        headers += ((header, prefix + key.encode()),)
    target = f"/{provider.name}/v1/{paths[provider.type]}".encode()
    async with (
        open_upstream_client(url) as client,
        client.request(b"POST", target, headers, b'{"model": "m"}') as response,
    ):
        answer = b""
        while piece := await response.receive_some():
            answer += piece
    assert response.status == 200, answer
    assert json.loads(answer)["model"] == "m@sample"
    got = upstream.received[-1]
    assert got.header(header) == prefix + key.encode()
    for name, value in provider.headers:
        assert got.header(name.encode()) == value.encode()


async def test_the_provider_file_is_served(upstream: SimulatedUpstream, tmp_path: Path) -> None:
    path = copy("providers.toml", tmp_path)
    async with run_gateway(path, env=_GATEWAY_ENVIRON) as gateway:
        for _, key in pairs(samples.FILE_CLIENT_KEYS):
            await assert_served(gateway.url, key, upstream, samples.FILE_PROVIDERS)
        assert (await ask(gateway.url, _ADA, "file-full")).status == 401
        await gateway.stop()


async def test_the_store_is_served_and_can_be_changed_meanwhile(
    home: Home, upstream: SimulatedUpstream, north: SimulatedUpstream
) -> None:
    environ = home.environ | _GATEWAY_ENVIRON
    async with run_gateway_of(*home.embedded(), env=environ) as gateway:
        answer = await ready(gateway.url)
        assert answer.document["revision"] == samples.REVISION
        await assert_served(gateway.url, _ADA, upstream, samples.STORE_PROVIDERS)
        await assert_keys(gateway.url)
        change = ("providers", "update", "seed-full", "--base-url", north.openai_url)
        command = await run_to_end(*change, *home.embedded(), env=home.environ)
        assert command.status == 0, command.everything
        await wait_model(gateway.url, _ADA, "m@north", "seed-full")
        assert north.received[-1].header(b"x-team") == b"team of the seed"
        await gateway.stop()


async def test_a_control_plane_on_the_store_is_followed_and_served(
    home: Home, upstream: SimulatedUpstream, north: SimulatedUpstream
) -> None:
    seed = copy("seed.toml", home.folder)
    async with (
        run_plane(home, "--seed", str(seed)),
        run_gateway_of(*home.standalone(), env=_GATEWAY_ENVIRON) as gateway,
    ):
        await wait_model(gateway.url, _ADA, "m@sample", "seed-full")
        assert (await ready(gateway.url)).document["revision"] == samples.REVISION
        await assert_served(gateway.url, _ADA, upstream, samples.STORE_PROVIDERS)
        await assert_keys(gateway.url)
        revision = await home.change("seed-full", base_url=north.openai_url)
        await home.wait_applied(revision)
        await wait_model(gateway.url, _ADA, "m@north", "seed-full")
        await gateway.stop()


async def assert_keys(url: str) -> None:
    """Ask with every key of a client of the store."""
    for _, key in pairs(samples.CLIENT_KEYS):
        assert (await ask(url, key, "made-again")).status == 200
    for _, key in pairs(samples.REVOKED_CLIENT_KEYS):
        assert (await ask(url, key, "made-again")).status == 401


@pytest.mark.parametrize("name", ["snapshot", "snapshot.encrypted"])
async def test_a_snapshot_file_is_served_while_no_control_plane_is_up(
    name: str, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """A minute after it was written: a client that was known is let in for a day."""
    options = await _snapshot_options(name, tmp_path)
    environ = _GATEWAY_ENVIRON | _set_clock(samples.SNAPSHOT_WRITTEN + 60, tmp_path)
    async with run_gateway_of(*options, env=environ) as gateway:
        answer = await ready(gateway.url)
        assert answer.status == 200
        assert answer.document["source"] == "snapshot file"
        assert answer.document["revision"] == samples.REVISION
        assert 50 < float(str(answer.document["age"])) < 600
        for key in samples.SNAPSHOT_CLIENT_KEYS:
            await assert_served(gateway.url, key, upstream, samples.STORE_PROVIDERS)
        unknown = await ask(gateway.url, samples.CLIENT_KEYS["first"][0], "made-again")
        assert unknown.code == "authorization_unavailable"
        await gateway.stop()


async def test_a_snapshot_file_is_used_however_old_it_is(tmp_path: Path) -> None:
    options = await _snapshot_options("snapshot", tmp_path)
    environ = _GATEWAY_ENVIRON | _set_clock(samples.SNAPSHOT_WRITTEN + 3e8, tmp_path)
    async with run_gateway_of(*options, env=environ) as gateway:
        answer = await ready(gateway.url)
        assert (answer.status, answer.document["revision"]) == (200, samples.REVISION)
        known = await ask(gateway.url, samples.SNAPSHOT_CLIENT_KEYS[0], "made-again")
        assert known.code == "authorization_unavailable"
        await gateway.stop()


async def _snapshot_options(name: str, folder: Path) -> list[str]:
    """Return the options of a gateway whose control plane is not there."""
    key_file = folder / "gateway.key"
    write_key(key_file, samples.GATEWAY_KEYS["north"])
    control = f"ws://127.0.0.1:{free_port()}"
    options: list[str] = ["--control", control, "--key-file", str(key_file), "--name", "front"]
    options += ["--snapshot-file", str(copy(name, folder, "snapshot"))]
    if name == "snapshot.encrypted":
        options += ["--snapshot-key-file", str(copy("snapshot.key", folder))]
    return options


def _set_clock(now: float, folder: Path) -> dict[str, str]:
    """Return the environment of a Python process whose wall clock begins so."""
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "_clock = time.time\n"
        f"_offset = {now!r} - _clock()\n"
        "time.time = lambda: _clock() + _offset\n"
    )
    return {"PYTHONPATH": str(folder)}
