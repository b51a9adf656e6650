"""The fields of a provider, declared once.

A provider takes several forms: as people write it, as the store keeps it, as the wire carries it,
as it is used, as it is shown. The forms differ in the three fields that hold or may hold secrets:
``base_url``, ``keys`` and ``headers``. Every other field is *plain*: the same value in each form.
The plain fields are declared by `ProviderFields`, which every form extends, and what reads, writes,
describes or compares providers goes through `PLAIN_FIELDS` or `FIELD_NAMES`.

To add a plain field, add it to `ProviderFields` with a default and a description. The provider
file, the API, the command's flags, the store, the wire and the exports have it then. What a plain
field may be, and what checks its bounds, is in `_plain_fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from bridgepool.gateway.providers._plain_fields import about, plain_fields

NAME_PATTERN: Final = "[a-z0-9]+(-[a-z0-9]+)*"
NAME_LENGTH: Final = 64
VARIABLE_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_]*"


# Without slots, since msgspec writes those of a base class first, not in the order of the fields.
@attrs.frozen(kw_only=True, slots=False)
class ProviderFields:
    """The plain fields of a provider; see the head of this module."""

    name: str = attrs.field(
        metadata=about(
            'Words of a-z and 0-9 joined by "-": the first part of every path that goes to it.',
            pattern=NAME_PATTERN,
            max_length=NAME_LENGTH,
        )
    )
    """``[a-z0-9]`` words joined by ``-``: the first part of every path that goes to it."""
    type: str = attrs.field(metadata=about("The API that it serves, such as openai or anthropic."))
    """The name of a `ProviderType`: what the upstream speaks and which routes are open."""
    key_env: str | None = attrs.field(
        default=None,
        metadata=about(
            "The environment variable of each gateway that holds the key.",
            pattern=VARIABLE_PATTERN,
        ),
    )
    """The environment variable that holds the one key; see `Provider.resolve_keys`."""
    client_keys: bool = attrs.field(
        default=False, metadata=about("Clients bring their own keys for it.")
    )
    """Whether each client brings its own key for this upstream, which is then passed on."""
    enabled: bool = attrs.field(
        default=True, metadata=about("A disabled provider answers that it is disabled.")
    )
    """A disabled provider keeps its name and answers that it is disabled."""
    allow_private: bool = attrs.field(
        default=False, metadata=about("Its address may be inside your own network.")
    )
    """Whether its address may be inside the operator's own network; see `address_is_private`."""


PLAIN_FIELDS: Final = plain_fields(ProviderFields)
"""The plain fields by name."""
_FIRST: Final = ("name", "type", "base_url", "keys", "key_env", "client_keys", "enabled", "headers")
FIELD_NAMES: Final = (*_FIRST, *(name for name in PLAIN_FIELDS if name not in _FIRST))
"""All fields, in the order in which they are written and shown."""
REQUIRED_FIELDS: Final = (
    *(name for name, field in PLAIN_FIELDS.items() if field.required),
    "base_url",
)
"""The fields that a whole provider has in any case."""
SPECIAL_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "base_url": "Where it is, such as https://api.openai.com/v1.",
        "keys": "Its keys, in the order of use.",
        "headers": "Sent with every request in place of the client's own of that name.",
    }
)
"""The fields that are not plain, with their descriptions."""


def in_order(_form: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Put the fields of a form in order: its id, `FIELD_NAMES`, the others; for attrs."""
    places = {name: place for place, name in enumerate(("id", *FIELD_NAMES))}
    return sorted(fields, key=lambda field: places.get(field.name, len(places)))


def plain_values(provider: ProviderFields) -> dict[str, Any]:
    """Return the plain fields of any form by name: what another form of it has in common."""
    return {name: getattr(provider, name) for name in PLAIN_FIELDS}
