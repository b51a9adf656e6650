"""The last good snapshot in a file: what is kept, and what is not believed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from bridgepool import ProviderSnapshot
from bridgepool.gateway.control._encryption import EncryptionKeys, generate_encryption_key
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.sources import _snapshot_file as snapshot_file
from bridgepool.gateway.sources._authorization import KnownClient
from bridgepool.gateway.sources._moments import Moment
from bridgepool.gateway.sources._snapshot_file import (
    BadSnapshotError,
    SavedSnapshot,
    SnapshotFile,
    decode_snapshot,
    encode_snapshot,
    read_snapshot_keys,
)
from tests.waiting import wait_until

PROVIDERS = ProviderSnapshot(
    (
        Provider(
            name="a",
            type="openai",
            base_url="https://a.example/v1",
            keys=["sk-5ecre7-a", "sk-5ecre7-b"],
            headers={"openai-project": "p-5ecre7"},
        ),
        Provider(name="b", type="anthropic", base_url="https://b.example", enabled=False),
        Provider(name="c", type="openai", base_url="https://c.example/v1", key_env="C_KEY"),
        Provider(
            name="d",
            type="openai",
            base_url="http://127.0.0.1:8000/v1",
            client_keys=True,
            allow_private=True,
        ),
    ),
    revision=17,
    epoch="9f2c",
)
KEYS = EncryptionKeys([generate_encryption_key()])


def saved() -> SavedSnapshot:
    return SavedSnapshot.of(PROVIDERS, Moment.now())


async def write(path: Path, keys: EncryptionKeys | None = None) -> None:
    """Write a file as a gateway does."""
    file = SnapshotFile(path, keys, lambda: (KnownClient(b"d" * 32, "ada", "k1", 5.0),))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        file.keep(PROVIDERS, Moment.now())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keys", [None, KEYS])
async def test_what_was_kept_is_read_again(tmp_path: Path, keys: EncryptionKeys | None) -> None:
    path = tmp_path / "snapshot"
    await write(path, keys)
    found = await SnapshotFile(path, keys).load()
    assert found is not None
    assert found.snapshot == PROVIDERS
    assert 0 <= found.age < 60
    [client] = found.clients
    assert (client.digest, client.client_id, client.key_id) == (b"d" * 32, "ada", "k1")
    assert 5 <= client.age < 65
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["snapshot"]
    assert (b"5ecre7" in path.read_bytes()) is (keys is None)


async def test_it_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(b"old")
    path.chmod(0o644)
    other = path.open("rb")
    await write(path)
    with other:
        assert other.read() == b"old", "who had it open sees the old one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["snapshot"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def _of_another_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b" 1 plain", b" 2 plain", 1))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_cut, "is damaged"),
        (_flip, "is damaged"),
        (lambda path: path.write_bytes(b""), "is not a snapshot file"),
        (_of_another_version, "another version"),
        (lambda path: path.chmod(0o640), "mode 0600"),
        (lambda path: path.chmod(0o606), "mode 0600"),
        (_link, "symbolic links"),
        (_directory, "not a regular file"),
        (Path.unlink, "no snapshot file yet"),
    ],
)
async def test_what_cannot_be_believed_is_said_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], object], why: str
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "snapshot"
    await write(path)
    harm(path)
    assert await SnapshotFile(path).load() is None
    assert why in caplog.text
    assert "5ecre7" not in caplog.text


async def test_a_file_of_another_user_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshot"
    await write(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert await SnapshotFile(path).load() is None
    assert "belongs to another user" in caplog.text


async def test_the_key_must_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "snapshot"
    other = EncryptionKeys([generate_encryption_key()])
    for written, read, why in (
        (KEYS, None, "is encrypted, and no key"),
        (KEYS, other, "another key"),
        (None, KEYS, "is not encrypted"),
    ):
        await write(path, written)
        caplog.clear()
        assert await SnapshotFile(path, read).load() is None
        assert why in caplog.text
    await write(path, KEYS)
    rotated = EncryptionKeys([*other.keys, *KEYS.keys])
    assert await SnapshotFile(path, rotated).load() is not None


async def test_a_provider_that_this_version_cannot_use_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, *_ = rows = saved().rows
    strange = attrs.evolve(good, id="x", name="x", type="not-yet-known")
    path = tmp_path / "snapshot"
    path.write_bytes(encode_snapshot(attrs.evolve(saved(), rows=(strange, *rows)), None))
    path.chmod(0o600)
    found = await SnapshotFile(path).load()
    assert found is not None
    stand_in, *usable = found.snapshot.providers
    assert tuple(usable) == PROVIDERS.providers
    assert (stand_in.name, stand_in.problem is None) == ("x", False)
    assert "unusable provider in the snapshot file: x" in caplog.text


async def test_a_disk_that_does_not_take_it_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "folder"
    file = SnapshotFile(folder / "snapshot")
    file.keep(PROVIDERS, Moment.now())
    for _ in range(3):
        await file._save()
    assert caplog.text.count("snapshot file not written") == 1
    folder.mkdir()
    await file._save()
    assert "written again" in caplog.text
    assert await file.load() is not None


async def test_a_file_that_was_not_written_is_written_soon_after_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried again after five minutes, or with the next change."""
    monkeypatch.setattr(snapshot_file, "_LOOK_INTERVAL", 0.01)
    monkeypatch.setattr(snapshot_file, "_GATHER", 0)
    folder = tmp_path / "folder"
    file = SnapshotFile(folder / "snapshot")
    file.keep(PROVIDERS, Moment.now())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        with trio.fail_after(60):
            while not file._failing:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.001)
            folder.mkdir()
            while not file.path.exists():  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()


