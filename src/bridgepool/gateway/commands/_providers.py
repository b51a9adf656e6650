"""`bridgepool providers`: the providers of a control plane."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import App, Parameter

from bridgepool.gateway.commands._connecting import (
    NO_WAIT,
    WHERE_DEFAULT,
    AsJson,
    Wait,
    Where,
    do,
    keys_from_stdin,
    secret_from_environment,
    stdin_holds_data,
)
from bridgepool.gateway.commands._documents import drafts_to_toml, read_drafts
from bridgepool.gateway.commands._field_options import given_values, make_options
from bridgepool.gateway.commands._output import print_json, print_table, report_change
from bridgepool.gateway.commands._provider_problems import change_providers
from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control._key_usage import KeyUsage
from bridgepool.gateway.control._records import (
    HeaderValue,
    KeyChange,
    KeyRef,
    KeyValue,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
)
from bridgepool.gateway.control.operations._providers import (
    add_provider,
    apply_providers,
    disable_provider,
    enable_provider,
    export_providers,
    get_provider,
    list_providers,
    remove_provider,
    update_provider,
)
from bridgepool.gateway.providers._fields import FIELD_NAMES, PLAIN_FIELDS

providers = App(name="providers")


AllowEmpty = Annotated[
    bool, Parameter(help="No enabled provider need be left: no request would be served.")
]


if TYPE_CHECKING:

    class NewFields:
        """Options for the plain fields of a new provider."""

    class ChangedFields:
        """Options to change the plain fields of a provider."""

else:
    # The name is an argument; enabled are --disabled, and commands.
    _SHOWN = [one for name, one in PLAIN_FIELDS.items() if name not in ("name", "enabled")]
    NewFields = make_options("NewFields", _SHOWN, changing=False, module=__name__)
    ChangedFields = make_options("ChangedFields", _SHOWN, changing=True, module=__name__)
NOTHING_CHANGED = ChangedFields()


@providers.command(name="list")
def list_(*, as_json: AsJson = False, where: Where = WHERE_DEFAULT) -> None:
    """List all providers."""
    found = do(where, list_providers).providers
    if as_json:
        print_json(found)
        return
    print_table(
        ("NAME", "TYPE", "ENABLED", "BASE URL", "KEYS", "CHANGED", "PROBLEM"),
        (
            (one.name, one.type, one.enabled, one.base_url, _keys(one), one.updated, one.problem)
            for one in found
        ),
    )


@providers.command
def show(name: str, *, as_json: AsJson = False, where: Where = WHERE_DEFAULT) -> None:
    """Show a provider and the ids of its keys, its secrets masked.

    Args:
        name: The name or id of the provider.
    """
    found = do(where, get_provider, name)
    if as_json:
        fields = attrs.asdict(found.provider, recurse=False)
        print_json(fields | {"key_usage": found.key_usage})
        return
    print_table(("FIELD", "VALUE"), _fields(found.provider))
    if found.key_usage:
        print()
        print_table(
            ("KEY", "ID", "IN FLIGHT", "LAST USED", "COOLING", "GATEWAYS", "SAFE TO REVOKE"),
            (
                (
                    f"{one.hint} ({one.fingerprint})",
                    one.id or "(taken out)",
                    one.in_flight,
                    one.last_used,
                    _cooling(one),
                    ", ".join((*one.gateways, *(f"{name}?" for name in one.unknown))),
                    one.safe_to_revoke,
                )
                for one in found.key_usage
            ),
        )
        if any(one.unknown for one in found.key_usage):
            print(
                "\n?: does not report its keys: offline, just started, or an older version; see "
                "`bridgepool gateways`, and forget those that will not come back"
            )


@providers.command
def add(
    name: str,
    *,
    fields: NewFields,
    base_url: Annotated[str, Parameter(metavar="URL")],
    keys_stdin: bool = False,
    keys_from_env: Annotated[list[str] | None, Parameter(metavar="VARIABLE")] = None,
    header_from_env: Annotated[list[str] | None, Parameter(metavar="NAME=VARIABLE")] = None,
    disabled: bool = False,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Add a provider. Its keys are read from standard input or variables, never from arguments.

    Args:
        name: [a-z0-9] words joined by "-": the first part of each path of the provider.
        fields: Its other fields.
        base_url: The URL of its API, such as https://api.openai.com/v1.
        keys_stdin: Read its keys from standard input, one per line, in order of use.
        keys_from_env: A variable of this command that holds a key; may be given several times.
        header_from_env: NAME=VARIABLE: send a header with the value of a variable of this
            command; may be given several times.
        disabled: Add it disabled.
    """
    values = _new_keys(keys_stdin, keys_from_env)
    has_key = bool(values) or vars(fields)["key_env"] or vars(fields)["client_keys"]
    if not has_key and stdin_holds_data():
        fail(
            "standard input is read with --keys-stdin only; give that option, or </dev/null for a "
            "provider without a key"
        )
    draft = ProviderDraft(
        **given_values(fields, PLAIN_FIELDS),
        name=name,
        base_url=base_url,
        keys=tuple(KeyValue(value) for value in values),
        headers=_headers(header_from_env),
        enabled=not disabled,
    )
    change = change_providers(where, add_provider, draft)
    sys.exit(report_change(where, change, f"added {name}", wait))


