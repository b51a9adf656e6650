"""Operations on clients."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Final, TypeAlias

import attrs
import msgspec
from msgspec import Meta

from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    BudgetView,
    ClientChange,
    ClientView,
    NewClient,
    NewKey,
)
from bridgepool.gateway.control.operations._operation import Context, Document, operation
from bridgepool.gateway.control.operations._requests import (
    IfRevision,
    NewName,
    PathName,
    plain_schema,
)
from bridgepool.gateway.providers._access_keys import HASH_PATTERN
from bridgepool.gateway.providers._client_rules import (
    RULE_FIELDS,
    ClientRules,
    RuleChanges,
    rule_problems,
)
from bridgepool.gateway.providers._file_rows import plain_reader, read_fields, unknown_field

KeyHashes: TypeAlias = Annotated[
    tuple[
        Annotated[str, Meta(extra_json_schema={"pattern": f"^{HASH_PATTERN}$"})],
        ...,
    ],
    Meta(
        min_length=1,
        max_length=100,
        description="Hashes of keys that it has already; without them it gets a new key.",
    ),
]
_READERS: Final = {name: plain_reader(field, null=True) for name, field in RULE_FIELDS.items()}


def _rules_from_json(value: object) -> RuleChanges:
    if not isinstance(value, dict):
        raise InvalidChangeError("rules: is not an object")
    problems = [unknown_field(name, _READERS, hide=True) for name in value if name not in _READERS]
    known = {name: item for name, item in value.items() if name in _READERS}
    fields, more = read_fields(known, _READERS)
    problems += more
    if problems:
        found = rule_problems(ClientRules(**fields))
        problems += [f"{name}: {problem}" for name, problem in found]
        raise InvalidChangeError(*(f"rules.{problem}" for problem in problems))
    return fields


NO_CHANGES: Final[RuleChanges] = MappingProxyType({})
Rules: TypeAlias = Annotated[
    RuleChanges,
    Document(
        _rules_from_json,
        lambda rules: msgspec.to_builtins(dict(rules)),
        {
            "type": "object",
            "description": "The rules of a client, or of one of its keys.",
            "properties": {name: plain_schema(field) for name, field in RULE_FIELDS.items()},
            "additionalProperties": False,
            "example": {"models": ["gpt-5*"], "requests_per_minute": 60},
        },
    ),
]


@attrs.frozen
class ClientList:
    """All clients."""

    revision: int
    clients: tuple[ClientView, ...]


@attrs.frozen
class OneClient:
    """One client."""

    client: ClientView
    budgets: tuple[BudgetView, ...] = ()
    """What is spent and left of its budgets, and of those of its keys."""


@operation("GET", "/clients")
async def list_clients(context: Context) -> ClientList:
    """List all clients, the oldest first."""
    revision = (await context.store.revisions()).revision
    return ClientList(revision, await context.store.list_clients())


@operation("POST", "/clients", status=201, shows_key=True)
async def add_client(
    context: Context,
    id: NewName,
    key_hashes: KeyHashes | None = None,
    rules: Rules = NO_CHANGES,
    key_rules: Rules = NO_CHANGES,
) -> NewClient:
    """Add a client. Its first key is shown only in this response."""
    return await context.store.add_client(
        context.actor, id, key_hashes=key_hashes, rules=rules, key_rules=key_rules
    )


@operation("GET", "/clients/{client_id}")
async def get_client(context: Context, client_id: PathName) -> OneClient:
    """Return one client."""
    # The commands load this module for the names of operations, without the store.
    from bridgepool.gateway.control.store import budgets_of

    client = await context.store.get_client(client_id)
    return OneClient(client, await budgets_of(context.store).list_of(client))


@operation("PATCH", "/clients/{client_id}")
async def update_client(
    context: Context, client_id: PathName, rules: Rules, if_revision: IfRevision = None
) -> ClientChange:
    """Change rules of a client; those that are not named stay, and null removes one."""
    return await context.store.update_client(
        context.actor, client_id, rules, if_revision=if_revision
    )


@operation("DELETE", "/clients/{client_id}")
async def remove_client(context: Context, client_id: PathName) -> ClientChange:
    """Remove a client and revoke its keys."""
    return await context.store.remove_client(context.actor, client_id)


@operation("POST", "/clients/{client_id}/keys", status=201, shows_key=True)
async def add_client_key(
    context: Context, client_id: PathName, rules: Rules = NO_CHANGES
) -> NewKey:
    """Make one more key for a client. It is shown only in this response."""
    return await context.store.add_client_key(context.actor, client_id, rules)


@operation("PATCH", "/clients/{client_id}/keys/{key_id}")
async def update_client_key(
    context: Context, client_id: PathName, key_id: PathName, rules: Rules
) -> AccessKeyChange:
    """Change rules of one key; those that are not named stay, and null removes one."""
    return await context.store.update_client_key(context.actor, client_id, key_id, rules)


@operation("DELETE", "/clients/{client_id}/keys/{key_id}")
async def revoke_client_key(
    context: Context, client_id: PathName, key_id: PathName
) -> AccessKeyChange:
    """Revoke one key of a client."""
    return await context.store.revoke_client_key(context.actor, client_id, key_id)
