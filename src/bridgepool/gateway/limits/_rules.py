"""What a client may use, judged request by request. Pure.

The rules of a client and those of its key become one `CallerRules`, which is kept for the caller
with its rules: a change of rules is another value, and needs no notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, TypeAlias

import attrs

from bridgepool.gateway.limits._kinds import BUDGETS, LIMITS, Unit
from bridgepool.gateway.providers import Caller, ClientRules
from bridgepool.gateway.providers._client_rules import NO_RULES
from bridgepool.gateway.providers._plain_fields import moment

ScopeId: TypeAlias = tuple[Literal["client", "key"], str]
"""Who has limits of its own: a client or a key, by its id."""
_Patterns = tuple[re.Pattern[str], ...]


@attrs.frozen(eq=False)
class Permissions:
    """What one client may use with one key."""

    _providers: _Patterns
    _models: _Patterns
    _routes: _Patterns
    _expires: float | None

    @property
    def restrict_models(self) -> bool:
        """Whether it depends on the model of a request whether it is allowed."""
        return bool(self._models)

    def has_expired(self, now: float) -> bool:
        """Return whether access has ended; `now` is in seconds since the epoch."""
        return self._expires is not None and now >= self._expires

    def allow_provider(self, name: str) -> bool:
        """Return whether a provider may be used."""
        return _fits(self._providers, name)

    def allow_model(self, name: str) -> bool:
        """Return whether a model may be used."""
        return _fits(self._models, name)

    def allow_route(self, pattern: str) -> bool:
        """Return whether a route may be used, by its pattern below the base URL."""
        return _fits(self._routes, pattern)


@attrs.frozen(eq=False)
class CallerRules:
    """What the rules of a client and those of its key come to."""

    permissions: Permissions | None
    """What may be used; None if that is all."""
    limited: tuple[ScopeId, ...]
    """Which of the client and its key have limits."""
    counted: frozenset[Unit]
    """What they limit the use of: tokens, money, both, or neither."""
    has_budget: bool
    """Whether there is a limit for a day or a month."""


@lru_cache(maxsize=10_000)
def rules_of(caller: Caller) -> CallerRules:
    """Return what the rules of a caller come to."""
    limits: dict[ScopeId, set[str]] = {
        ("client", caller.client_id): _limits_in(caller.rules),
        ("key", caller.key_id): _limits_in(caller.key_rules),
    }
    names = set[str]().union(*limits.values())
    units: tuple[Unit, ...] = ("tokens", "money")
    return CallerRules(
        permissions(caller.rules, caller.key_rules),
        tuple(scope_id for scope_id, found in limits.items() if found),
        frozenset(unit for unit in units if any(name.startswith(unit) for name in names)),
        not names.isdisjoint(BUDGETS),
    )


def _limits_in(rules: ClientRules) -> set[str]:
    return {name for name in LIMITS if getattr(rules, name) is not None}


def _fits(patterns: _Patterns, text: str) -> bool:
    return all(pattern.fullmatch(text) for pattern in patterns)


@lru_cache(maxsize=10_000)
def permissions(rules: ClientRules, key_rules: ClientRules = NO_RULES) -> Permissions | None:
    """Return what a client may use by its rules and those of its key; None if that is all."""
    both = (rules, key_rules)
    expires = [moment(each.expires) for each in both if each.expires is not None]
    made = Permissions(
        _patterns(each.providers for each in both),
        _patterns(each.models for each in both),
        _patterns(each.routes for each in both),
        # What is no time was not checked, and ends access.
        min([at.timestamp() if at is not None else 0.0 for at in expires], default=None),
    )
    parts = (made._providers, made._models, made._routes, made._expires)
    return None if parts == ((), (), (), None) else made


def _patterns(lists: Iterable[tuple[str, ...] | None]) -> _Patterns:
    return tuple(compile_patterns(patterns) for patterns in lists if patterns is not None)


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return what fits any of some patterns: `*` is any text, `?` one character."""
    return re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL)


def _expression(pattern: str) -> str:
    """Return a pattern as a regular expression that is matched in linear time.

    Clients choose the names. What stands between two stars is taken where it comes first, which is
    as good as anywhere later, and is not tried again: the groups are atomic.
    """
    first, *others = map(_plain, pattern.split("*"))
    if not others:
        return first
    inner = "".join(f"(?>.*?{one})" for one in others[:-1] if one)
    return f"{first}{inner}.*{others[-1]}"


def _plain(text: str) -> str:
    return "".join("." if char == "?" else re.escape(char) for char in text)
