"""The rules of a client or of one of its keys, declared once.

To add a rule, add it to `ClientRules` with None as default and a description. The provider file,
the API, the commands' options, the store, the audit, the wire and `Caller` have it then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from bridgepool.gateway.providers._errors import InvalidProviderError
from bridgepool.gateway.providers._plain_fields import TEXTS, about, plain_fields

_MAX_PATTERNS: Final = 200
_PATTERN_LENGTH: Final = 200
_MOST: Final = 1e12
_ROUTE: Final = ("/", "*", "?")


def _patterns(help: str) -> Any:
    return attrs.field(default=None, metadata=about(help, max_length=_PATTERN_LENGTH))


def _limit(help: str, minimum: float = 1) -> Any:
    return attrs.field(default=None, metadata=about(help, minimum=minimum, maximum=_MOST))


@attrs.frozen(kw_only=True)  # without a cached hash: those that msgspec decodes have none
class ClientRules:
    """The rules of a client, or of one of its keys. None is no rule.

    The rules of a client and of its key both apply, so those of a key can only narrow. In a
    pattern, ``*`` stands for any text and ``?`` for one character.
    """

    providers: tuple[str, ...] | None = _patterns("A pattern of the providers that may be used.")
    """Patterns of names of providers."""
    models: tuple[str, ...] | None = _patterns("A pattern of the models that may be used.")
    """Patterns of names of models, as requests name them."""
    routes: tuple[str, ...] | None = _patterns(
        "A pattern of the routes that may be used, such as /chat/completions."
    )
    """Patterns of the paths of routes below the base URL."""
    expires: str | None = attrs.field(
        default=None,
        metadata=about("When access ends, such as 2030-01-31T00:00:00Z.", is_time=True),
    )
    """An RFC 3339 time in UTC, from which on nothing is served."""
    max_concurrent: int | None = _limit("The most requests at the same time.")
    """The most requests at the same time."""
    requests_per_minute: int | None = _limit("The most requests a minute.")
    """The most requests a minute."""
    tokens_per_minute: int | None = _limit("The most tokens a minute.")
    """The most tokens a minute, input and output together."""
    tokens_per_day: int | None = _limit("The most tokens a day (UTC).")
    """The most tokens a day, in UTC."""
    tokens_per_month: int | None = _limit("The most tokens a month (UTC).")
    """The most tokens a calendar month, in UTC."""
    money_per_day: float | None = _limit(
        "The most money a day (UTC), by the price table; 0 for none.", 0
    )
    """The most money a day, in the currency of the price table."""
    money_per_month: float | None = _limit(
        "The most money a month (UTC), by the price table; 0 for none.", 0
    )
    """The most money a calendar month, in the currency of the price table."""


RuleChanges: TypeAlias = Mapping[str, object]
"""Rules to change, by name, each of its type; None removes one."""
NO_RULES: Final = ClientRules()
RULE_FIELDS: Final = plain_fields(ClientRules)
"""The rules by name."""
# What cannot be read may have forbidden anything: a pattern that fits no name.
_UNREADABLE: Final = ClientRules(providers=("/",))


def rule_problems(rules: ClientRules) -> Iterator[tuple[str, str]]:
    """Find what is wrong with rules: field and problem, without the value."""
    for name, field in RULE_FIELDS.items():
        value = getattr(rules, name)
        if value is None:
            continue
        if field.kind == TEXTS and not 0 < len(value) <= _MAX_PATTERNS:
            yield name, f"has not from 1 to {_MAX_PATTERNS} patterns; leave it out for no rule"
            continue
        found = field.problem(value)
        if found is not None:
            yield name, found


def idle_patterns(changes: RuleChanges) -> Iterator[tuple[str, str]]:
    """Find patterns in changes that fit no name there can be: field and problem."""
    routes = changes.get("routes")
    if isinstance(routes, Collection) and any(not str(one).startswith(_ROUTE) for one in routes):
        yield "routes", "has a pattern that fits no route: it must begin with /, * or ?"


def check_rules(rules: ClientRules) -> None:
    """Refuse rules that cannot be meant; raises `InvalidProviderError`."""
    for name, problem in rule_problems(rules):
        raise InvalidProviderError(name, problem)


def rules_document(rules: ClientRules) -> dict[str, object]:
    """Return the rules that there are, as JSON has them."""
    given = {name: getattr(rules, name) for name in RULE_FIELDS}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None
    }


def rules_to_text(rules: ClientRules) -> str:
    """Return rules as a store keeps them."""
    return msgspec.json.encode(rules_document(rules)).decode()


def rules_from_text(text: str) -> ClientRules:
    """Read what `rules_to_text` wrote, by any version; what cannot be read forbids everything."""
    try:
        rules = msgspec.json.decode(text, type=ClientRules)
        check_rules(rules)
    except (msgspec.MsgspecError, InvalidProviderError):
        return _UNREADABLE
    return rules
