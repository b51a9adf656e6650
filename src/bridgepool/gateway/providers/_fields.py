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

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import attrs

from bridgepool.gateway.providers._plain_fields import about, plain_fields

NAME_PATTERN: Final = "[a-z0-9]+(-[a-z0-9]+)*"
NAME_LENGTH: Final = 64
VARIABLE_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_]*"
MAX_FALLBACKS: Final = 8
FAILURES: Final = ("connect", "timeout", "cut", "500", "502", "503", "504", "529")
"""The failures of an upstream that can be tried again: there is no connection; nothing comes in
time; the connection ends before the first byte of an answer; and statuses."""


def _to_texts(values: Iterable[str]) -> tuple[str, ...]:
    # Of one text by mistake no name is its letters.
    return ("",) if isinstance(values, str) else tuple(values)


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
    client_keys: bool | Literal["prefer"] = attrs.field(
        default=False,
        metadata=about(
            "Clients bring their own keys for it; with prefer, its own are for those that do not.",
            choices=("prefer",),
        ),
    )
    """Whether each client brings its own key for this upstream, which is then passed on. With
    ``prefer`` it may: the provider's own keys are for the requests without one."""
    enabled: bool = attrs.field(
        default=True, metadata=about("A disabled provider answers that it is disabled.")
    )
    """A disabled provider keeps its name and answers that it is disabled."""
    allow_private: bool = attrs.field(
        default=False, metadata=about("Its address may be inside your own network.")
    )
    """Whether its address may be inside the operator's own network."""
    key_policy: str = attrs.field(
        default="first",
        metadata=about(
            "Which of several keys a request uses: the first free one, or in turn.",
            choices=("first", "round_robin"),
        ),
    )
    """Which of several keys a request uses: ``first``, the first one that is free, or
    ``round_robin``, the next free one in turn."""
    max_replay_bytes: int = attrs.field(
        default=1 << 20,
        metadata=about(
            "Longest body, in bytes, that is kept to be sent again with another key.",
            minimum=0,
            maximum=1 << 30,
        ),
    )
    """The longest body of a request, in bytes, that is kept for a second attempt."""
    breaker: bool = attrs.field(
        default=False,
        metadata=about("Refuse its requests for a while, when it fails again and again."),
    )
    """Whether requests are refused at once while it fails; for each class of its routes."""
    breaker_failures: int = attrs.field(
        default=5,
        metadata=about("The failures that open the breaker.", minimum=1, maximum=1000),
    )
    """The number of failures that open the breaker."""
    breaker_window: float = attrs.field(
        default=10.0,
        metadata=about("The seconds in which they must occur.", minimum=0.1, maximum=3600),
    )
    """The seconds in which the failures must occur."""
    breaker_open: float = attrs.field(
        default=30.0,
        metadata=about("The seconds for which the breaker opens first.", minimum=0.1, maximum=3600),
    )
    """The seconds until the first probes; doubled each time that the breaker opens again."""
    retries: int = attrs.field(
        default=0,
        metadata=about("How often a failed request is sent again at most.", minimum=0, maximum=10),
    )
    """The most attempts after the first, before anything of an answer went to the client."""
    retry_on: tuple[str, ...] = attrs.field(
        default=("connect", "cut", "502", "503", "504", "529"),
        converter=_to_texts,
        metadata=about("The failures that are tried again.", choices=FAILURES),
    )
    """The failures that are tried again, of `FAILURES`."""
    retry_budget: float = attrs.field(
        default=0.2,
        metadata=about("The most retries, as a part of recent requests.", minimum=0, maximum=1),
    )
    """The most retries, as a part of the requests of the last seconds."""
    fallback: tuple[str, ...] = attrs.field(
        default=(),
        converter=_to_texts,
        metadata=about(
            "Providers of the same type to try in turn, when it cannot serve a request.",
            pattern=NAME_PATTERN,
            max_length=NAME_LENGTH,
        ),
    )
    """Names of providers of the same type, tried in order when it cannot serve a request."""
    max_concurrent: int = attrs.field(
        default=0,
        metadata=about(
            "The most requests to it at a time; 0 for any number.", minimum=0, maximum=1_000_000
        ),
    )
    """The most requests that run at a time on one gateway; 0 for no limit."""
    max_waiting: int = attrs.field(
        default=10,
        metadata=about("How many more requests may wait for a turn.", minimum=0, maximum=10_000),
    )
    """The most requests that wait for one of `max_concurrent`; further ones are refused."""
    wait_timeout: float = attrs.field(
        default=5.0,
        metadata=about("The seconds for which a request waits at most.", minimum=0, maximum=600),
    )
    """The longest wait for one of `max_concurrent`, in seconds."""
    include_usage: bool = attrs.field(
        default=False,
        metadata=about("Ask for the usage of every stream; hide it from clients that did not ask."),
    )
    """Whether streamed completions are asked for their usage (``stream_options``), while usage is
    read; a client that did not ask for it does not get it."""


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
