"""Operations on providers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import attrs
import msgspec
from msgspec import Meta

from bridgepool._secret import Secret
from bridgepool.gateway.control._documents import fields_of, parse_draft, parse_patch
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._key_usage import KeyUsage, key_usage
from bridgepool.gateway.control._records import (
    ApplyResult,
    ProviderChange,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
)
from bridgepool.gateway.control.operations._operation import (
    Context,
    Document,
    Place,
    operation,
)
from bridgepool.gateway.control.operations._requests import (
    MAX_TEXT,
    AllowEmpty,
    IfRevision,
    PathName,
    plain_schema,
)
from bridgepool.gateway.providers import PROVIDER_TYPES
from bridgepool.gateway.providers._fields import (
    PLAIN_FIELDS,
    REQUIRED_FIELDS,
    SPECIAL_FIELDS,
)
from bridgepool.gateway.providers._file_rows import unknown_field
from bridgepool.gateway.providers._key_status import KeyReport

T = TypeVar("T")

_MAX_PROVIDERS: Final = 10_000  # of one request, which has a limit of bytes, too

_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
_FIELDS: Final[dict[str, dict[str, object]]] = {
    **{name: plain_schema(field) for name, field in PLAIN_FIELDS.items()},
    "base_url": {
        "type": "string",
        "maxLength": MAX_TEXT,
        "description": SPECIAL_FIELDS["base_url"],
    },
    "keys": {
        "type": "array",
        "description": SPECIAL_FIELDS["keys"] + " New ones by value, kept ones by id.",
        "items": {
            "type": "object",
            "properties": {"value": {**_TEXT, "pattern": "^[!-~]+$"}, "id": _TEXT},
            "additionalProperties": False,
            "oneOf": [{"required": ["value"]}, {"required": ["id"]}],
        },
    },
    "headers": {
        "type": "object",
        "description": SPECIAL_FIELDS["headers"] + " A value of null keeps the one stored.",
        "propertyNames": {"pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"},
        "additionalProperties": {
            "anyOf": [{**_TEXT, "pattern": "^[!-~]([ -~]*[!-~])?$"}, {"type": "null"}]
        },
    },
}
_FIELDS["type"]["enum"] = sorted(kind.name for kind in PROVIDER_TYPES)
_DRAFT_SCHEMA: Final = {
    "type": "object",
    "description": "All of a provider.",
    "properties": _FIELDS,
    "required": list(REQUIRED_FIELDS),
    "additionalProperties": False,
    "example": {
        "name": "openai",
        "type": "openai",
        "base_url": "https://api.openai.com/v1",
        "keys": [{"value": "sk-0123456789"}],
    },
}


def draft_from_json(row: object) -> ProviderDraft:
    """Read a whole provider as the API has it; raises `InvalidChangeError`."""
    return _from_json(parse_draft, row)


def _from_json(parse: Callable[[object], T], row: object) -> T:
    """Read what JSON writes otherwise than a provider file."""
    if not isinstance(row, dict):
        raise InvalidChangeError("body: is not an object")
    problems = [unknown_field(name, _FIELDS, hide=True) for name in row if name not in _FIELDS]
    known = {name: value for name, value in row.items() if name in _FIELDS}
    keys, headers = known.get("keys"), known.get("headers")
    if isinstance(keys, list) and any(isinstance(key, str) for key in keys):
        known.pop("keys")
        problems.append('keys: is not a list of {"value": …} and {"id": …}')
    if isinstance(headers, dict):
        known["headers"] = {
            name: {"keep": True} if text is None else text for name, text in headers.items()
        }
    try:
        parsed = parse(known)
    except InvalidChangeError as error:
        problems += error.problems
    if problems:
        raise InvalidChangeError(*problems)
    return parsed


def _to_json(change: ProviderDraft | ProviderPatch) -> dict[str, object]:
    """Write a provider as the API has it, with its secrets."""
    return {
        name: msgspec.to_builtins(value, enc_hook=_reveal)
        for name, value in fields_of(change).items()
    }


def _reveal(value: object) -> object:
    return value.reveal() if isinstance(value, Secret) else dict(value)  # type: ignore[call-overload]  # a mapping: msgspec asks about no other type


def _drafts_from_json(rows: object) -> tuple[ProviderDraft, ...]:
    if not isinstance(rows, list) or len(rows) > _MAX_PROVIDERS:
        raise InvalidChangeError(f"providers: is not a list of at most {_MAX_PROVIDERS} drafts")
    drafts: list[ProviderDraft] = []
    problems: list[str] = []
    for number, row in enumerate(rows):
        try:
            drafts.append(draft_from_json(row))
        except InvalidChangeError as error:
            problems += [f"providers.{number}.{problem}" for problem in error.problems]
    if problems:
        raise InvalidChangeError(*problems)
    return tuple(drafts)


Draft: TypeAlias = Annotated[
    ProviderDraft, Place.BODY, Document(draft_from_json, _to_json, _DRAFT_SCHEMA)
]
Drafts: TypeAlias = Annotated[
    Sequence[ProviderDraft],
    Document(
        _drafts_from_json,
        lambda drafts: [_to_json(draft) for draft in drafts],
        {"type": "array", "items": _DRAFT_SCHEMA},
    ),
]
Patch: TypeAlias = Annotated[
    ProviderPatch,
    Place.BODY,
    Document(
        lambda row: _from_json(parse_patch, row),
        _to_json,
        {
            "type": "object",
            "description": "What is to be different in a provider.",
            "properties": _FIELDS,
            "additionalProperties": False,
            "example": {"enabled": False},
        },
    ),
]


@attrs.frozen
class ProviderList:
    """All providers."""

    revision: int
    providers: tuple[ProviderView, ...]


@attrs.frozen
class OneProvider:
    """One provider."""

    provider: ProviderView
    key_usage: tuple[KeyUsage, ...] = ()
    """What the gateways do with its keys, and with those that were taken out of it lately."""


@attrs.frozen
class ProviderExport:
    """All providers as drafts, as JSON; see `draft_from_json`."""

    revision: int
    providers: Annotated[
        tuple[dict[str, Any], ...], Meta(extra_json_schema={"items": _DRAFT_SCHEMA})
    ]


@operation("GET", "/providers")
async def list_providers(context: Context) -> ProviderList:
    """List all providers, the oldest first."""
    revision = (await context.store.revisions()).revision
    return ProviderList(revision, await context.store.list_providers())


@operation("POST", "/providers", status=201)
async def add_provider(context: Context, draft: Draft) -> ProviderChange:
    """Add a provider."""
    return await context.store.add_provider(context.actor, draft)


@operation("GET", "/providers/{name}")
async def get_provider(context: Context, name: PathName) -> OneProvider:
    """Return one provider, by its name or id."""
    provider = await context.store.get_provider(name)
    epoch = (await context.store.revisions()).epoch
    sessions = await context.gateways.gateways()
    running = await context.store.programs.list_running()
    with_store = [one for one in running if one.program == "gateway"]
    silent = [one.name for one in with_store if one.provider_keys is None]
    told = [
        _session_of(one.name, one.provider_keys, one.last_contact)
        for one in with_store
        if one.provider_keys is not None
    ]
    return OneProvider(provider, key_usage(provider, (*sessions, *told), epoch, silent))


def _session_of(name: str, report: KeyReport, reported: datetime) -> GatewaySession:
    """Return what is known of a gateway that has the store itself, and so no session."""
    return GatewaySession(
        instance=name,
        gateway=name,
        key_id="",
        session="",
        control_plane="",
        connected=True,
        since=reported,
        last_contact=reported,
        provider_keys=report,
        keys_reported=reported,
    )


@operation("PATCH", "/providers/{name}")
async def update_provider(
    context: Context,
    name: PathName,
    patch: Patch,
    if_revision: IfRevision = None,
    allow_empty: AllowEmpty = False,
) -> ProviderChange:
    """Change what the body says of a provider, and nothing else."""
    return await context.store.update_provider(
        context.actor, name, patch, if_revision=if_revision, allow_empty=allow_empty
    )


@operation("DELETE", "/providers/{name}")
async def remove_provider(
    context: Context,
    name: PathName,
    if_revision: IfRevision = None,
    allow_empty: AllowEmpty = False,
) -> ProviderChange:
    """Remove a provider; its name is free again."""
    return await context.store.remove_provider(
        context.actor, name, if_revision=if_revision, allow_empty=allow_empty
    )


@operation("POST", "/providers/{name}/enable")
async def enable_provider(
    context: Context, name: PathName, if_revision: IfRevision = None
) -> ProviderChange:
    """Enable a provider."""
    return await update_provider.carry_out(context, name, ProviderPatch(enabled=True), if_revision)


@operation("POST", "/providers/{name}/disable")
async def disable_provider(
    context: Context,
    name: PathName,
    if_revision: IfRevision = None,
    allow_empty: AllowEmpty = False,
) -> ProviderChange:
    """Disable a provider; gateways answer 503 for it."""
    return await update_provider.carry_out(
        context, name, ProviderPatch(enabled=False), if_revision, allow_empty
    )


@operation("POST", "/apply")
async def apply_providers(
    context: Context,
    providers: Drafts,
    prune: Annotated[bool, Meta(description="Remove the providers that are not named.")] = False,
    dry_run: Annotated[bool, Meta(description="Only report what would be done.")] = False,
    allow_empty: Annotated[bool, Meta(description="No enabled provider need be left.")] = False,
) -> ApplyResult:
    """Make the providers as the drafts say: all of it in one revision, or nothing."""
    return await context.store.apply_providers(
        context.actor, providers, prune=prune, dry_run=dry_run, allow_empty=allow_empty
    )


@operation("GET", "/export")
async def export_providers(context: Context) -> ProviderExport:
    """Return every provider as a draft that keeps its keys and headers."""
    revision = (await context.store.revisions()).revision
    drafts = await context.store.export_providers()
    return ProviderExport(revision, tuple(_to_json(draft) for draft in drafts))
