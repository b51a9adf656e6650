"""At SIGHUP programs read their encryption keys again; with a bad file the previous ones stay."""

from __future__ import annotations

import signal
from pathlib import Path

import trio

from bridgepool.gateway.control._encryption import (
    EncryptionKeys,
    add_encryption_key,
    generate_encryption_key,
    promote_encryption_key,
)
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.sources._snapshot_file import BadSnapshotError, decode_snapshot
from tests.e2e.process import GatewayProcess
from tests.system.asking import GENEROUS
from tests.system.command import run_to_end
from tests.system.rig import control_source, open_front, open_plane, run_front, run_plane
from tests.system.test_wrong_encryption_key import make_store

KEPT = "file cannot be used; keeping what it held before"


async def hang_up(event: str, *programs: GatewayProcess, **fields: object) -> None:
    for program in programs:
        seen = len(program.stderr.lines)
        program.signal(signal.SIGHUP)
        await program.wait_event(event, after=seen, **fields)


async def test_the_encryption_keys_of_a_store_are_read_again_at_hangup(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    good = home.encryption_file.read_text()
    both = add_encryption_key(home.encryption_file)
    promote_encryption_key(home.encryption_file)
    async with open_plane(home):
        await home.add("newer", north, "sk-newer")
    home.encryption_file.write_text(both.keys[-1].reveal())
    async with (
        run_plane(home) as plane,
        run_front(home, *home.embedded()) as (embedded, gateway),
        open_front(home, control_source(home)) as (front, _),
    ):
        await front.wait_outcome("north", "newer")
        for one in (front, embedded):
            assert await one.outcome("ai") == "provider_misconfigured"

        home.encryption_file.write_text(f"{both.keys[-1].reveal()}\n{good}")
        await hang_up("file read again", plane, gateway, kind="encryption keys")
        for one in (front, embedded):
            await one.wait_outcome("north", "ai")

        for bad in (None, "no key", generate_encryption_key().reveal(), good):
            home.encryption_file.unlink() if bad is None else home.encryption_file.write_text(bad)
            home.encryption_file.parent.mkdir(exist_ok=True)
            await hang_up(KEPT, plane, gateway, kind="encryption keys")
        await home.change("other", enabled=False)
        for one in (front, embedded):
            await one.wait_outcome("provider_disabled", "other")
            assert await one.outcome("ai") == "north"
        assert "sk-" not in plane.everything + gateway.everything

        home.encryption_file.write_text(f"{both.keys[-1].reveal()}\n{good}")
        where = ("--store", home.store_url, "--encryption-key-file", str(home.encryption_file))
        done = await run_to_end("encryption", "rotate", *where, "--drop-old", env=home.environ)
        assert done.status == 0, done.everything
        await hang_up("file read again", plane, gateway, kind="encryption keys")
        await home.change("other", enabled=True)
        for one in (front, embedded):
            await one.wait_outcome("north", "other")


async def test_the_keys_of_a_snapshot_file_are_read_again_at_hangup(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_store(tmp_path, north)
    file, key_file = tmp_path / "snapshot", tmp_path / "snapshot.key"
    first, second = (EncryptionKeys((generate_encryption_key(),)) for _ in range(2))
    options = ("--snapshot-file", str(file), "--snapshot-key-file", str(key_file))

    async def wait_readable(keys: EncryptionKeys) -> None:
        with trio.fail_after(GENEROUS):
            while True:
                try:
                    decode_snapshot(file.read_bytes(), keys)
                except (BadSnapshotError, FileNotFoundError):
                    await trio.sleep(0.01)
                else:
                    return

    key_file.write_text(first.keys[0].reveal())
    async with open_plane(home), run_front(home, *home.standalone(), *options) as (front, gateway):
        await front.wait_outcome("north")
        await wait_readable(first)
        key_file.write_text("no key")
        await hang_up(KEPT, gateway, kind="snapshot keys")
        key_file.write_text(second.keys[0].reveal())
        gateway.signal(signal.SIGHUP)
        await wait_readable(second)