async def test_a_storm_of_changes_is_few_writes_and_the_last_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, writes = SnapshotFile(tmp_path / "snapshot"), []
    real = SnapshotFile._write

    def write(
        self: SnapshotFile, content: Callable[[], SavedSnapshot], clients: tuple[KnownClient, ...]
    ) -> None:
        writes.append(clients)
        real(self, content, clients)

    monkeypatch.setattr(SnapshotFile, "_write", write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        for revision in range(1000):
            file.keep(attrs.evolve(PROVIDERS, revision=revision), Moment.now())
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    found = await file.load()
    assert found is not None
    assert found.snapshot.revision == 999
    assert len(writes) <= 5


async def test_how_old_it_has_become_is_noted_while_nobody_confirms_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock set back between two starts must not make it fresh again."""
    monkeypatch.setattr(snapshot_file, "_NOTE_INTERVAL", 0.01)
    path = tmp_path / "snapshot"
    long_ago = Moment(Moment.now().wall - 5000, 1.0, "an earlier boot")
    data = encode_snapshot(attrs.evolve(saved(), confirmed=long_ago), None)
    path.write_bytes(data)
    path.chmod(0o600)
    file = SnapshotFile(path)
    found = await file.load()
    assert found is not None
    assert 5000 <= found.age < 5060
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        await wait_until(lambda: path.read_bytes() != data)
        nursery.cancel_scope.cancel()
    back = Moment(long_ago.wall + 1, 1.0, "a later boot")
    monkeypatch.setattr(Moment, "now", staticmethod(lambda: back))
    again = await SnapshotFile(path).load()
    assert again is not None
    assert again.age >= 5000


@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_hostile_bytes_are_refused_and_never_quoted(noise: bytes, at: int, fix: bool) -> None:
    good = encode_snapshot(saved(), None)
    head, digest, payload = good.split(b"\n", 2)
    payload = payload[:at] + noise + payload[at:]
    if fix:  # the checksum is right: what is in it is not
        digest = hashlib.sha256(payload).hexdigest().encode()
    refused: BadSnapshotError | None = None
    try:
        decode_snapshot(b"\n".join((head, digest, payload)), None)
    except BadSnapshotError as error:
        refused = error
    if refused is not None:
        assert "5ecre7" not in str(refused)
        assert refused.__context__ is None


def test_key_files_are_read_and_bad_ones_end_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    assert read_snapshot_keys(None) is None
    path.write_text("# made today\n" + generate_encryption_key().reveal() + "\n")
    path.chmod(0o600)
    assert read_snapshot_keys(path) is not None
    path.write_text("sk-5ecre7")
    for bad in (path, tmp_path / "none"):
        with pytest.raises(StartError, match="--snapshot-key-file") as caught:
            read_snapshot_keys(bad)
        assert "5ecre7" not in str(caught.value)
