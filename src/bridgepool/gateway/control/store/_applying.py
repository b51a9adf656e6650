"""Declared providers: the changes that make the store equal to the drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import AppliedProvider, ApplyResult, ProviderDraft
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store._provider_rows import StoredProvider
from bridgepool.gateway.control.store._provider_settings import Content, Rules, draft_of_content
from bridgepool.gateway.control.store._transaction import StoreTransaction


@attrs.frozen
class Step:
    """What is to be done with one provider."""

    report: AppliedProvider
    enabled: bool
    """Whether the provider is enabled afterwards; False if there is none."""
    do: Callable[[StoreTransaction], object] | None = None
    """None: nothing."""


def apply(
    tx: StoreTransaction,
    drafts: Sequence[ProviderDraft],
    rules: Rules,
    prune: bool,
    dry_run: bool,
    allow_empty: bool,
) -> ApplyResult:
    """Make all as declared, in one revision, or report it only; see `Store.apply_providers`."""
    steps = _plan(tx, drafts, rules, prune, allow_empty)
    for step in steps:
        if step.do is not None and not dry_run:
            step.do(tx)
    return ApplyResult(
        revision=tx.revision,
        changed=any(step.do is not None for step in steps),
        dry_run=dry_run,
        providers=tuple(step.report for step in steps),
    )


def _plan(
    tx: StoreTransaction,
    drafts: Sequence[ProviderDraft],
    rules: Rules,
    prune: bool,
    allow_empty: bool,
) -> list[Step]:
    present = {stored.content.name: stored for stored in provider_rows.living(tx)}
    steps: list[Step] = []
    problems: list[str] = []
    named: set[str] = set()
    types = {name: stored.content.type for name, stored in present.items()}
    types |= {draft.name: draft.type for draft in drafts}
    for draft in drafts:
        where = f"{_shown(draft.name)}: "
        stored = present.get(draft.name)
        if draft.name in named:
            problems.append(f"{where}name: is there twice")
        named.add(draft.name)
        present_content = stored.content if stored is not None else None
        try:
            content = rules.content_of_draft(draft, present_content, where)
        except InvalidChangeError as error:
            problems.extend(error.problems)
        else:
            problems += [
                where + provider_rows.fallback_problem(name)
                for name in content.fallback
                if types.get(name, content.type) != content.type
            ]
            steps.append(_create(content) if stored is None else _update(stored, content))
    if problems:
        raise InvalidChangeError(*problems)
    for name, stored in present.items():
        if name not in named:
            steps.append(_remove(stored) if prune else _leave(stored))
    had_some = any(stored.row.enabled for stored in present.values())
    if had_some and not allow_empty and not any(step.enabled for step in steps):
        raise InvalidChangeError(provider_rows.NONE_LEFT)
    return steps


def _create(content: Content) -> Step:
    report = AppliedProvider(content.name, "created")
    return Step(report, content.enabled, lambda tx: provider_rows.insert(tx, content))


def _update(stored: StoredProvider, content: Content) -> Step:
    fields = content.differs_in(stored.content)
    if not fields:
        return _leave(stored)
    report = AppliedProvider(content.name, "updated", fields)
    return Step(report, content.enabled, lambda tx: provider_rows.update(tx, stored, content))


def _leave(stored: StoredProvider) -> Step:
    return Step(AppliedProvider(stored.content.name, "unchanged"), stored.content.enabled)


def _remove(stored: StoredProvider) -> Step:
    report = AppliedProvider(stored.content.name, "removed")
    return Step(report, False, lambda tx: provider_rows.delete(tx, stored))


def export(tx: StoreTransaction) -> tuple[ProviderDraft, ...]:
    """Return drafts that keep everything; those that cannot be decrypted cannot be exported."""
    stored = provider_rows.living(tx)
    problems = [
        f"{row.content.name}: cannot be used ({row.problem}); repair or remove it"
        for row in stored
        if row.problem is not None
    ]
    if problems:
        raise InvalidChangeError(*problems)
    return tuple(draft_of_content(row.content) for row in stored)


def _shown(name: str) -> str:
    # A key that was put in the place of a name is not repeated.
    return name if len(name) <= 64 and name.isprintable() else "(name not shown)"
