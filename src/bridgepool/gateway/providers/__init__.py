"""The AI providers: their fields, their types, the credentials of requests, the provider file.

The schema, the rules and the parser are pure. `open_provider_file` needs
``pip install 'bridgepool[gateway]'``; importing this package does not.
"""

from bridgepool.gateway.providers._access_keys import KeyHash
from bridgepool.gateway.providers._anthropic import ANTHROPIC
from bridgepool.gateway.providers._base_url import BaseURL, parse_base_url
from bridgepool.gateway.providers._client_rules import ClientRules
from bridgepool.gateway.providers._clients import Caller, Client, Clients, hash_key, new_client_key
from bridgepool.gateway.providers._error_form import ErrorDetails, ErrorForm
from bridgepool.gateway.providers._errors import (
    AuthorizationUnavailableError,
    InvalidProviderError,
    ProviderFileError,
    ProviderKeyError,
    UnreadableProviderError,
)
from bridgepool.gateway.providers._fields import ProviderFields
from bridgepool.gateway.providers._file import ProviderFile, parse_provider_file
from bridgepool.gateway.providers._file_source import ProviderFileSource, open_provider_file
from bridgepool.gateway.providers._openai import OPENAI
from bridgepool.gateway.providers._provider import KEYS_LIMIT, MAX_KEYS, Provider
from bridgepool.gateway.providers._provider_type import Headers, ProviderType, ResetFields, UrlField
from bridgepool.gateway.providers._rate_status import Rate, RateStatus
from bridgepool.gateway.providers._routes import Route, RouteMatch, WebSocketMessages, methods
from bridgepool.gateway.providers._types import PROVIDER_TYPES
from bridgepool.gateway.providers._usage_fields import UsageFields
from bridgepool.gateway.providers._wire import ProviderRow

__all__ = [
    "ANTHROPIC",
    "KEYS_LIMIT",
    "MAX_KEYS",
    "OPENAI",
    "PROVIDER_TYPES",
    "AuthorizationUnavailableError",
    "BaseURL",
    "Caller",
    "Client",
    "ClientRules",
    "Clients",
    "ErrorDetails",
    "ErrorForm",
    "Headers",
    "InvalidProviderError",
    "KeyHash",
    "Provider",
    "ProviderFields",
    "ProviderFile",
    "ProviderFileError",
    "ProviderFileSource",
    "ProviderKeyError",
    "ProviderRow",
    "ProviderType",
    "Rate",
    "RateStatus",
    "ResetFields",
    "Route",
    "RouteMatch",
    "UnreadableProviderError",
    "UrlField",
    "UsageFields",
    "WebSocketMessages",
    "hash_key",
    "methods",
    "new_client_key",
    "open_provider_file",
    "parse_base_url",
    "parse_provider_file",
]
