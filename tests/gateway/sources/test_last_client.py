"""The first client that comes, and the last one that goes, while the gateway runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridgepool.gateway.control import find_encryption_keys, open_store
from bridgepool.gateway.sources._source import Source, open_file_source
from bridgepool.gateway.sources._store_source import open_store_source
from tests.gateway.control.stores import ADA, draft
from tests.gateway.providers.provider_files import text

OPEN = "no clients configured; serving every program on this machine"
CLOSED = "no clients configured; every request is refused"


def put(path: Path, *, client: bool) -> None:
    whole = text("openai")
    path.with_suffix(".new").write_text(whole if client else whole.partition("[[clients]]")[0])
    os.replace(path.with_suffix(".new"), path)


@pytest.mark.parametrize("allow_anonymous", [True, False])
async def test_a_file_whose_last_client_is_removed_says_what_the_gateway_does_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, allow_anonymous: bool
) -> None:
    """The gateway then serves every local program, or nobody; nothing logged that."""
    caplog.set_level("INFO")
    path = tmp_path / "providers.toml"
    put(path, client=True)
    async with open_file_source(path, allow_anonymous) as source:
        without = OPEN if allow_anonymous else CLOSED
        await _told_once(caplog, source, "clients configured")
        put(path, client=False)
        await _told_once(caplog, source, without)
        put(path, client=True)
        await _told_once(caplog, source, "clients configured")


async def test_a_store_whose_last_client_is_removed_says_what_the_gateway_does_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bridgepool.gateway")
    url = str(tmp_path / "store.db")
    async with open_store(url, find_encryption_keys(url)) as store:
        await store.add_provider(ADA, draft("openai", "sk-one"))
        async with open_store_source(url, None) as source:
            await _told_once(caplog, source, CLOSED)
            await store.add_client(ADA, "web")
            await _told_once(caplog, source, "clients configured")
            await store.remove_client(ADA, "web")
            await _told_once(caplog, source, CLOSED)


async def _told_once(caplog: pytest.LogCaptureFixture, source: Source, line: str) -> None:
    for _ in range(2):
        await source.reloader.reload()
    assert [one for one in caplog.messages if "client" in one] == [line]
    caplog.clear()
