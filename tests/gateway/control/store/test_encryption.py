"""Encryption keys that change, and rows that no key decrypts."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway.control._errors import EncryptionError, InvalidChangeError
from bridgepool.gateway.control._hub import open_hub
from bridgepool.gateway.control._records import (
    KeyValue,
    ProviderPatch,
    RotationReport,
    StoreSnapshot,
)
from bridgepool.gateway.control._registration import registered
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.control.store._rotation import Rotation
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers import parse_provider_file
from tests.gateway.control.planes import wait_for
from tests.gateway.control.stores import ADA, Clock, draft, encryption, opened

SEED = """
[[providers]]
name = "seeded"
type = "openai"
base_url = "https://a.example/v1"
keys = []
"""


def _errors(caplog: pytest.LogCaptureFixture, field: str) -> list[str]:
    lines = [line for line in caplog.records if line.levelname == "ERROR"]
    return [getattr(line, field, "") for line in lines]


async def _content(store: Store) -> StoreSnapshot:
    """Read everything that gateways serve by, whatever its revision."""
    return attrs.evolve(await store.snapshot(), revisions=Revisions(0, 0, 0))


async def test_after_a_rotation_the_new_key_alone_reads_everything(database_url: str) -> None:
    async with opened(database_url, encryption("old")) as store:
        for number in range(60):  # more than are encrypted anew at once
            await store.add_provider(ADA, draft(f"p{number}", f"key-{number}"))
        before = await _content(store)
        audit = await store.audit()
    async with opened(database_url, encryption("new", "old")) as store:
        assert await _content(store) == before
        assert await store.rotate_encryption(ADA) == RotationReport(120, 0)
        assert await store.rotate_encryption(ADA) == RotationReport(0, 0)
    async with opened(database_url, encryption("new")) as store:
        assert await _content(store) == before
        (rotated, *others) = await store.audit()
        assert tuple(others) == audit
        assert (rotated.action, rotated.kind, rotated.actor) == (
            "encryption.rotate", "encryption", ADA,
        )  # fmt: skip
        assert rotated.before == {"keys": [encryption("old").current]}
        assert rotated.after == {"keys": [encryption("new").current]}


async def test_a_rotation_that_is_cut_is_audited_too_and_one_that_does_nothing_is_not(
    database_url: str,
) -> None:
    async with opened(database_url, encryption("old")) as store:
        for number in range(120):
            await store.add_client(ADA, f"client-{number}")
    async with opened(database_url, encryption("new", "old")) as store:
        steps: list[bool] = []

        async def write_once(function: Callable[[StoreTransaction], bool]) -> bool:
            if len(steps) == 3:  # there are no providers and no seed
                raise KeyboardInterrupt
            steps.append(await store._write(ADA, function))
            return steps[-1]

        with pytest.raises(KeyboardInterrupt):
            await Rotation().run(write_once)
        assert (await store.rotate_encryption(ADA)).rewritten > 0
        await store.rotate_encryption(ADA)
        actions = [entry.action for entry in await store.audit(limit=1000)]
        assert actions.count("encryption.rotate") == 2


async def test_a_rotation_that_was_cut_goes_on_where_it_was(database_url: str) -> None:
    async with opened(database_url, encryption("old")) as store:
        for number in range(60):
            await store.add_provider(ADA, draft(f"p{number}", f"key-{number}"))
        before = await _content(store)
    async with opened(database_url, encryption("new", "old")) as store:
        for ticks in (0, 3, 30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.rotate_encryption, ADA)
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert await _content(store) == before
        assert (await store.rotate_encryption(ADA)).unreadable == 0
    async with opened(database_url, encryption("new")) as store:
        assert await _content(store) == before


async def test_a_row_that_cannot_be_decrypted_is_its_own_trouble(database_url: str) -> None:
    async with opened(database_url, encryption("lost")) as store:
        await store.add_provider(ADA, draft("lost", "key-lost"))
    async with opened(database_url, encryption("new", "lost")) as store:
        await store.add_provider(ADA, draft("good", "key-good"))
    async with opened(database_url, encryption("new")) as store:
        snapshot = await store.snapshot()
        assert [row.name for row in snapshot.rows] == ["lost", "good"]
        assert [row.name for row in snapshot.unreadable] == ["lost"]
        assert await store.snapshot() == snapshot
        assert (snapshot.rows[0].base_url, snapshot.rows[0].keys) == ("", ())
        assert snapshot.rows[1].keys == (Secret("key-good"),)
        view = await store.get_provider("lost")
        assert view.problem is not None
        assert (await store.get_provider("good")).problem is None
        with pytest.raises(InvalidChangeError, match="lost"):
            await store.export_providers()
        assert (await store.rotate_encryption(ADA)).unreadable == 2  # its audit row, too


async def test_nothing_is_encrypted_with_a_key_of_which_the_store_has_no_provider(
    database_url: str,
) -> None:
    async with opened(database_url, encryption("right")) as store:
        await store.add_client(ADA, "alice")
        await store.add_provider(ADA, draft("one", "key-one"))
        revisions, audit = await store.revisions(), await store.audit()
    async with opened(database_url, encryption("wrong")) as store:
        with pytest.raises(EncryptionError, match="none of the 1 providers"):
            await store.check_readable()
        for change in (
            partial(store.add_provider, ADA, draft("two", "key-two")),
            partial(store.apply_providers, ADA, [draft("two", "key-two")], prune=True),
            partial(store.add_client, ADA, "bob"),
            partial(store.add_client_key, ADA, "alice"),
            partial(store.remove_client, ADA, "alice"),
            partial(store.create_admin_key, ADA, "ada", "write"),
            partial(store.create_gateway_key, ADA, "front"),
            partial(store.seed, parse_provider_file(SEED)),
        ):
            with pytest.raises(EncryptionError, match="nothing was changed"):
                await change()
        assert await store.revisions() == revisions
    async with opened(database_url, encryption("right")) as store:
        await store.check_readable()
        assert await store.audit() == audit
    async with opened(database_url, encryption("new", "right")) as store:
        await store.add_provider(ADA, draft("two", "key-two"))


async def test_a_repair_with_a_wrong_key_leaves_nothing_that_the_right_one_cannot_read(
    database_url: str,
) -> None:
    async with opened(database_url, encryption("right")) as store:
        for name in ("one", "two", "three"):
            await store.add_provider(ADA, draft(name, "key"))
    async with opened(database_url, encryption("wrong")) as store:
        await store.update_provider(ADA, "two", ProviderPatch(enabled=False))
        await store.remove_provider(ADA, "three")
    async with opened(database_url, encryption("new", "right")) as store:
        assert [entry.problem is None for entry in await store.audit()][:3] == [False, False, True]
        assert (await store.rotate_encryption(ADA)).unreadable == 0
    async with opened(database_url, encryption("new")) as store:
        assert await store.unreadable() == ()


async def test_each_row_that_cannot_be_decrypted_is_logged_when_a_reading_brings_it(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        opened(database_url, encryption("old")) as store,
        opened(database_url, encryption("new", "old")) as other,
    ):
        await store.add_provider(ADA, draft("one", "key-one"))
        await store.snapshot()
        await other.add_provider(ADA, draft("two", "key-two"))
        await other.add_provider(ADA, draft("three", "key-three"))
        for _ in range(2):
            await store.snapshot()
        assert _errors(caplog, "provider") == ["two", "three"]
        assert encryption("new").current in _errors(caplog, "reason")[0]
        assert [row.name for row in await store.unreadable()] == ["two", "three"]
        await store.check_readable()  # one of them can be read
        await other.add_provider(ADA, draft("four", "key-four"))
        await store.snapshot()
        assert _errors(caplog, "provider")[2:] == ["four"]
        assert "key-" not in caplog.text


async def test_a_row_that_cannot_be_decrypted_can_be_switched_off_replaced_and_removed(
    database_url: str,
) -> None:
    async with opened(database_url, encryption("lost")) as store:
        await store.add_provider(ADA, draft("one", "key-lost"))
        await store.add_provider(ADA, draft("two", "key-lost"))
    async with opened(database_url, encryption("new")) as store:
        off = await store.update_provider(
            ADA, "one", ProviderPatch(enabled=False), allow_empty=True
        )
        assert (off.changed, off.provider.enabled, off.provider.problem is None) == (
            True,
            False,
            False,
        )
        assert not (
            await store.update_provider(ADA, "one", ProviderPatch(enabled=False), allow_empty=True)
        ).changed
        with pytest.raises(InvalidChangeError, match="give base_url"):
            await store.update_provider(ADA, "one", ProviderPatch(name="new-name"))
        patch = ProviderPatch(base_url="https://x.example", keys=[KeyValue(Secret("key-new"))])
        repaired = await store.update_provider(ADA, "one", patch)
        assert repaired.provider.problem is None
        await store.remove_provider(ADA, "two", allow_empty=True)
        assert (await store.snapshot()).unreadable == ()


async def test_a_key_is_not_dropped_while_a_running_program_lacks_its_successor(
    database_url: str,
) -> None:
    clock = Clock()
    async with (
        opened(database_url, encryption("old"), clock=clock) as plane,
        opened(database_url, encryption("old", "new"), clock=clock) as other,
        opened(database_url, encryption("new", "old"), clock=clock) as rotating,
    ):
        await plane.add_provider(ADA, draft("one", "key-one"))
        assert await plane.programs.register("control plane", "cp-1") == ()
        assert await other.programs.register("control plane", "cp-2") == ()
        [lacking] = await rotating.programs.register("control plane", "cp-3")
        assert (lacking.program, lacking.name) == ("control plane", "cp-1")
        assert lacking.keys == encryption("old").names
        for refused in (partial(rotating.rotate_encryption, ADA), rotating.programs.check_keys):
            with pytest.raises(EncryptionError, match="missing in control plane cp-1") as caught:
                await refused()
            assert encryption("new").current in str(caught.value)
            assert "cp-2" not in str(caught.value)
        assert (await plane.get_provider("one")).problem is None
        # It is registered for as long as it gives signs of life, and then a while.
        clock.now += 59
        await plane.programs.register("control plane", "cp-1")
        clock.now += 59
        with pytest.raises(EncryptionError):
            await rotating.rotate_encryption(ADA)
        clock.now += 2  # it was killed
        assert (await rotating.rotate_encryption(ADA)).rewritten == 2


async def test_a_program_that_has_ended_needs_no_key_any_more(database_url: str) -> None:
    async with (
        opened(database_url, encryption("old")) as plane,
        opened(database_url, encryption("new", "old")) as rotating,
    ):
        await plane.add_provider(ADA, draft("one", "key-one"))
        async with open_hub(plane):
            with pytest.raises(EncryptionError, match=r"is missing in control plane "):
                await rotating.rotate_encryption(ADA)
        assert (await rotating.rotate_encryption(ADA)).unreadable == 0


async def test_a_program_is_registered_again_every_few_seconds(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with (
        opened(database_url, encryption("old"), clock=clock) as plane,
        opened(database_url, encryption("new", "old"), clock=clock) as rotating,
    ):

        async def is_registered() -> bool:
            try:
                await rotating.programs.check_keys()
            except EncryptionError as error:
                return "missing in gateway g-1" in str(error)
            return False

        async with (
            registered(plane, "gateway", "g-1", interval=0.01),
            registered(rotating, "gateway", "g-2", interval=0.01),
        ):
            for _ in range(3):
                clock.now += 1000
                await wait_for(is_registered)
        assert not await is_registered()
    warned = [line for line in caplog.records if "missing in another" in line.getMessage()]
    assert [getattr(line, "name_of_program", "") for line in warned] == ["g-1"]


async def test_a_program_starts_and_ends_though_it_cannot_register(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a minute it counts as ended, and nobody asks which keys it uses. So that is logged."""
    path = tmp_path / "store.db"
    async with opened(str(path)) as store:
        await store.revisions()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE programs")
        async with registered(store, "gateway", "g-1", interval=0.001):
            await trio.sleep(0.01)
    logged = [one.levelname for one in caplog.records if "registered" in one.message]
    assert logged == ["ERROR"]
