"""Random scripts of changes, held against a naive model of what a store is."""

from collections.abc import Awaitable, Callable

import attrs
import hypothesis
import hypothesis.strategies as st
import trio

from bridgepool import Secret
from bridgepool.gateway.control._errors import (
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
)
from bridgepool.gateway.control._records import KeyValue, ProviderDraft, ProviderPatch
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.providers import Clients, Provider, ProviderFile
from tests.gateway.control.stores import ADA, Clock, opened

NAMES = ("one", "two")
TABLES = ("providers", "clients", "access_keys", "audit", "seeds", "gateways")


@attrs.frozen
class Row:
    """All that the scripts vary of a provider."""

    name: str
    host: str
    keys: tuple[str, ...]
    enabled: bool

    @property
    def url(self) -> str:
        return f"https://{self.host}"

    @property
    def values(self) -> tuple[KeyValue, ...]:
        return tuple(KeyValue(Secret(key)) for key in self.keys)

    @property
    def good(self) -> bool:
        return self.name in NAMES and len(set(self.keys)) == len(self.keys)

    def draft(self) -> ProviderDraft:
        return ProviderDraft(
            name=self.name,
            type="openai",
            base_url=self.url,
            keys=self.values,
            enabled=self.enabled,
        )

    def provider(self) -> Provider:
        return Provider(
            name=self.name,
            type="openai",
            base_url=self.url,
            keys=self.keys,
            enabled=self.enabled,
        )


@attrs.define(eq=False)
class Model:
    """What a store is: rows in order, by their ids; what the seed said; two numbers."""

    rows: dict[str, Row] = attrs.field(factory=dict)
    said: dict[str, tuple[str, Row]] = attrs.field(factory=dict)  # name -> id, row
    revision: int = 0
    changes: int = 0  # as many audit rows

    def id_of(self, name: str) -> str | None:
        return next((row_id for row_id, row in self.rows.items() if row.name == name), None)

    def set(self, row_id: str, row: Row) -> bool:
        if self.rows.get(row_id) == row:
            return False
        self.rows[row_id] = row
        self.changes += 1
        return True

    def drop(self, row_id: str) -> None:
        del self.rows[row_id]
        self.changes += 1


Step = Callable[[Store, Model], Awaitable[None]]


def add(row: Row) -> Step:
    async def do(store: Store, model: Model) -> None:
        taken = model.id_of(row.name) is not None
        try:
            change = await store.add_provider(ADA, row.draft())
        except InvalidChangeError:
            assert not row.good
        except NameTakenError:
            assert taken
        else:
            assert row.good
            assert not taken
            assert model.set(change.provider.id, row)
            model.revision += 1
            assert change.changed

    return do


def change(name: str, row: Row) -> Step:
    async def do(store: Store, model: Model) -> None:
        row_id, other = model.id_of(name), model.id_of(row.name)
        patch = ProviderPatch(name=row.name, base_url=row.url, keys=row.values, enabled=row.enabled)
        try:
            before = await store.get_provider(name)
            change = await store.update_provider(ADA, name, patch, allow_empty=True)
        except NotFoundError:
            assert row_id is None
        except InvalidChangeError:
            assert not row.good
        except NameTakenError:
            assert other not in (None, row_id)
        else:
            assert row_id == change.provider.id == before.id
            had = dict(zip(model.rows[row_id].keys, before.keys, strict=True))
            for key, view in zip(row.keys, change.provider.keys, strict=True):
                assert had.get(key, view) == view  # a key that stays keeps its id
            changed = model.set(row_id, row)
            model.revision += changed
            assert change.changed == changed

    return do


def remove(name: str) -> Step:
    async def do(store: Store, model: Model) -> None:
        row_id = model.id_of(name)
        try:
            await store.remove_provider(ADA, name, allow_empty=True)
        except NotFoundError:
            assert row_id is None
        else:
            assert row_id is not None
            model.drop(row_id)
            model.revision += 1

    return do


def apply(rows: list[Row], prune: bool) -> Step:
    async def do(store: Store, model: Model) -> None:
        drafts = [row.draft() for row in rows]
        try:
            dry = await store.apply_providers(
                ADA, drafts, prune=prune, dry_run=True, allow_empty=True
            )
            result = await store.apply_providers(ADA, drafts, prune=prune, allow_empty=True)
        except InvalidChangeError:
            names = [row.name for row in rows]
            assert len(set(names)) < len(names) or not all(row.good for row in rows)
            return
        assert (dry.changed, dry.providers) == (result.changed, result.providers)
        before = model.changes
        for row in rows:
            row_id = model.id_of(row.name) or (await store.get_provider(row.name)).id
            model.set(row_id, row)
        for row_id, row in list(model.rows.items()):
            if prune and row.name not in [wanted.name for wanted in rows]:
                model.drop(row_id)
        model.revision += model.changes > before
        assert result.changed == (model.changes > before)

    return do


