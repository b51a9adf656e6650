"""The first keys of a control plane, each in a file that is made when it is missing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bridgepool import Secret
from bridgepool.gateway.control._first_keys import ensure_key
from bridgepool.gateway.control._records import KeyKind
from bridgepool.gateway.serving._listening import StartError
from tests.gateway.control.stores import opened

every_kind = pytest.mark.parametrize("kind", ["admin", "gateway", "client"])


def key_in(path: Path) -> Secret:
    return Secret(path.read_text().strip())


@every_kind
async def test_a_key_is_made_once_into_a_file_that_nobody_else_reads(
    kind: KeyKind, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "the.key"
    async with opened(database_url) as store:
        await ensure_key(store, kind, path)
        made = path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await ensure_key(store, kind, path)
        assert path.read_text() == made
        assert len(await store.audit()) == 1


async def test_each_key_lets_in_whom_it_is_for(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url) as store:
        await ensure_key(store, "admin", tmp_path / "admin")
        await ensure_key(store, "gateway", tmp_path / "gateway")
        await ensure_key(store, "client", tmp_path / "client")
        admin = await store.authenticate("admin", key_in(tmp_path / "admin"))
        assert admin is not None
        assert admin.role == "write"
        assert await store.authenticate("gateway", key_in(tmp_path / "gateway")) is not None
        caller = await store.authenticate("client", key_in(tmp_path / "client"))
        assert caller is not None
        assert caller.name == "first"


async def test_a_client_whose_file_was_lost_gets_one_more_key(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url) as store:
        await ensure_key(store, "client", tmp_path / "one")
        await ensure_key(store, "client", tmp_path / "two")
        [client] = await store.list_clients()
        assert len(client.keys) == 2


@every_kind
async def test_a_file_that_cannot_be_used_ends_the_start_with_the_reason(
    kind: KeyKind, database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url) as store:
        (tmp_path / "other").write_text("bp_not_ours\n")
        with pytest.raises(StartError, match="remove the file to have one made"):
            await ensure_key(store, kind, tmp_path / "other")
        (tmp_path / "empty").write_text("")
        with pytest.raises(StartError, match="does not hold"):
            await ensure_key(store, kind, tmp_path / "empty")
        (tmp_path / "bytes").write_bytes(b"\xff")
        with pytest.raises(StartError, match="is not text"):
            await ensure_key(store, kind, tmp_path / "bytes")
        with pytest.raises(StartError, match="cannot be written"):
            await ensure_key(store, kind, tmp_path / "missing" / "the.key")
        clients = await store.list_clients()
        assert all(not client.keys for client in clients)
        assert not await store.list_keys("gateway")
        assert not await store.list_keys("admin")