@providers.command
def update(
    name: str,
    *,
    new_name: Annotated[str | None, Parameter(metavar="NAME")] = None,
    fields: ChangedFields = NOTHING_CHANGED,
    base_url: Annotated[str | None, Parameter(metavar="URL")] = None,
    keys_stdin: bool = False,
    keys_from_env: Annotated[list[str] | None, Parameter(metavar="VARIABLE")] = None,
    keep_key: Annotated[list[str] | None, Parameter(metavar="ID")] = None,
    no_keys: bool = False,
    header_from_env: Annotated[list[str] | None, Parameter(metavar="NAME=VARIABLE")] = None,
    keep_header: Annotated[list[str] | None, Parameter(metavar="NAME")] = None,
    no_headers: bool = False,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Change the fields of a provider that options name.

    To rotate a key, use --keys-stdin: it replaces all keys, except those that --keep-key ID keeps
    behind the new ones.

    Args:
        name: The name or id of the provider.
        new_name: Its new name.
        fields: Its other fields.
        base_url: The URL of its API.
        keys_stdin: Replace its keys with those on standard input, one per line.
        keys_from_env: Replace its keys with that in a variable of this command; may be given
            several times.
        keep_key: The id of a key to keep; see `bridgepool providers show`.
        no_keys: Remove all keys.
        header_from_env: NAME=VARIABLE: replace the headers; may be given several times.
        keep_header: The name of a header to keep.
        no_headers: Remove all headers.
    """
    values = _new_keys(keys_stdin, keys_from_env)
    kept = [KeyRef(key) for key in keep_key or ()]
    others = {"name": new_name, "base_url": base_url}
    changed = given_values(fields, PLAIN_FIELDS) | {
        name: value for name, value in others.items() if value is not None
    }
    keys: list[KeyChange] = [*(KeyValue(value) for value in values), *kept]
    if keys or no_keys:
        if keys and no_keys:
            fail("--no-keys removes all keys; it cannot be combined with other keys")
        changed["keys"] = tuple(keys)
    if header_from_env or keep_header or no_headers:
        headers: dict[str, HeaderValue] = dict.fromkeys(keep_header or (), None)
        changed["headers"] = headers | _headers(header_from_env)
    patch = ProviderPatch(**changed)
    change = change_providers(where, update_provider, name, patch)
    sys.exit(report_change(where, change, f"updated {name}", wait))


@providers.command
def enable(name: str, *, wait: Wait = NO_WAIT, where: Where = WHERE_DEFAULT) -> None:
    """Enable a provider.

    Args:
        name: The name or id of the provider.
    """
    change = do(where, enable_provider, name)
    sys.exit(report_change(where, change, f"enabled {name}", wait))


@providers.command
def disable(
    name: str,
    *,
    allow_empty: AllowEmpty = False,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Disable a provider: it answers 503. Running streams are not interrupted.

    Args:
        name: The name or id of the provider.
    """
    change = do(where, disable_provider, name, allow_empty=allow_empty)
    sys.exit(report_change(where, change, f"disabled {name}", wait))


@providers.command
def remove(
    name: str,
    *,
    allow_empty: AllowEmpty = False,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Remove a provider and its keys; its name is free again. Running streams are not interrupted.

    Args:
        name: The name or id of the provider.
    """
    change = change_providers(where, remove_provider, name, allow_empty=allow_empty)
    sys.exit(report_change(where, change, f"removed {name}", wait))


@providers.command
def apply(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    prune: bool = False,
    dry_run: bool = False,
    allow_empty: AllowEmpty = False,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Make the providers match a provider file, all in one revision or nothing.

    Args:
        file: A provider file (TOML), such as `export` writes; - for standard input.
        prune: Remove providers that the file does not name.
        dry_run: Only report what would be done.
    """
    drafts = read_drafts(file)
    result = change_providers(where, apply_providers, drafts, prune, dry_run, allow_empty)
    for one in result.providers:
        fields = f" ({', '.join(one.fields)})" if one.fields else ""
        print(f"{one.action}  {one.name}{fields}")
    if dry_run:
        print(f"nothing was changed: --dry-run (revision {result.revision})")
        return
    sys.exit(report_change(where, result, "applied", wait))


@providers.command
def export(*, output: Path | None = None, where: Where = WHERE_DEFAULT) -> None:
    """Write the providers as a file for `apply`, with the ids of their keys and no secrets.

    Args:
        output: The file; default: standard output.
    """
    text = drafts_to_toml(do(where, export_providers).providers)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text)
    except OSError as error:
        fail(f"--output {output}: cannot be written: {error.strerror}")


def _new_keys(stdin: bool, variables: list[str] | None) -> list[Any]:
    values = [secret_from_environment(variable) for variable in variables or ()]
    return values + (keys_from_stdin() if stdin else [])


def _headers(pairs: list[str] | None) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    for pair in pairs or ():
        name, equals, variable = pair.partition("=")
        if not equals or not name or not variable:
            fail("--header-from-env: is not NAME=VARIABLE")
        headers[name.lower()] = secret_from_environment(variable)
    return headers


def _cooling(key: KeyUsage) -> str:
    """Show why no request takes a key; a refused one whose time has passed waits to be tried."""
    if key.cooling_until is None:
        return key.cooling
    if key.id is None:  # it was taken out, so no request takes it in any case
        return ""
    if key.cooling_until <= datetime.now(UTC):
        return f"{key.cooling}; the next request tries it" if key.cooling == "refused" else ""
    return f"{key.cooling} until {key.cooling_until:%Y-%m-%d %H:%M:%S}"


def _keys(view: ProviderView) -> str:
    if view.problem is not None:
        return "unreadable"
    if view.client_keys is True:
        return "the clients'"
    if view.key_env is not None:
        return f"${view.key_env}"
    return str(len(view.keys)) if view.keys else "none"


def _fields(view: ProviderView) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("id", view.id)]
    for name in FIELD_NAMES:
        if name == "keys":
            rows += [(f"key {key.id}", key.hint) for key in view.keys]
        elif name == "headers":
            rows += [(f"header {header}", value) for header, value in view.headers.items()]
        else:
            rows.append((name, getattr(view, name)))
    facts = ("created", "updated", "revision", "problem")
    return rows + [(name, getattr(view, name)) for name in facts]