def seed(rows: list[Row]) -> Step:
    declared = {row.name: row for row in rows if row.good}

    async def do(store: Store, model: Model) -> None:
        providers = tuple(row.provider() for row in declared.values())
        report = await store.seed(ProviderFile(providers, Clients()))
        before, drift = model.changes, set[str]()
        for name, row in declared.items():
            said_id, said = model.said.get(name, (None, None))
            row_id = said_id if said_id in model.rows else model.id_of(name)
            now = model.rows.get(row_id) if row_id is not None else None
            untouched = now == said and row_id == said_id
            if now == row or (now is None and said is None) or (said is not None and untouched):
                row_id = row_id or (await store.get_provider(name)).id
                model.set(row_id, row)
                model.said[name] = (row_id, row)
            else:
                drift.add(name)
        for name, (row_id, _said) in list(model.said.items()):
            if name in declared:
                continue
            if row_id in model.rows:
                drift.add(name)
            else:
                del model.said[name]
        model.revision += model.changes > before
        assert report.changed == (model.changes > before)
        assert {row.name for row in report.drift} == drift

    return do


names = st.sampled_from(NAMES)
keys = st.lists(st.sampled_from(("k1", "k2", "k3")), max_size=2, unique=True).map(tuple)
repeated = st.just(("k1", "k1"))
rows = st.builds(Row, names, st.sampled_from(("a.example", "b.example")), keys, st.booleans())
bad = st.one_of(
    st.builds(Row, st.sampled_from(("", "No", "a b")), st.just("a.example"), keys, st.booleans()),
    st.builds(Row, names, st.just("a.example"), repeated, st.booleans()),
)
any_rows = st.one_of(rows, rows, rows, bad)
seeds = st.lists(rows, min_size=1, max_size=3).map(seed)
steps = st.one_of(
    st.builds(add, any_rows),
    st.builds(change, names, any_rows),
    st.builds(change, names, rows),
    st.builds(remove, names),
    st.builds(apply, st.lists(any_rows, max_size=3), st.booleans()),
    seeds,
    seeds,
)
# Half of them begin with a seed, as stores do.
scripts = st.builds(
    lambda first, rest: [*first, *rest],
    st.lists(seeds, max_size=1),
    st.lists(steps, min_size=2, max_size=12),
)


async def check(store: Store, model: Model) -> None:
    snapshot = await store.snapshot()
    found = {
        row.row.id: Row(
            row.content.name,
            row.content.base_url.removeprefix("https://"),
            tuple(key.value.reveal() for key in row.content.keys),
            row.content.enabled,
        )
        for row in await store._read(provider_rows.living)
    }
    assert list(found.items()) == list(model.rows.items())
    for row in snapshot.rows:  # what gateways get: nothing secret of a disabled provider
        sent = found[row.id].keys if row.enabled else ()
        assert tuple(key.reveal() for key in row.keys) == sent
    assert snapshot.revisions.revision == snapshot.revisions.providers == model.revision
    audit = await store.audit()
    assert len(audit) == model.changes
    assert [entry.revision for entry in audit] == sorted(
        (entry.revision for entry in audit), reverse=True
    )


async def wipe(store: Store) -> None:
    for table in TABLES:
        await store._database.write(lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))  # type: ignore[misc]  # of a loop
    statement = "UPDATE state SET revision = 0, providers_revision = 0, clients_revision = 0"
    await store._database.write(lambda tx: tx.execute(statement))


def test_a_store_is_what_a_naive_model_says(database_url: str) -> None:
    async def run(script: list[Step]) -> None:
        model, clock = Model(), Clock()
        async with opened(database_url, clock=clock) as store:
            await wipe(store)
            for number, step in enumerate(script):
                clock.now += (-1) ** number * 3600  # forth and back
                await step(store, model)
                await check(store, model)
        async with opened(database_url) as store:
            await check(store, model)

    @hypothesis.settings(max_examples=25 if "postgres" in database_url else 150, deadline=None)
    @hypothesis.given(scripts)
    def holds(script: list[Step]) -> None:
        trio.run(run, script)

    holds()
