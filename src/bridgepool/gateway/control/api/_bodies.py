"""What the API takes: request bodies and queries, as strict models that name every field."""

from __future__ import annotations

import string
from typing import Annotated, Any, Final, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from bridgepool._secret import Secret
from bridgepool.gateway.control._records import (
    UNSET,
    HeaderValue,
    KeyChange,
    KeyRef,
    KeyValue,
    ProviderDraft,
    ProviderPatch,
    Role,
)
from bridgepool.gateway.providers import PROVIDER_TYPES

MAX_INTEGER: Final = (1 << 63) - 1
NAME_PATTERN: Final = "^[A-Za-z0-9._@-]+$"
"""What every name and id is made of."""
_NAME_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "._@-")


def sound_text(text: str) -> str:
    """Refuse what a database cannot hold, and what no name or URL has."""
    if not text.isprintable():
        raise ValueError("has a character that cannot be printed")
    return text


def sound_name(text: str) -> str:
    """Refuse what no name and no id has."""
    if not _NAME_CHARACTERS.issuperset(text):
        raise ValueError("has a character that no name and no id has")
    return text


def _sound_secret(text: SecretStr) -> SecretStr:
    value = text.get_secret_value()
    if not value.isprintable():
        raise ValueError("has a character that cannot be printed")
    return text


Text = Annotated[str, Field(max_length=4096), AfterValidator(sound_text)]
Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(sound_text)]
SecretText = Annotated[
    SecretStr, Field(min_length=1, max_length=8192), AfterValidator(_sound_secret)
]


def _described(**schema: object) -> Any:
    """Say more in the description than is checked here: the store's rules, which check it."""
    return Field(json_schema_extra=cast("dict[str, Any]", schema))


ProviderName = Annotated[Name, _described(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", maxLength=64)]
TypeName = Annotated[Name, _described(enum=sorted(PROVIDER_TYPES))]
KeyText = Annotated[SecretText, _described(pattern="^[!-~]+$")]
HeaderName = Annotated[Name, _described(pattern="^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderText = Annotated[SecretText, _described(pattern="^[!-~]([ -~]*[!-~])?$")]
Variable = Annotated[Name, _described(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
ClientId = Annotated[
    Name, _described(pattern="^[A-Za-z0-9]([A-Za-z0-9._@-]*[A-Za-z0-9])?$", maxLength=64)
]
KeyHashText = Annotated[Text, _described(pattern="^sha256:[a-z0-9]{12}:[0-9a-f]{32}:[0-9a-f]{64}$")]
Revision = Annotated[int, Field(ge=0, le=MAX_INTEGER)]


class Input(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(
        extra="forbid", strict=True, hide_input_in_errors=True, regex_engine="rust-regex"
    )


class KeyIn(Input):
    """A key of a provider: a new one by `value`, or one that it has by `id`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["value"]}, {"required": ["id"]}]}
    )
    value: KeyText = Field(default_factory=lambda: SecretStr(""))
    id: Name = Field(default_factory=str)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("has either a value or an id")
        return self

    def change(self) -> KeyChange:
        """Return it as the store takes it."""
        if "id" in self.model_fields_set:
            return KeyRef(self.id)
        return KeyValue(Secret(self.value.get_secret_value()))


Keys = Annotated[list[KeyIn], Field(max_length=1000)]
HeadersIn = Annotated[
    dict[HeaderName, HeaderText | None],
    Field(max_length=1000, description="A value of null keeps the one that is stored."),
]


class DraftIn(Input):
    """All of a provider."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "openai",
                "type": "openai",
                "base_url": "https://api.openai.com/v1",
                "keys": [{"value": "sk-0123456789"}],
            }
        }
    )
    name: ProviderName
    type: TypeName
    base_url: Text
    keys: Keys = Field(default_factory=list, description="All of them, in the order of use.")
    key_env: Variable | None = Field(default=None, description="Where gateways find the key.")
    client_keys: bool = Field(default=False, description="Clients bring their own keys.")
    enabled: bool = True
    headers: HeadersIn = Field(default_factory=dict)
    allow_private: bool = Field(default=False, description="It may be on a private network.")

    def draft(self) -> ProviderDraft:
        """Return it as the store takes it."""
        return ProviderDraft(
            name=self.name,
            type=self.type,
            base_url=self.base_url,
            keys=[key.change() for key in self.keys],
            key_env=self.key_env,
            client_keys=self.client_keys,
            enabled=self.enabled,
            headers=_headers(self.headers),
            allow_private=self.allow_private,
        )


class PatchIn(Input):
    """What is to be different in a provider; what is not there stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"enabled": False}})
    name: ProviderName = Field(default_factory=str)
    type: TypeName = Field(default_factory=str)
    base_url: Text = Field(default_factory=str)
    keys: Keys = Field(default_factory=list, description="All that it is to have, in order.")
    key_env: Variable | None = Field(default_factory=lambda: None)
    client_keys: bool = Field(default_factory=bool)
    enabled: bool = Field(default_factory=bool)
    headers: HeadersIn = Field(default_factory=dict)
    allow_private: bool = Field(default_factory=bool)

    def patch(self) -> ProviderPatch:
        """Return it as the store takes it."""
        given = self.model_fields_set
        return ProviderPatch(
            name=self.name if "name" in given else UNSET,
            type=self.type if "type" in given else UNSET,
            base_url=self.base_url if "base_url" in given else UNSET,
            keys=[key.change() for key in self.keys] if "keys" in given else UNSET,
            key_env=self.key_env if "key_env" in given else UNSET,
            client_keys=self.client_keys if "client_keys" in given else UNSET,
            enabled=self.enabled if "enabled" in given else UNSET,
            headers=_headers(self.headers) if "headers" in given else UNSET,
            allow_private=self.allow_private if "allow_private" in given else UNSET,
        )


class ApplyIn(Input):
    """The providers as they are to be."""

    providers: Annotated[list[DraftIn], Field(max_length=10_000)]
    prune: bool = Field(default=False, description="Remove those that are not named.")
    dry_run: bool = Field(default=False, description="Only tell what would be done.")


class ClientIn(Input):
    """A client that is to be added."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": "alice"}})
    id: ClientId
    key_hashes: Annotated[list[KeyHashText], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="Hashes of keys that it has; without them it gets a new key."
    )


class GatewayKeyIn(Input):
    """A key of a gateway that is to be made."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "front-1"}})
    name: ClientId


class AdminKeyIn(Input):
    """A key of the API that is to be made."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "ci", "role": "read"}})
    name: ClientId
    role: Role


def _headers(values: dict[str, SecretStr | None]) -> dict[str, HeaderValue]:
    return {
        name: Secret(value.get_secret_value()) if value is not None else None
        for name, value in values.items()
    }


def field_names() -> frozenset[str]:
    """Return the names of all fields of all bodies."""
    bodies = (KeyIn, DraftIn, PatchIn, ApplyIn, ClientIn, GatewayKeyIn, AdminKeyIn)
    return frozenset(name for body in bodies for name in body.model_fields)
