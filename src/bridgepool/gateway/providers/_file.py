"""The provider file: TOML text in, providers and clients out, or all that is wrong with it.

Pure. A file is taken as a whole or not at all: of an edit that is half wrong, the good half
alone may be worse than either state the operator had in mind.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway.providers._access_keys import parse_hash
from bridgepool.gateway.providers._client_rules import (
    RULE_FIELDS,
    ClientRules,
    idle_patterns,
    rule_problems,
)
from bridgepool.gateway.providers._clients import Client, Clients, check_client_id
from bridgepool.gateway.providers._errors import InvalidProviderError, ProviderFileError
from bridgepool.gateway.providers._fallbacks import unusable_fallbacks
from bridgepool.gateway.providers._fields import REQUIRED_FIELDS
from bridgepool.gateway.providers._file_rows import (
    convert_rows,
    plain_reader,
    provider_readers,
    read_fields,
    read_tables,
    read_text,
    read_text_table,
    read_texts,
    unknown_field,
)
from bridgepool.gateway.providers._provider import MAX_KEYS, Provider, build_provider
from bridgepool.gateway.providers._provider_type import ProviderType
from bridgepool.gateway.providers._types import PROVIDER_TYPES

_PROVIDER_READERS: Final = provider_readers(read_texts, read_text_table)
_RULE_READERS: Final = {name: plain_reader(field) for name, field in RULE_FIELDS.items()}
_CLIENT_READERS: Final = {
    "id": read_text,
    "key_hash": read_text,
    "key_hashes": read_texts,
    "keys": read_tables,
    **_RULE_READERS,
}
_CLIENT_KEY_READERS: Final = {"hash": read_text, **_RULE_READERS}
TOP_FIELDS: Final = ("providers", "clients", "allow_private")
_POSITION: Final = re.compile(r" \(at (line [0-9]+, column [0-9]+|end of document)\)$")
_MOST_PROBLEMS: Final = 20
_DEFAULTS: Final = {
    field.name: field.default
    for field in attrs.fields(Provider)
    if field.default is not attrs.NOTHING
}


@attrs.frozen
class ProviderFile:
    """The contents of a provider file, as it was read once."""

    providers: tuple[Provider, ...]
    """In the order of the file, the disabled ones too."""
    clients: Clients
    """Who may use the gateway; empty when the file names nobody."""

    @property
    def snapshot(self) -> ProviderSnapshot[Provider]:
        """The providers, for a pool. A file has no revision.

        A file without providers states that with ``providers = []``, or it cannot be used.
        """
        return ProviderSnapshot(self.providers, allow_empty=True)

    def lacks_some_of(self, before: "ProviderFile") -> bool:
        """Return whether something that an earlier reading had is not there any more.

        That is a provider, a client, or a field of a provider that has its default now. The first
        part of a file that is being written either lacks something in this way, or is as good as
        what was there before.
        """
        ids = {client.id for client in self.clients.rows}
        if not all(client.id in ids for client in before.clients.rows):
            return True
        providers = {provider.name: provider for provider in self.providers}
        return any(
            old.name not in providers or _lacks_fields(providers[old.name], old)
            for old in before.providers
        )


def _lacks_fields(provider: Provider, before: Provider) -> bool:
    # A row that says that it is disabled does no harm, whatever else is missing.
    return provider.enabled and any(
        getattr(provider, name) == default != getattr(before, name)
        for name, default in _DEFAULTS.items()
    )


def parse_provider_file(
    text: str,
    path: str = "providers.toml",
    *,
    max_keys: int = MAX_KEYS,
    types: Iterable[ProviderType] = PROVIDER_TYPES,
) -> ProviderFile:
    """Read the text of a provider file.

    A text without `providers` is refused, since an empty file is far more often one that is
    being written than a wish to have no providers; ``providers = []`` says that.

    Args:
        text: TOML.
        path: Its name, for messages only.
        max_keys: How many keys a provider may have.
        types: What a provider may be.

    Raises:
        ProviderFileError: It is not usable. The message names the line of a syntax error, or
            every row and field that is wrong, and holds no secrets.
    """
    data, known_types = parse_toml(text, path), tuple(types)
    problems = [unknown_field(name, TOP_FIELDS) for name in data if name not in TOP_FIELDS]
    allow_private = data.get("allow_private", False)
    if not isinstance(allow_private, bool):
        problems.append("allow_private: is not true or false")
        allow_private = True  # what may have been meant: no other mistake follows from this one
    if "providers" not in data:
        problems.append("has no [[providers]]; write providers = [] if that is intended")
    providers, provider_problems = convert_rows(
        "providers",
        data.get("providers", []),
        "name",
        lambda row: _provider({"allow_private": allow_private, **row}, max_keys, known_types),
    )
    clients, client_problems = convert_rows("clients", data.get("clients", []), "id", _client)
    problems += provider_problems + client_problems + _repeated_names(providers)
    problems += [
        f"[[providers]]: the fallback {found.fallback} of {found.provider} is of another type"
        for found in unusable_fallbacks(providers)
        if found.is_known  # of one that is not, another file or a store may know
    ]
    try:
        known = Clients(clients)
    except InvalidProviderError as error:
        known = Clients()
        problems.append(f"[[clients]]: {error}")
    if len(problems) > _MOST_PROBLEMS:
        more = len(problems) - _MOST_PROBLEMS
        problems = [*problems[:_MOST_PROBLEMS], f"and {more} more"]
    if problems:
        raise ProviderFileError(path, *problems)
    return ProviderFile(tuple(providers), known)


# TOML values have no closer static type; every one is checked before use.
def parse_toml(text: str, path: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ProviderFileError: It is not TOML; names the line, and holds nothing of the text.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = _syntax_problem(str(error))
    except (ValueError, RecursionError):
        # An integer of thousands of digits, or brackets nested thousands deep.
        problem = "is not TOML: a number or a nesting is beyond all bounds"
    # Outside the handler: the parser's frames hold the text with its keys, and an error that
    # is chained to them could be printed with its local variables.
    raise ProviderFileError(path, problem)


def _syntax_problem(message: str) -> str:
    position = _POSITION.search(message)
    what = message[: position.start()] if position else "Invalid syntax"
    if what.startswith(("Cannot", "Duplicate")):
        # These quote what stands in the file.
        what = "A key or table is given twice, or as two kinds of thing"
    where = position[1] if position else "an unknown line"
    return f"{where}: is not TOML: {what}"


def _provider(
    row: Mapping[str, object], max_keys: int, types: Iterable[ProviderType]
) -> tuple[Provider | None, list[str]]:
    fields, problems = read_fields(row, _PROVIDER_READERS, REQUIRED_FIELDS)
    if not {"keys", "key_env", "client_keys"} & row.keys():
        problems.append(
            "keys: is missing; give keys or key_env, or client_keys = true "
            "if clients bring their own, or keys = [] if it needs none"
        )
    if "keys" in row and "key_env" in row:
        problems.append("key_env: is given beside keys; give one of them")
    if "allow_private" not in fields:  # it is of another type; no other mistake follows
        fields["allow_private"] = True
    made, more = build_provider(fields, types, max_keys)
    problems += [problem for problem in more if problem not in problems]
    return (None, problems) if problems else (made, [])


def _client(row: Mapping[str, object]) -> tuple[Client | None, list[str]]:
    fields, problems = read_fields(row, _CLIENT_READERS, ("id",))
    keys: list[dict[str, Any]] = []
    for number, key in enumerate(fields.get("keys", ()), start=1):
        read, found = read_fields(key, _CLIENT_KEY_READERS, ("hash",))
        keys.append(read)
        problems += [f"keys.{number}: {problem}" for problem in found]
    if "key_hash" in row and "key_hashes" in row:
        problems.append("key_hash: give either key_hash or, for several keys, key_hashes")
    if not {"key_hash", "key_hashes", "keys"} & row.keys():
        problems.append("key_hash: give either key_hash or, for several keys, key_hashes or keys")
    problems += _unusable_fields(fields, keys)
    return (None, problems) if problems else (_made_client(fields, keys), [])


def _unusable_fields(fields: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all that is wrong with what could be read of a client."""
    problems: list[str] = []
    if "id" in fields:
        try:
            check_client_id(fields["id"])
        except InvalidProviderError as error:
            problems.append(str(error))
    given = "key_hash" in fields or fields.get("key_hashes") or keys
    if not given and {"key_hashes", "keys"} & fields.keys():
        problems.append("key_hashes: is empty; a client has at least one key")
    hashes = [("key_hash", fields["key_hash"])] if "key_hash" in fields else []
    hashes += [("key_hashes", text) for text in fields.get("key_hashes", ())]
    hashes += [(f"keys.{n}: hash", key["hash"]) for n, key in enumerate(keys, 1) if "hash" in key]
    for name, text in hashes:
        try:
            parse_hash(text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    for where, given_rules in (
        ("", fields),
        *((f"keys.{n}: ", key) for n, key in enumerate(keys, 1)),
    ):
        found = (*rule_problems(_rules(given_rules)), *idle_patterns(given_rules))
        problems += [f"{where}{name}: {problem}" for name, problem in found]
    return problems


def _rules(fields: Mapping[str, Any]) -> ClientRules:
    return ClientRules(**{name: fields[name] for name in RULE_FIELDS.keys() & fields.keys()})


def _made_client(fields: Mapping[str, Any], keys: Iterable[Mapping[str, Any]]) -> Client:
    hashes = [fields["key_hash"]] if "key_hash" in fields else [*fields.get("key_hashes", ())]
    key_rules: dict[str, ClientRules] = {}
    for key in keys:
        hashes.append(key["hash"])
        key_rules[parse_hash(key["hash"]).key_id] = _rules(key)
    return Client(id=fields["id"], key_hashes=hashes, rules=_rules(fields), key_rules=key_rules)


def _repeated_names(providers: Iterable[Provider]) -> list[str]:
    seen: set[str] = set()
    problems: list[str] = []
    for provider in providers:
        if provider.name in seen:
            problems.append(f"[[providers]]: the name {provider.name} is there twice")
        seen.add(provider.name)
    return problems
